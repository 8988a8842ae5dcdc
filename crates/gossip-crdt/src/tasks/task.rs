//! One task.

use std::collections::BTreeMap;

use x0x_core::{AgentId, DecodeError, WallTime};

use super::{
    life::{Life, Phase, Step},
    op::{Fields, TaskId, action_code, action_of, is_label, is_title},
    place::is_place,
};
use crate::{
    Decoder, Dot, Encoder, OpContext, Stamp,
    types::{AddWinsSet, Register},
};

/// Most changes of fields that the history of a task names: the latest.
pub const MAX_EDITS: usize = 64;
/// Priority of a task that is given none.
pub const DEFAULT_PRIORITY: u8 = 128;

/// Names of the fields, by the bits that [`Edit`] keeps of them.
const FIELDS: [&str; 7] =
    ["title", "description", "priority", "assignee", "due_at", "labels", "place"];

/// A change of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// By whom.
    pub author: AgentId,
    fields: u8,
}

impl Edit {
    /// Names of the fields.
    pub fn fields(&self) -> impl Iterator<Item = &'static str> + '_ {
        let set = |(bit, _): &(usize, &&str)| self.fields & (1 << bit) != 0;
        FIELDS.iter().enumerate().filter(set).map(|(_, name)| *name)
    }
}

/// What a list keeps of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Task {
    /// The operation that added it.
    pub(super) dot: Dot,
    pub(super) created: WallTime,
    pub(super) creator: AgentId,
    /// The latest time of an operation on it.
    pub(super) updated: WallTime,
    pub(super) title: Register<String>,
    pub(super) description: Register<String>,
    pub(super) priority: Register<u64>,
    pub(super) assignee: Register<Option<AgentId>>,
    pub(super) due: Register<u64>,
    pub(super) place: Register<bytes::Bytes>,
    pub(super) labels: AddWinsSet<String>,
    pub(super) life: Life,
    pub(super) edits: BTreeMap<Stamp, Edit>,
}

impl Task {
    pub(super) fn new(cx: &OpContext<'_>, fields: Fields) -> Self {
        let mut labels = AddWinsSet::default();
        for label in fields.add_labels {
            labels.add(cx, label);
        }
        let due = fields.due.flatten().map_or(0, WallTime::as_millis);
        let priority = fields.priority.unwrap_or(DEFAULT_PRIORITY);
        Self {
            dot: cx.dot(),
            created: cx.time(),
            creator: cx.author(),
            updated: cx.time(),
            title: Register::new(cx, fields.title.unwrap_or_default()),
            description: Register::new(cx, fields.description.unwrap_or_default()),
            priority: Register::new(cx, priority.into()),
            assignee: Register::new(cx, fields.assignee.flatten()),
            due: Register::new(cx, due),
            place: Register::new(cx, fields.place.unwrap_or_default().into()),
            labels,
            life: Life::default(),
            edits: BTreeMap::new(),
        }
    }

    /// Sets fields.
    pub(super) fn edit(&mut self, cx: &OpContext<'_>, fields: Fields) {
        let mut bits = 0_u8;
        let mut note = |bit: u8, set: bool| bits |= u8::from(set) << bit;
        note(0, fields.title.is_some());
        note(1, fields.description.is_some());
        note(2, fields.priority.is_some());
        note(3, fields.assignee.is_some());
        note(4, fields.due.is_some());
        note(5, !fields.add_labels.is_empty() || !fields.remove_labels.is_empty());
        note(6, fields.place.is_some());
        fields.title.map(|title| self.title.set(cx, title));
        fields.description.map(|text| self.description.set(cx, text));
        fields.priority.map(|priority| self.priority.set(cx, priority.into()));
        fields.assignee.map(|assignee| self.assignee.set(cx, assignee));
        fields.due.map(|due| self.due.set(cx, due.map_or(0, WallTime::as_millis)));
        fields.place.map(|place| self.place.set(cx, place.into()));
        for label in &fields.remove_labels {
            self.labels.remove(cx, label);
        }
        for label in fields.add_labels {
            self.labels.add(cx, label);
        }
        self.edits.insert(cx.stamp(), Edit { author: cx.author(), fields: bits });
        // The latest are kept, whichever came first.
        while self.edits.len() > MAX_EDITS {
            self.edits.pop_first();
        }
        self.touch(cx);
    }

    pub(super) fn touch(&mut self, cx: &OpContext<'_>) {
        self.updated = self.updated.max(cx.time());
    }

    /// Bytes of content, nearly.
    pub(super) fn size(&self) -> usize {
        256 + self.title.get().len()
            + self.description.get().len()
            + self.labels.len() * 48
            + size_of_val(self.life.steps())
            + self.edits.len() * 64
    }

    pub(super) fn encode(&self, encoder: &mut Encoder) {
        encoder.dot(self.dot);
        encoder.number(self.created.as_millis());
        encoder.agent(&self.creator);
        encoder.number(self.updated.as_millis());
        self.title.encode(encoder);
        self.description.encode(encoder);
        self.priority.encode(encoder);
        self.assignee.encode(encoder);
        self.due.encode(encoder);
        self.place.encode(encoder);
        self.labels.encode(encoder);
        encoder.count(self.life.steps().len());
        for step in self.life.steps() {
            let (action, lease_ms) = action_code(step.action);
            encoder.stamp(step.stamp);
            encoder.agent(&step.author);
            encoder.number(action.into());
            encoder.number(lease_ms);
        }
        encoder.count(self.edits.len());
        for (stamp, edit) in &self.edits {
            encoder.stamp(*stamp);
            encoder.agent(&edit.author);
            encoder.number(edit.fields.into());
        }
    }

    pub(super) fn decode(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        let task = Self {
            dot: decoder.dot()?,
            created: WallTime::from_millis(decoder.number()?),
            creator: decoder.agent()?,
            updated: WallTime::from_millis(decoder.number()?),
            title: Register::decode(decoder)?,
            description: Register::decode(decoder)?,
            priority: Register::decode(decoder)?,
            assignee: Register::decode(decoder)?,
            due: Register::decode(decoder)?,
            place: Register::decode(decoder)?,
            labels: AddWinsSet::decode(decoder)?,
            life: decode_life(decoder)?,
            edits: decode_edits(decoder)?,
        };
        let sound = is_title(task.title.get())
            && *task.priority.get() <= u8::MAX.into()
            && is_place(task.place.get())
            && task.labels.iter().all(|label| is_label(label));
        if sound { Ok(task) } else { Err(DecodeError::Field("task")) }
    }
}

fn decode_life(decoder: &mut Decoder<'_>) -> Result<Life, DecodeError> {
    let mut steps = Vec::new();
    for _ in 0..decoder.count(52)? {
        let (stamp, author) = (decoder.stamp()?, decoder.agent()?);
        let action = action_of(decoder.number32()?, decoder.number()?)?;
        steps.push((stamp, author, action));
    }
    Life::restore(steps).ok_or(DecodeError::Field("steps"))
}

fn decode_edits(decoder: &mut Decoder<'_>) -> Result<BTreeMap<Stamp, Edit>, DecodeError> {
    let mut edits = BTreeMap::new();
    for _ in 0..decoder.count(51)? {
        let (stamp, author) = (decoder.stamp()?, decoder.agent()?);
        let fields = u8::try_from(decoder.number()?).map_err(|_| DecodeError::Malformed)?;
        let last = edits.last_key_value().map(|(stamp, _)| *stamp);
        if last.is_some_and(|last| last >= stamp) || edits.len() >= MAX_EDITS {
            return Err(DecodeError::Field("edits"));
        }
        edits.insert(stamp, Edit { author, fields });
    }
    Ok(edits)
}

/// A task as it is read.
#[derive(Debug, Clone, Copy)]
pub struct TaskView<'a> {
    pub(super) id: TaskId,
    pub(super) task: &'a Task,
}

impl<'a> TaskView<'a> {
    /// Its id.
    #[must_use]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// What is to be done.
    #[must_use]
    pub fn title(&self) -> &'a str {
        self.task.title.get()
    }

    /// More about it.
    #[must_use]
    pub fn description(&self) -> &'a str {
        self.task.description.get()
    }

    /// How urgent it is; the least urgent is 0.
    #[must_use]
    pub fn priority(&self) -> u8 {
        u8::try_from(*self.task.priority.get()).unwrap_or(u8::MAX)
    }

    /// Who is to do it.
    #[must_use]
    pub const fn assignee(&self) -> Option<AgentId> {
        *self.task.assignee.get()
    }

    /// When it is due.
    #[must_use]
    pub fn due(&self) -> Option<WallTime> {
        let due = *self.task.due.get();
        (due > 0).then(|| WallTime::from_millis(due))
    }

    /// Its labels in order.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.task.labels.iter().map(String::as_str)
    }

    /// Where it stands among the others; equal places are ordered by id.
    #[must_use]
    pub fn place(&self) -> &'a [u8] {
        self.task.place.get()
    }

    /// Who holds it, or that it is done. Whether a lease is over is for the reader's clock to say.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.task.life.phase()
    }

    /// Agents whose claims at the same time lost against the holder's.
    #[must_use]
    pub fn lost(&self) -> Vec<AgentId> {
        self.task.life.lost()
    }

    /// Who added it, and when.
    #[must_use]
    pub const fn created(&self) -> (AgentId, WallTime) {
        (self.task.creator, self.task.created)
    }

    /// When something of it changed last.
    #[must_use]
    pub const fn updated(&self) -> WallTime {
        self.task.updated
    }

    /// What was done with it, in the order of time.
    #[must_use]
    pub fn steps(&self) -> &'a [Step] {
        self.task.life.steps()
    }

    /// Its latest changes of fields, in the order of time.
    pub fn edits(&self) -> impl Iterator<Item = (WallTime, Edit)> + use<'a> {
        let time = |stamp: &Stamp| WallTime::from_millis(stamp.millis);
        self.task.edits.iter().map(move |(stamp, edit)| (time(stamp), *edit))
    }
}
