//! What a type is to be replicated: the trait, and what its operations are told.

use std::fmt;

use x0x_core::{AgentId, DecodeError, WallTime};

use crate::{
    codec::{Decoder, Encoder},
    dot::{Dot, Stamp},
    policy::{Policy, Role},
};

/// An operation that no replica applies, by the rule of its type that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);

/// A replicated type.
///
/// The framework hands each replica the same operations in an order that respects causality: all that
/// an author had seen is applied before what it wrote then. Operations that nobody saw of each other come in any
/// order, and a type makes them commute: then all replicas agree. Each operation is applied once.
///
/// What these methods do depends on nothing but their arguments: no clock, no randomness, no hash order. The
/// law checker (`testing::laws`, feature `test-util`) looks for types that break this.
pub trait Object: Default + Clone + Send + Sync + fmt::Debug + 'static {
    /// Names the type and the version of its operations. A part of the object's id: objects of one
    /// name and different types are different.
    const KIND: &'static str;

    /// One change.
    type Op: Clone + Send + Sync + fmt::Debug + 'static;

    /// What watchers are told of an operation. Not part of the state: it may depend on the order.
    type Event: Clone + Send + Sync + fmt::Debug + 'static;

    /// Encodes an operation; at most [`MAX_OP`](crate::MAX_OP) bytes, else it cannot be written.
    fn encode_op(op: &Self::Op) -> Vec<u8>;

    /// Decodes an operation as anybody may have written it.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none. All replicas skip it.
    fn decode_op(bytes: &[u8]) -> Result<Self::Op, DecodeError>;

    /// Whether an operation is valid. Of the state it may look only at what the operation's author had
    /// seen, [`OpContext::sees`]: the rest differs between replicas when they apply it.
    ///
    /// # Errors
    /// [`Invalid`]: all replicas skip it.
    fn check(&self, cx: &OpContext<'_>, op: &Self::Op) -> Result<(), Invalid>;

    /// Applies a valid operation and reports what changed.
    fn apply(&mut self, cx: &OpContext<'_>, op: Self::Op, events: &mut Vec<Self::Event>);

    /// Encodes the state canonically: equal states to equal bytes.
    fn encode_state(&self, encoder: &mut Encoder);

    /// Decodes a state of a snapshot, which may have been damaged or made up.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    fn decode_state(decoder: &mut Decoder<'_>) -> Result<Self, DecodeError>;

    /// Bytes of content, nearly. At [`MAX_OBJECT`](crate::MAX_OBJECT) local writes are refused.
    fn size(&self) -> usize;
}

/// The causal past of an operation.
pub(crate) trait Past {
    fn sees(&self, dot: Dot) -> bool;
}

/// What an operation is applied with: the same on every replica.
#[derive(Clone, Copy)]
pub struct OpContext<'a> {
    pub(crate) dot: Dot,
    pub(crate) author: AgentId,
    pub(crate) stamp: Stamp,
    pub(crate) policy: &'a Policy,
    pub(crate) past: &'a dyn Past,
}

impl fmt::Debug for OpContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (author, stamp) = (self.author, self.stamp);
        f.debug_struct("OpContext").field("author", &author).field("stamp", &stamp).finish()
    }
}

impl OpContext<'_> {
    /// The operation's name.
    #[must_use]
    pub const fn dot(&self) -> Dot {
        self.dot
    }

    /// Who wrote it; proven by signature.
    #[must_use]
    pub const fn author(&self) -> AgentId {
        self.author
    }

    /// When it was written: later than all that its author had seen.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Its time by itself.
    #[must_use]
    pub const fn time(&self) -> WallTime {
        WallTime::from_millis(self.stamp.millis)
    }

    /// The policy that its author had seen.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        self.policy
    }

    /// The author's role in it.
    #[must_use]
    pub fn role(&self) -> Role {
        self.policy.role(&self.author).unwrap_or(Role::Writer)
    }

    /// Whether its author had seen another operation. All that it had seen is applied here.
    #[must_use]
    pub fn sees(&self, other: Dot) -> bool {
        if other.actor == self.dot.actor {
            return other.seq < self.dot.seq;
        }
        self.past.sees(other)
    }
}

/// What a local write is decided with.
#[derive(Debug, Clone, Copy)]
pub struct WriteContext<'a> {
    pub(crate) me: AgentId,
    pub(crate) now: WallTime,
    pub(crate) policy: &'a Policy,
}

impl WriteContext<'_> {
    /// Who writes.
    #[must_use]
    pub const fn me(&self) -> AgentId {
        self.me
    }

    /// The time by the local clock; the operation's own may be later.
    #[must_use]
    pub const fn now(&self) -> WallTime {
        self.now
    }

    /// The policy in force.
    #[must_use]
    pub const fn policy(&self) -> &Policy {
        self.policy
    }

    /// The writer's role in it; none when it may not write.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        self.policy.role(&self.me)
    }
}
