//! Nodes that hold nothing, and lie or say nothing.

use bytes::Bytes;
use x0x_rendezvous::{Frame, testing::invented};

use super::{Event, Manner, World, machine};

impl World {
    /// A node that holds nothing; true when the frame is dealt with. Every other answer of a liar tells no
    /// record, which would give it away.
    pub(super) fn misbehaves(
        &mut self,
        n: usize,
        from: usize,
        manner: Manner,
        frame: &Bytes,
    ) -> bool {
        let answer = match Frame::decode(frame) {
            Ok(Frame::Lookup { .. }) if manner == Manner::Silent => return true,
            Ok(Frame::Lookup { key, id, .. }) => {
                let referrals = invented(&mut self.rng, &key);
                let sealed: Vec<Bytes> = match self.rng.below(2) {
                    0 => vec![vec![0xab; 5600].into()],
                    _ => Vec::new(),
                };
                Frame::Found { key, id, sealed, referrals, holds: true }
            }
            Ok(Frame::Store { key, .. }) => Frame::Stored { key, kept: true },
            _ => return false,
        };
        self.send(n, machine(from), answer.encode(), Event::Find);
        true
    }
}
