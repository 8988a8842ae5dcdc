//! Runs and what travels beside them.

use bytes::Bytes;
use prost::Message;
use x0x_core::DecodeError;
use x0x_identity::PUBLIC_KEY_LEN;

use crate::{error::WireError, run::RunIn};

/// Most links that a run is believed to have crossed.
const MAX_HOPS: u32 = 255;

/// One run on its way.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct PublishWire {
    /// An encoded [`RunWire`], exactly as its author sent it.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) run: Bytes,
    /// The author's raw public key, the first time on this link.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) author_key: Bytes,
    /// The sender holds nothing older of this author and epoch.
    #[prost(bool, tag = "3")]
    pub(crate) floor: bool,
    /// Links that the run crossed, this one included.
    #[prost(uint32, tag = "4")]
    pub(crate) hops: u32,
    /// With `floor`: the sender held what is before, until retention took it.
    #[prost(bool, tag = "5")]
    pub(crate) removed: bool,
}

/// 1 to 64 consecutive entries of one author under one signature.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RunWire {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) network: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) topic: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) author: Bytes,
    #[prost(uint64, tag = "4")]
    pub(crate) epoch: u64,
    #[prost(uint64, tag = "5")]
    pub(crate) first_seq: u64,
    /// Hash of the entry before the first; 32 zero bytes before entry 1.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) prev: Bytes,
    #[prost(message, repeated, tag = "7")]
    pub(crate) entries: Vec<EntryWire>,
    #[prost(bytes = "bytes", tag = "8")]
    pub(crate) signature: Bytes,
}

/// One entry of a run.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryWire {
    /// Hybrid time since the entry before it in this run; of the first entry, the time itself.
    #[prost(uint64, tag = "1")]
    pub(crate) time_delta: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) class: u32,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
}

/// What the sender of a run says of what is before it in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Before {
    /// Nothing, so that it may be had there.
    #[default]
    Held,
    /// It was held there, until retention took it.
    Removed,
    /// It never was there.
    Unheard,
}

/// A run as it arrived, with what travels beside it.
#[derive(Debug, Clone)]
pub struct PublishIn {
    pub(crate) run: RunIn,
    /// [`PUBLIC_KEY_LEN`] bytes, not yet checked against the author's id.
    pub(crate) author_key: Option<Bytes>,
    pub(crate) before: Before,
    pub(crate) hops: u32,
}

impl PublishIn {
    pub(super) fn from_wire(wire: PublishWire) -> Result<Self, WireError> {
        let author_key = match wire.author_key.len() {
            0 => None,
            PUBLIC_KEY_LEN => Some(wire.author_key),
            _ => return Err(DecodeError::Field("author_key").into()),
        };
        let hops = wire.hops.clamp(1, MAX_HOPS);
        let before = match (wire.floor, wire.removed) {
            (false, _) => Before::Held,
            (true, true) => Before::Removed,
            (true, false) => Before::Unheard,
        };
        Ok(Self { run: RunIn::decode(wire.run)?, author_key, before, hops })
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> &RunIn {
        &self.run
    }

    /// Links that the run crossed, by the word of those it crossed; at least 1.
    #[must_use]
    pub const fn hops(&self) -> u32 {
        self.hops
    }
}
