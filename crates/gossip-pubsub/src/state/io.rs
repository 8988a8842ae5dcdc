//! What goes into the machine and what comes out of it.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use x0x_core::{MachineId, PeerAddr, TopicId, WallTime};

use super::{CheckedRun, PendingRun};
use crate::{
    retention::ChainEnd,
    run::Run,
    store::{LogChange, RestoredTopic},
    subscriber::{Batch, Cursor, SubscriptionId},
};

/// What the world tells the machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// The wall-clock time, before anything else of a turn.
    Wall(WallTime),
    /// This peer is a neighbour, and a session with it is up: a link begins.
    LinkUp(MachineId),
    /// The session with this peer ended.
    LinkDown(MachineId),
    /// This peer is no neighbour any more; its session stays. It is told.
    LinkLeft(MachineId),
    /// The round trip to a peer, measured by the transport.
    Rtt {
        /// The peer.
        peer: MachineId,
        /// The smoothed round-trip time.
        rtt: Duration,
    },
    /// Where a session's packets come from, told of every session before anything else of it.
    Path {
        /// The peer.
        peer: MachineId,
        /// The address.
        from: IpAddr,
    },
    /// Where a peer with a link listens, for others that look for subscribers of its topics.
    Address(PeerAddr),
    /// A peer that [`Output::Dial`] named has a session now, or could not be reached.
    Dialled {
        /// The peer.
        peer: MachineId,
        /// Whether there is a session.
        up: bool,
    },
    /// Subscribers of a topic that something else than pubsub found: the machine dials as many as the
    /// topic lacks.
    Introduced {
        /// The topic.
        topic: TopicId,
        /// Who subscribes it, and where they are.
        peers: Vec<PeerAddr>,
    },
    /// What is left to send of this author has no later chance: the service ends.
    Closing,
    /// A message of the pubsub protocol.
    Frame {
        /// The authenticated sender.
        peer: MachineId,
        /// The message.
        message: Bytes,
    },
    /// The peer's queue refused the last [`Output::Send`] to it.
    SendRefused(MachineId),
    /// The peer's queue has room again.
    Writable(MachineId),
    /// The answer to [`Output::Verify`].
    Verified(CheckedRun),
    /// A run of this author, signed.
    Signed(Arc<Run>),
    /// The store has what is before a place in a topic's log, or will not have it.
    Stored {
        /// The topic.
        topic: TopicId,
        /// The place.
        upto: Cursor,
    },
    /// Topics that this author published in before the start, the latest first: at most
    /// [`MAX_OWN_TOPICS`](crate::MAX_OWN_TOPICS) are read and carried.
    Carry(Vec<TopicId>),
    /// The answer to [`Output::Load`]; none when nothing is stored, or it is damaged.
    Restored {
        /// The topic.
        topic: TopicId,
        /// What was stored of it.
        stored: Option<Box<RestoredTopic>>,
    },
    /// So much waits for the store that nothing more should be taken that is stored; or no longer.
    StoreBehind(bool),
    /// Of what is kept for ever in a topic, the runs that end no later than this may go.
    Release {
        /// The topic.
        topic: TopicId,
        /// Up to where, for each chain.
        upto: Vec<ChainEnd>,
    },
    /// Changes of a topic were not stored: all that is in its log is stored again.
    Holed(TopicId),
    /// The subscription's channel refused the last [`Output::Deliver`] to it.
    SubscriberFull(SubscriptionId),
    /// The subscription's channel has room again.
    SubscriberReady(SubscriptionId),
    /// The subscription was dropped.
    Unsubscribe(SubscriptionId),
}

/// What the machine asks of the world.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Offer a message to the peer's queue; when it is refused say so with [`Input::SendRefused`]
    /// before polling again.
    Send {
        /// To whom.
        peer: MachineId,
        /// The frame.
        message: Bytes,
    },
    /// Check a run's signature with [`PendingRun::verify`] and hand the result back with
    /// [`Input::Verified`] before the next frame: an author's runs are taken in order.
    Verify(Box<PendingRun>),
    /// Offer a batch to the subscription's channel; when it is refused say so with
    /// [`Input::SubscriberFull`] before polling again.
    Deliver {
        /// To whom.
        subscription: SubscriptionId,
        /// The messages.
        batch: Batch,
    },
    /// A live link of this topic is too far behind for more to be published, or no longer is.
    Congestion {
        /// The topic.
        topic: TopicId,
        /// Whether publishing is to wait.
        congested: bool,
    },
    /// A topic holds as much of the durable class as it may, or no longer.
    Full {
        /// The topic.
        topic: TopicId,
        /// Whether publishing in the class is refused.
        full: bool,
    },
    /// End the session with a peer that misbehaves.
    Disconnect(MachineId),
    /// Open a session with a peer that subscribes a topic of ours, and say so with
    /// [`Input::Dialled`].
    Dial(PeerAddr),
    /// The session with a peer is needed, though the overlay does not need it, or no longer is:
    /// [`Transport::hold`](x0x_transport::Transport::hold).
    Hold {
        /// The peer.
        peer: MachineId,
        /// Whether it is needed.
        held: bool,
    },
    /// Read what is stored of a topic, after all changes before this, and hand it back with
    /// [`Input::Restored`].
    Load(TopicId),
    /// Store a change of a log.
    Persist(LogChange),
    /// A run of this author is in the log, and if it is to be stored, that went out just before.
    Appended {
        /// The topic.
        topic: TopicId,
        /// The run's epoch.
        epoch: u64,
        /// Sequence number of its first entry, and of its last.
        seqs: (u64, u64),
        /// The place before its first entry.
        start: Cursor,
        /// Whether it is to be stored.
        stored: bool,
    },
    /// A link has this author's entries of a topic up to here.
    FirstHop {
        /// The topic.
        topic: TopicId,
        /// This author's epoch.
        epoch: u64,
        /// The last entry that a peer confirmed.
        seq: u64,
    },
}
