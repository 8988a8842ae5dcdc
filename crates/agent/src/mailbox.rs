//! Direct messages on their way to whoever reads them here.
//!
//! The store has all mail; this keeps the newest in memory, with the messages that are never stored,
//! so that readers who keep up do not ask the store. A reader that falls behind reads from the store,
//! and is told what is not kept any more.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, sleep_until},
};
use x0x_core::{AgentId, Counter, MachineId, Metric, MetricKind};
use x0x_direct::{
    Admittance, DirectMessage, MessageId, Standing, Standings,
    mail::{MailError, MailStore},
};
use x0x_trust::{Action, Assessment, Level};

use crate::trust::Gate;

/// Most messages kept in memory.
pub const MAX_MAILBOX_MESSAGES: usize = 1024;
/// Most payload bytes kept in memory; one larger message is kept alone.
pub const MAX_MAILBOX_BYTES: usize = 4 * 1024 * 1024;
/// Most answers that are waited for.
pub(crate) const MAX_REQUESTS: usize = 1024;
/// Accounted for each message beside its payload.
const MESSAGE_OVERHEAD: usize = 256;
/// Messages that a reader takes from the store at once.
const PAGE: usize = 64;
/// Payload bytes after which a page ends.
const PAGE_BYTES: u64 = 1024 * 1024;
/// How often a page that cannot be read is tried again before a gap is told.
const READ_RETRIES: u32 = 4;
/// The first pause before that; it doubles each time.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// A longer gap between two numbers is no count of messages: the numbers of a database that was lost
/// are followed by ones far above.
const MAX_COUNTED_GAP: u64 = 1 << 30;

/// How many messages a gap between two numbers is; 0 when nobody knows.
pub(crate) const fn counted(gap: u64) -> u64 {
    if gap > MAX_COUNTED_GAP { 0 } else { gap }
}

/// What a reader of direct messages gets.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum DirectEvent {
    /// The next message. Its number, which [`DirectEvents::resume_after`] takes, is 0 when it is not
    /// stored.
    Message(DirectMessage),
    /// So many messages are not kept any more; 0 when nobody knows how many.
    Lagged {
        /// Messages missed.
        missed: u64,
    },
}

#[derive(Debug)]
struct Entry {
    message: DirectMessage,
    /// Messages that are never stored, up to this one.
    passing: u64,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Place of the first entry.
    first: u64,
    /// Highest number of mail.
    last: u64,
    /// Messages that are never stored, so far.
    passing: u64,
    /// Those of them that some reader has had.
    passing_seen: u64,
    /// Answers that are waited for, by the message that they answer, from this agent alone.
    requests: HashMap<MessageId, (AgentId, oneshot::Sender<DirectMessage>)>,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
    /// Something came or was read.
    stirred: Arc<Notify>,
    store: Arc<dyn MailStore>,
    admittance: Admittance,
    lagged: Counter,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_seen(&self, after: u64, through: u64) {
        if self.admittance.seen(after, through) {
            self.stirred.notify_one();
        }
    }
}

/// The mailbox. Cheap to clone; all clones are the same mailbox.
#[derive(Debug, Clone)]
pub(crate) struct Mailbox(Arc<Shared>);

impl Mailbox {
    /// Over a store whose mail has numbers up to `last`. Tells when something came or was read.
    pub(crate) fn new(
        store: Arc<dyn MailStore>,
        admittance: Admittance,
        last: u64,
        stirred: Arc<Notify>,
    ) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::new(State {
                entries: VecDeque::new(),
                bytes: 0,
                first: 0,
                last,
                passing: 0,
                passing_seen: 0,
                requests: HashMap::new(),
                closed: false,
            }),
            arrived: Notify::new(),
            stirred,
            store,
            admittance,
            lagged: Counter::default(),
        }))
    }

    /// Takes a message that is stored, or never will be.
    pub(crate) fn push(&self, message: DirectMessage) {
        let bytes = message.payload.len() + MESSAGE_OVERHEAD;
        let mut state = self.0.lock();
        while state.entries.len() >= MAX_MAILBOX_MESSAGES
            || (state.bytes + bytes > MAX_MAILBOX_BYTES && !state.entries.is_empty())
        {
            let Some(oldest) = state.entries.pop_front() else { break };
            state.bytes -= oldest.message.payload.len() + MESSAGE_OVERHEAD;
            state.first += 1;
        }
        if let Some(asked) = message.reply_to
            && state.requests.get(&asked).is_some_and(|(of, _)| *of == message.from)
            && let Some((_, reply)) = state.requests.remove(&asked)
        {
            // Who asked may be gone.
            let _ = reply.send(message.clone());
        }
        state.last = state.last.max(message.number);
        state.passing += u64::from(message.number == 0);
        state.bytes += bytes;
        let passing = state.passing;
        let is_stored = message.number > 0;
        state.entries.push_back(Entry { message, passing });
        drop(state);
        self.0.arrived.notify_waiters();
        if is_stored {
            self.0.stirred.notify_one();
        }
    }

    /// Waits for the answer to a message of this id by an agent; `None` when too many are waited for.
    pub(crate) fn answer_to(
        &self,
        id: MessageId,
        by: AgentId,
    ) -> Option<oneshot::Receiver<DirectMessage>> {
        let (reply, answer) = oneshot::channel();
        let mut state = self.0.lock();
        state.requests.retain(|_, (_, reply)| !reply.is_closed());
        if state.requests.len() >= MAX_REQUESTS || state.requests.contains_key(&id) {
            return None;
        }
        state.requests.insert(id, (by, reply));
        Some(answer)
    }

    /// A reader that starts at the oldest mail nobody has read.
    pub(crate) fn reader(&self, gate: Gate) -> DirectEvents {
        let after = self.0.admittance.seen_through();
        let passing = {
            let state = self.0.lock();
            let kept = state.entries.iter().filter(|entry| entry.message.number == 0).count();
            state.passing_seen.max(state.passing - kept as u64)
        };
        DirectEvents {
            shared: Arc::clone(&self.0),
            after,
            passing,
            place: Place::Stored(VecDeque::new()),
            skipped: 0,
            failures: 0,
            retry_at: None,
            gate,
        }
    }

    /// Highest number of mail so far.
    pub(crate) fn last(&self) -> u64 {
        self.0.lock().last
    }

    /// Waits until mail comes with a number above this one; false once the agent has shut down.
    pub(crate) async fn arrival_after(&self, number: u64) -> bool {
        loop {
            let arrived = self.0.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that a message between the two is not missed.
            arrived.as_mut().enable();
            {
                let state = self.0.lock();
                if state.last > number {
                    return true;
                }
                if state.closed {
                    return false;
                }
            }
            arrived.await;
        }
    }

    /// Where all mail is.
    pub(crate) fn store(&self) -> &Arc<dyn MailStore> {
        &self.0.store
    }

    /// Mail up to this number was handed to somebody.
    pub(crate) fn seen(&self) -> u64 {
        self.0.admittance.seen_through()
    }

    /// All mail that is kept beyond the first of these numbers, up to the second one, is handed to somebody.
    pub(crate) fn note_seen(&self, after: u64, through: u64) {
        self.0.note_seen(after, through);
    }

    /// Ends every reader once it has read what is there.
    pub(crate) fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.requests.clear();
        drop(state);
        self.0.arrived.notify_waiters();
    }

    /// Its entries of the metrics snapshot.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let kept = self.0.lock().entries.len() as u64;
        let unread = self.0.admittance.unread();
        let gauge = |name, help, value| Metric { name, help, kind: MetricKind::Gauge, value };
        vec![
            gauge("mailbox_messages", "Direct messages kept in memory for readers", kept),
            gauge("mailbox_unread", "Mail that nobody has read yet", unread.messages as u64),
            gauge("mailbox_unread_bytes", "Its payload bytes", unread.bytes),
            self.0
                .lagged
                .metric("mailbox_messages_lagged", "Direct messages that slow readers missed"),
        ]
    }
}

impl Standings for Gate {
    fn standing(&self, agent: &AgentId, machine: &MachineId) -> Standing {
        if *agent == self.own {
            Standing::Contact
        } else if !self.allows(agent, Some(machine), Action::DirectReceive) {
            Standing::Unwanted
        } else if self.trust.level(agent) == Level::Unknown {
            Standing::Stranger
        } else {
            Standing::Contact
        }
    }

    fn may_send(&self, agent: &AgentId, machine: &MachineId) -> bool {
        *agent == self.own || self.allows(agent, Some(machine), Action::DirectSend)
    }
}

/// Where a reader takes its next message from.
#[derive(Debug)]
enum Place {
    /// From the store; this much of it was read already.
    Stored(VecDeque<DirectMessage>),
    /// From memory, at this place.
    Live(u64),
}

/// A reader of the direct messages that arrive for this agent. Readers are independent: each sees
/// every message from its start on.
#[derive(Debug)]
pub struct DirectEvents {
    shared: Arc<Shared>,
    /// Number of the last mail that was read.
    after: u64,
    /// Messages that are never stored, before the next one to be read.
    passing: u64,
    place: Place,
    /// Mail that was skipped and not told yet.
    skipped: u64,
    /// How often the store could not be read since it last could, and when it is tried again.
    failures: u32,
    retry_at: Option<Instant>,
    /// Asked again at reading: an agent may have been blocked since its message came.
    gate: Gate,
}

impl DirectEvents {
    /// How the sender of a message stands now.
    #[must_use]
    pub fn assess(&self, message: &DirectMessage) -> Assessment {
        self.gate.trust.assess(&message.from, Some(&message.machine))
    }

    /// Continues after the mail with this number; what is not kept any more is counted.
    #[must_use]
    pub fn resume_after(mut self, number: u64) -> Self {
        // A number that was never given is of another database: all that is kept is news.
        self.after = if number > self.shared.lock().last { 0 } else { number };
        self
    }

    /// The next message or lag mark; `None` once the agent has shut down. Cancel safe.
    pub async fn next(&mut self) -> Option<DirectEvent> {
        let shared = Arc::clone(&self.shared);
        loop {
            let arrived = shared.arrived.notified();
            tokio::pin!(arrived);
            // Registered before looking, so that a message between the two is not missed.
            arrived.as_mut().enable();
            match self.try_next() {
                Step::Event(DirectEvent::Message(message)) if !self.gate.lets_read(&message) => {}
                Step::Event(event) => return Some(event),
                Step::End => return None,
                Step::Wait => arrived.await,
                Step::Read(last) => {
                    if !self.read_page(last).await {
                        return None;
                    }
                }
            }
        }
    }

    /// Takes some more from the store, which has mail up to `last`. False once the store is closed.
    async fn read_page(&mut self, last: u64) -> bool {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
            self.retry_at = None;
        }
        match self.shared.store.mail(self.after, PAGE, PAGE_BYTES).await {
            Ok(page) => {
                self.failures = 0;
                if page.is_empty() {
                    self.shared.note_seen(self.after, last);
                    self.skip_to(last);
                } else {
                    self.place = Place::Stored(page.into());
                }
            }
            // What is left is for the next run.
            Err(MailError::Closed) => return false,
            Err(error) if self.failures < READ_RETRIES => {
                tracing::debug!(%error, "mail cannot be read now");
                self.retry_at = Some(Instant::now() + READ_PAUSE * (1 << self.failures));
                self.failures += 1;
            }
            Err(error) => {
                tracing::debug!(%error, "mail cannot be read");
                self.failures = 0;
                // Readers are told, and go on with what is in memory, rather than wait for a disk
                // that fails.
                let state = self.shared.lock();
                let numbers = state.entries.iter().map(|entry| entry.message.number);
                let kept = numbers.filter(|number| *number > self.after).min();
                drop(state);
                self.skip_to(kept.map_or(last, |number| number - 1));
            }
        }
        true
    }

    const fn skip_to(&mut self, last: u64) {
        self.skipped += last - self.after;
        self.after = last;
    }

    fn message(&mut self, message: DirectMessage) -> Step {
        let number = message.number;
        if number > 0 {
            self.shared.note_seen(self.after, number);
            self.after = number;
        }
        Step::Event(DirectEvent::Message(message))
    }

    fn try_next(&mut self) -> Step {
        if self.skipped > 0 {
            let skipped = std::mem::take(&mut self.skipped);
            return self.lagged(skipped);
        }
        if let Place::Stored(page) = &mut self.place
            && let Some(message) = page.front()
        {
            let missed = message.number - self.after - 1;
            if missed > 0 {
                self.shared.note_seen(self.after, message.number - 1);
                self.after = message.number - 1;
                return self.lagged(missed);
            }
            return match page.pop_front() {
                Some(message) => self.message(message),
                None => Step::Wait,
            };
        }
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        let place = match self.place {
            Place::Live(place) if place >= state.first => place,
            // Fallen behind, or not there yet.
            _ => match self.enter(&state) {
                Some(place) => place,
                None => return Step::Read(state.last),
            },
        };
        self.place = Place::Live(place);
        let entry = usize::try_from(place - state.first).ok().and_then(|at| state.entries.get(at));
        let Some(Entry { message, passing }) = entry else {
            return if state.closed { Step::End } else { Step::Wait };
        };
        // Those that were pushed out before they were read.
        let before = passing - u64::from(message.number == 0);
        if before > self.passing {
            let missed = before - self.passing;
            self.passing = before;
            return self.lagged(missed);
        }
        self.passing = *passing;
        self.place = Place::Live(place + 1);
        let message = message.clone();
        state.passing_seen = state.passing_seen.max(self.passing);
        drop(state);
        self.message(message)
    }

    /// Where to go on in memory; `None` when the store has mail that is not there.
    fn enter(&self, state: &State) -> Option<u64> {
        let stored = |entry: &&Entry| entry.message.number > 0;
        let oldest = state.entries.iter().find(stored).map(|entry| entry.message.number);
        match oldest {
            None if self.after < state.last => return None,
            Some(oldest) if self.after + 1 < oldest => return None,
            _ => {}
        }
        let read = |entry: &Entry| match entry.message.number {
            0 => entry.passing <= self.passing,
            number => number <= self.after,
        };
        // Everything before the last one that was read was read, too.
        let skip = state.entries.iter().rposition(read).map_or(0, |at| at + 1);
        Some(state.first + skip as u64)
    }

    fn lagged(&self, missed: u64) -> Step {
        let missed = counted(missed);
        self.shared.lagged.add(missed);
        Step::Event(DirectEvent::Lagged { missed })
    }
}

/// What a reader does next.
enum Step {
    Event(DirectEvent),
    /// Read from the store, which has mail up to this number.
    Read(u64),
    Wait,
    End,
}

#[cfg(test)]
mod tests;
