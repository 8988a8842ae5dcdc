//! Connection ids that tell which end of a connection a packet is for.
//!
//! Two machines that dial each other at once have two connections between the same two addresses. Packets
//! of the one that this machine dialled are given a virtual source, those of the other are not. So the
//! first id of an accepted connection carries a mark that only this process can make or see. The peer keeps
//! to that id: QUIC changes it when an end itself moves its socket, which ours never do.
//!
//! There is no checksum over all of them: after a restart, packets of lost connections are recognised
//! as ours and answered with a reset, so that peers need not wait for their idle timeout.

use std::{
    cell::Cell,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::Duration,
};

use quinn::{ConnectionId, ConnectionIdGenerator};

/// Bytes of our connection ids.
const LEN: usize = 8;
/// Bytes of the mark at their beginning.
const MARK: usize = 2;

thread_local! {
    /// quinn asks for ids without telling for which end, but it does so within our call.
    static ACCEPTING: Cell<bool> = const { Cell::new(false) };
}

/// Runs a call into quinn whose new connection ids are those of an accepting end.
pub(super) fn accepting<T>(call: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ACCEPTING.set(false);
        }
    }
    ACCEPTING.set(true);
    let _reset = Reset;
    call()
}

/// Makes connection ids, and recognises the marked ones.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionIds(Arc<RandomState>);

impl ConnectionIds {
    fn mark(&self, rest: &[u8]) -> [u8; MARK] {
        let [a, b, ..] = self.0.hash_one(rest).to_be_bytes();
        [a, b]
    }

    /// Whether a datagram is for the accepting end of a connection.
    pub(super) fn is_for_acceptor(&self, datagram: &[u8]) -> bool {
        let Some((first, rest)) = datagram.split_first() else { return false };
        let id = if first & 0x80 == 0 {
            rest.get(..LEN)
        } else {
            // Version, length, id (RFC 9000 §17.2). A dialler's first packets bear an id of its own
            // making, which is longer than ours.
            match rest.get(4) {
                Some(len) if usize::from(*len) == LEN => rest.get(5..5 + LEN),
                Some(_) => return true,
                None => None,
            }
        };
        id.is_some_and(|id| id[..MARK] == self.mark(&id[MARK..]))
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut id = [0; LEN];
        loop {
            getrandom::fill(&mut id).expect("the operating system has randomness");
            let mark = self.mark(&id[MARK..]);
            if ACCEPTING.get() {
                id[..MARK].copy_from_slice(&mark);
            } else if id[..MARK] == mark {
                continue;
            }
            return ConnectionId::new(&id);
        }
    }

    fn cid_len(&self) -> usize {
        LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long(id: &[u8]) -> Vec<u8> {
        [&[0xc0, 0, 0, 0, 1, id.len() as u8], id, &[0; 20]].concat()
    }

    #[test]
    fn the_mark_is_seen_in_both_kinds_of_packet() {
        let mut ids = ConnectionIds::default();
        for _ in 0..1000 {
            let (dialled, accepted) = (ids.generate_cid(), accepting(|| ids.generate_cid()));
            for (id, marked) in [(dialled, false), (accepted, true)] {
                assert_eq!(ids.is_for_acceptor(&[&[0x40], &id[..], &[9; 30]].concat()), marked);
                assert_eq!(ids.is_for_acceptor(&long(&id)), marked);
            }
        }
        assert!(ids.is_for_acceptor(&long(&[5; 20])), "a dialler's first packet");
        for short in [&[][..], &[0x40, 1, 2], &[0xc0, 0, 0]] {
            assert!(!ids.is_for_acceptor(short));
        }
        let other = accepting(|| ConnectionIds::default().generate_cid());
        let foreign = (0..100).filter(|_| ids.is_for_acceptor(&long(&other))).count();
        assert!(foreign == 0 || foreign == 100, "one in 65,536 by chance, but not now and then");
    }
}
