//! Holders that lie.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use x0x_core::{Protocol, WallTime};
use x0x_direct::letters::{
    Digest,
    wire::{Frame, Listed, Outcome as Answer},
};
use x0x_identity::Tag;
use x0x_transport::{
    InboundEvent, Node, Transport,
    testing::{MemoryNetwork, node},
};

/// A holder that takes everything and does what it likes with it.
pub(crate) struct Hostile {
    node: Arc<Node>,
    kept: BTreeMap<(Tag, Digest), Bytes>,
    way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Gives letters with a bit changed.
    Tampers,
    /// Lists them all and has none.
    Withholds,
    /// Lists every other.
    Hides,
    /// Does not answer.
    Silent,
    /// Lists what never was, in everybody's name, and answers for others.
    Floods,
    /// Gives out old letters again.
    Replays,
    /// Lists them in all mailboxes but their own.
    Mislabels,
}

impl Hostile {
    pub(crate) fn start(network: &MemoryNetwork, n: u64, way: Way) -> tokio::task::JoinHandle<()> {
        let node = Arc::new(node(network, n));
        let mut hostile = Self { node, kept: BTreeMap::new(), way };
        tokio::spawn(async move {
            let mut inbound = hostile.node.inbound(Protocol::Letters).expect("its own");
            while let Some(event) = inbound.recv().await {
                if let InboundEvent::Message { peer, message } = event {
                    for answer in hostile.answers(Frame::decode(&message).expect("honest peers")) {
                        let _ = hostile.node.try_send(peer, Protocol::Letters, answer.encode());
                    }
                }
            }
        })
    }

    fn answers(&mut self, frame: Frame) -> Vec<Frame> {
        match frame {
            Frame::Deposit { tag, sealed, .. } => {
                let digest = Digest::of(&sealed);
                self.kept.insert((tag, digest), sealed);
                let until = WallTime::from_millis(u64::MAX);
                vec![Frame::Deposited { digest, outcome: Answer::Kept, until }]
            }
            Frame::Ask(pickups) => {
                let tags: BTreeSet<Tag> = pickups.iter().map(|pickup| pickup.tag()).collect();
                let mut letters: Vec<Listed> = self
                    .kept
                    .iter()
                    .filter(|((tag, _), _)| tags.contains(tag))
                    .map(|((tag, digest), sealed)| Listed {
                        tag: *tag,
                        digest: *digest,
                        bytes: sealed.len() as u32,
                    })
                    .collect();
                match self.way {
                    Way::Silent => return Vec::new(),
                    Way::Hides => {
                        letters.retain(|letter| letter.digest.as_bytes()[0].is_multiple_of(2))
                    }
                    Way::Floods => {
                        let tag = *tags.first().expect("it asks for something");
                        letters.extend((0..400_u64).map(|n| Listed {
                            tag,
                            digest: Digest::of(&n.to_be_bytes()),
                            bytes: 1,
                        }));
                    }
                    Way::Mislabels => {
                        let elsewhere = |letter: &Listed| {
                            let Listed { tag: own, digest, bytes } = *letter;
                            let others = tags.iter().filter(move |tag| **tag != own);
                            let listed = others.map(move |tag| Listed { tag: *tag, digest, bytes });
                            listed.collect::<Vec<_>>()
                        };
                        letters = letters.iter().flat_map(elsewhere).collect();
                    }
                    _ => {}
                }
                vec![Frame::Listing { letters, more: self.way == Way::Floods }]
            }
            Frame::Fetch { pickup, digest } => self.fetched(pickup.tag(), digest),
            _ => Vec::new(),
        }
    }

    fn fetched(&self, tag: Tag, digest: Digest) -> Vec<Frame> {
        let whole = self.kept.get(&(tag, digest)).cloned();
        let changed = |sealed: &Bytes| {
            let mut sealed = sealed.to_vec();
            let last = sealed.len() - 1;
            sealed[last] ^= 1;
            Bytes::from(sealed)
        };
        let sealed = match self.way {
            Way::Silent => return Vec::new(),
            Way::Withholds => None,
            Way::Tampers => whole.as_ref().map(changed),
            Way::Floods => Some("what never was".into()),
            Way::Hides | Way::Replays => whole,
            Way::Mislabels => {
                let mut kept = self.kept.iter();
                kept.find(|((_, name), _)| *name == digest).map(|(_, sealed)| sealed.clone())
            }
        };
        let answer = Frame::Fetched { digest, sealed };
        vec![answer.clone(), answer]
    }
}
