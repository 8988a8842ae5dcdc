//! Readers above the topic: it is the log of a public announce group, what is published are texts, and what is
//! delivered is checked, judged by the group's policy and kept as the driver of groups does it.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use x0x_core::WallTime;
use x0x_groups::{
    Chain, GroupId, GroupPolicy, LogItem, MessageKind, Operation, OperationIn, Profile,
    PublicMessage, PublicMessageIn, Taken, Wall, found,
};
use x0x_identity::SecretKey;

use super::{ids::Node, world::World};

/// Items that wait for the group's first operation.
const MAX_WAITING: usize = 64;

/// The operation that founds the group, in which its owner alone writes.
pub(super) fn founded(key: &SecretKey, at: WallTime) -> Operation {
    let profile = Profile { name: "announcements".to_owned(), ..Profile::default() };
    found(key, [1; 32], GroupPolicy::PUBLIC_ANNOUNCE, profile, None, "", at)
}

/// A node that reads the group.
pub(super) struct Reader {
    /// What its card says.
    group: GroupId,
    /// Of the owner, until it has published it.
    founding: Option<Operation>,
    chain: Option<Chain>,
    wall: Wall,
    waiting: Vec<Bytes>,
    shown: u64,
    refused: u64,
}

impl Reader {
    /// One that knows nothing but the group's card, or founds it.
    pub(super) fn new(group: GroupId, founding: Option<Operation>) -> Self {
        let (wall, waiting) = (Wall::new(group), Vec::new());
        Self { group, founding, chain: None, wall, waiting, shown: 0, refused: 0 }
    }

    /// The next item for the log: for the owner first the operation that founds the group, then texts of so many
    /// bytes. None while the group is not known to who wants to write.
    pub(super) fn prepare(
        &mut self,
        key: &SecretKey,
        now: WallTime,
        (number, len): (usize, usize),
    ) -> Option<Bytes> {
        let author = key.public_key().agent_id();
        if let Some(founding) = self.founding.take() {
            let item = LogItem::Operation(founding.encoded().clone()).encode();
            self.chain = Chain::new(founding);
            return Some(item);
        }
        let chain = self.chain.as_ref()?;
        let mut text = format!("{number} ");
        text.extend(std::iter::repeat_n('x', len.saturating_sub(text.len())));
        let message = PublicMessage {
            group: self.group,
            author,
            at: now,
            kind: MessageKind::Announcement,
            room: String::new(),
            thread: None,
            text,
            state: (chain.view().revision, chain.view().state_hash()),
            heads: chain.parents(),
        };
        Some(LogItem::Message(message.sign(key).1).encode())
    }

    /// Takes what was delivered, and says how many signatures that took.
    pub(super) fn deliver(&mut self, payload: &Bytes) -> u64 {
        let Ok(item) = LogItem::decode(payload) else {
            self.refused += 1;
            return 0;
        };
        match (item, &self.chain) {
            (LogItem::Operation(bytes), None) => {
                let operation = OperationIn::decode(&bytes).ok().and_then(|it| it.verify().ok());
                let of_group = operation.filter(|operation| operation.group() == self.group);
                self.chain = of_group.and_then(Chain::new);
                let waiting = std::mem::take(&mut self.waiting);
                1 + waiting.iter().map(|payload| self.deliver(payload)).sum::<u64>()
            }
            // The owner's own.
            (LogItem::Operation(_), Some(_)) => 0,
            (LogItem::Message(_), None) if self.waiting.len() < MAX_WAITING => {
                self.waiting.push(payload.clone());
                0
            }
            (LogItem::Message(bytes), Some(chain)) => {
                let message = PublicMessageIn::decode(&bytes).ok().and_then(|it| it.verify().ok());
                let taken = message.map(|(id, message)| self.wall.take(chain, id, message));
                match taken {
                    Some(Ok(Taken::New)) => self.shown += 1,
                    _ => self.refused += 1,
                }
                1
            }
            _ => {
                self.refused += 1;
                0
            }
        }
    }

    /// What it shows, as ids in order.
    fn showing(&self) -> Vec<[u8; 32]> {
        let shown = self.chain.iter().flat_map(|chain| self.wall.shown(chain.view()));
        shown.map(|(id, _)| id).collect()
    }
}

/// What is measured of the readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct AnnounceReport {
    /// Nodes that read at the end.
    pub readers: usize,
    /// Texts that the reader with the fewest, and the one with the most, took.
    pub shown_min: u64,
    /// See [`shown_min`](Self::shown_min).
    pub shown_max: u64,
    /// Texts that the reader with the fewest, and the one with the most, refused: of who may not write.
    pub refused_min: u64,
    /// See [`refused_min`](Self::refused_min).
    pub refused_max: u64,
    /// Different sets of texts among them that are shown: 1 when all are equal.
    pub walls: usize,
}

impl AnnounceReport {
    /// Of these nodes; none where there is no group.
    pub(super) fn new(world: &World, nodes: &[Node]) -> Option<Self> {
        if !world.scenario.announces {
            return None;
        }
        let readers: Vec<&Reader> = nodes.iter().filter_map(|node| world.reader(*node)).collect();
        let mut walls: Vec<_> = readers.iter().map(|reader| reader.showing()).collect();
        walls.sort_unstable();
        walls.dedup();
        let (shown, refused) = (
            readers.iter().map(|reader| reader.shown),
            readers.iter().map(|reader| reader.refused),
        );
        Some(Self {
            readers: readers.len(),
            shown_min: shown.clone().min().unwrap_or_default(),
            shown_max: shown.max().unwrap_or_default(),
            refused_min: refused.clone().min().unwrap_or_default(),
            refused_max: refused.max().unwrap_or_default(),
            walls: walls.len(),
        })
    }
}

impl fmt::Display for AnnounceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { readers, shown_min, shown_max, refused_min, refused_max, walls } = self;
        writeln!(f, "  {:<30} {readers} / {walls}", "readers / different walls")?;
        let (shown, refused) =
            (format!("{shown_min} to {shown_max}"), format!("{refused_min} to {refused_max}"));
        writeln!(f, "  {:<30} {shown} / {refused}", "texts shown / refused")
    }
}

impl World {
    /// The reader on a node that runs.
    pub(super) fn reader(&self, node: Node) -> Option<&Reader> {
        self.nodes[node as usize].as_ref()?.gossip.reader()
    }
}
