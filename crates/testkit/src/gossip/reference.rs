//! Reference models of other protocols, over the same network as the production machine.
//!
//! They are models, written from the published parameters and not from anybody's code: what decides
//! copies, hops and latency is in them, nothing else. Both pay for messages of the same size and for
//! the same signature checks as the production machine does, one signature a message.

pub(super) mod gossipsub;
pub(super) mod plumtree;

use bytes::{BufMut, Bytes, BytesMut};
use x0x_identity::SIGNATURE_LEN;

/// Bytes of a message beside its payload: the signature, ids and numbers.
const MESSAGE_OVERHEAD: usize = SIGNATURE_LEN + 190;

/// Bytes of a control frame, and of each message id in it.
const CONTROL_OVERHEAD: usize = 36;
const ID_BYTES: usize = 32;

/// What a frame of a model says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    Message = 1,
    IHave,
    IWant,
    Graft,
    Prune,
}

impl Kind {
    const fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Message,
            2 => Self::IHave,
            3 => Self::IWant,
            4 => Self::Graft,
            5 => Self::Prune,
            _ => return None,
        })
    }

    /// Bytes on the wire with so many ids.
    const fn size(self, ids: usize, payload: usize) -> usize {
        match self {
            Self::Message => MESSAGE_OVERHEAD + payload,
            _ => CONTROL_OVERHEAD + ids * ID_BYTES,
        }
    }
}

/// The frame as the simulator carries it: a kind, a hop count and message numbers.
fn encode(kind: Kind, hops: u8, ids: &[u32]) -> Bytes {
    let mut frame = BytesMut::with_capacity(2 + 4 * ids.len());
    frame.put_u8(kind as u8);
    frame.put_u8(hops);
    ids.iter().for_each(|id| frame.put_u32(*id));
    frame.freeze()
}

fn decode(frame: &[u8]) -> Option<(Kind, u8, impl Iterator<Item = u32> + '_)> {
    let [kind, hops, ids @ ..] = frame else { return None };
    let ids = ids.as_chunks::<4>().0.iter().map(|id| u32::from_be_bytes(*id));
    Some((Kind::of(*kind)?, *hops, ids))
}
