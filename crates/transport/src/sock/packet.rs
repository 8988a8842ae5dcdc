//! Probe packets: 64 bytes that show that whoever shares a flow's keys receives at an address.
//!
//! ```text
//! kind (1) magic (4) flow (8) echo (8) nonce (8) seen (18) zero (1) MAC (16)
//! ```
//!
//! The two top bits of `kind` are clear: QUIC sets the second in every packet but version negotiation,
//! which has the first (RFC 9000 §17.2, with greasing of RFC 9287 off), and STUN's kinds are other ones.
//! All packets have one size, so that no answer is larger than its question. Each direction has a key of
//! its own: a packet that is thrown back at its sender is none.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use zeroize::Zeroize;

/// Bytes of every probe packet.
pub const PROBE_LEN: usize = 64;
/// Bytes of the shared secret that gives a flow its name and keys.
pub const FLOW_SECRET_LEN: usize = 72;

const MAGIC: [u8; 4] = *b"x0xp";
const MAC_LEN: usize = 16;
const BODY_LEN: usize = PROBE_LEN - MAC_LEN;

/// A flow of probes between two machines, as packets name it. Not secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowId(pub [u8; 8]);

impl fmt::Debug for FlowId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FlowId({:016x})", u64::from_be_bytes(self.0))
    }
}

/// Matches an answer to what it answers.
pub type Nonce = u64;

/// What both ends of a flow know and nobody else: erased when dropped.
#[derive(Clone)]
pub struct FlowKeys {
    flow: FlowId,
    /// Of what this end sends, and of what it receives.
    own: [u8; 32],
    peer: [u8; 32],
}

impl FlowKeys {
    /// From a secret that both ends share. Exactly one of them is the `first`: the one that dialled.
    #[must_use]
    pub fn new(secret: &[u8; FLOW_SECRET_LEN], first: bool) -> Self {
        let part = |from: usize| {
            let mut key = [0; 32];
            key.copy_from_slice(&secret[from..from + 32]);
            key
        };
        let mut flow = [0; 8];
        flow.copy_from_slice(&secret[..8]);
        let (mut own, mut peer) = (part(8), part(40));
        if !first {
            std::mem::swap(&mut own, &mut peer);
        }
        Self { flow: FlowId(flow), own, peer }
    }

    /// The flow's name.
    #[must_use]
    pub const fn flow(&self) -> FlowId {
        self.flow
    }
}

impl Drop for FlowKeys {
    fn drop(&mut self) {
        self.own.zeroize();
        self.peer.zeroize();
    }
}

impl fmt::Debug for FlowKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowKeys").field("flow", &self.flow).finish_non_exhaustive()
    }
}

/// The three steps after which both ends know that the path works in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Step {
    /// A question.
    Probe = 0x31,
    /// Its answer, a question as well.
    Answer = 0x32,
    /// The answer to that.
    Confirm = 0x33,
}

/// A probe packet that was made by whoever shares the flow's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Probe {
    /// Which step it is.
    pub step: Step,
    /// The nonce of the packet that it answers; zero in a [`Step::Probe`].
    pub echo: Nonce,
    /// To be echoed; zero in a [`Step::Confirm`].
    pub nonce: Nonce,
    /// Where it is sent to or, in an answer, where the question came from.
    pub seen: SocketAddr,
}

impl Probe {
    /// A packet of a step.
    #[must_use]
    pub const fn new(step: Step, echo: Nonce, nonce: Nonce, seen: SocketAddr) -> Self {
        Self { step, echo, nonce, seen }
    }

    /// The packet on the wire, authenticated for the flow.
    #[must_use]
    pub fn encode(&self, keys: &FlowKeys) -> [u8; PROBE_LEN] {
        let ip = match self.seen.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut body = [0; BODY_LEN];
        body[0] = self.step as u8;
        body[1..5].copy_from_slice(&MAGIC);
        body[5..13].copy_from_slice(&keys.flow.0);
        body[13..21].copy_from_slice(&self.echo.to_be_bytes());
        body[21..29].copy_from_slice(&self.nonce.to_be_bytes());
        body[29..45].copy_from_slice(&ip.octets());
        body[45..47].copy_from_slice(&self.seen.port().to_be_bytes());
        let mut packet = [0; PROBE_LEN];
        packet[..BODY_LEN].copy_from_slice(&body);
        packet[BODY_LEN..]
            .copy_from_slice(&blake3::keyed_hash(&keys.own, &body).as_bytes()[..MAC_LEN]);
        packet
    }
}

/// A received packet of the form of a probe: nothing of it is verified.
#[derive(Clone)]
pub struct ProbeIn {
    step: Step,
    packet: [u8; PROBE_LEN],
}

impl fmt::Debug for ProbeIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProbeIn").field("step", &self.step).field("flow", &self.flow()).finish()
    }
}

impl ProbeIn {
    /// Reads a datagram; `None` for any that is not of this form, such as those of QUIC.
    #[must_use]
    pub fn decode(datagram: &[u8]) -> Option<Self> {
        let packet: [u8; PROBE_LEN] = datagram.try_into().ok()?;
        let step = match packet[0] {
            0x31 => Step::Probe,
            0x32 => Step::Answer,
            0x33 => Step::Confirm,
            _ => return None,
        };
        (packet[1..5] == MAGIC && packet[BODY_LEN - 1] == 0).then_some(Self { step, packet })
    }

    /// The flow that it claims.
    #[must_use]
    pub fn flow(&self) -> FlowId {
        FlowId(self.field(5))
    }

    /// Checks that whoever shares these keys made it, for this direction.
    #[must_use]
    pub fn verify(&self, keys: &FlowKeys) -> Option<Probe> {
        let (body, mac) = self.packet.split_at(BODY_LEN);
        let mut expected = [0; 32];
        expected[..MAC_LEN].copy_from_slice(mac);
        let made = blake3::keyed_hash(&keys.peer, body);
        expected[MAC_LEN..].copy_from_slice(&made.as_bytes()[MAC_LEN..]);
        // The comparison of hashes takes the same time wherever they differ.
        if self.flow() != keys.flow || made != blake3::Hash::from_bytes(expected) {
            return None;
        }
        let ip = Ipv6Addr::from(self.field::<16>(29)).to_canonical();
        Some(Probe {
            step: self.step,
            echo: u64::from_be_bytes(self.field(13)),
            nonce: u64::from_be_bytes(self.field(21)),
            seen: SocketAddr::new(ip, u16::from_be_bytes(self.field(45))),
        })
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut field = [0; N];
        field.copy_from_slice(&self.packet[at..at + N]);
        field
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(n: u8) -> [FlowKeys; 2] {
        let secret: [u8; FLOW_SECRET_LEN] = std::array::from_fn(|at| n.wrapping_mul(31) ^ at as u8);
        [FlowKeys::new(&secret, true), FlowKeys::new(&secret, false)]
    }

    proptest! {
        #[test]
        fn what_one_end_makes_the_other_reads(echo: u64, nonce: u64, ip: u128, port: u16, v4: bool) {
            let ip = if v4 { IpAddr::V4((ip as u32).into()) } else { Ipv6Addr::from(ip).to_canonical() };
            let [near, far] = keys(1);
            for step in [Step::Probe, Step::Answer, Step::Confirm] {
                let probe = Probe::new(step, echo, nonce, SocketAddr::new(ip, port));
                let received = ProbeIn::decode(&probe.encode(&near)).expect("well-formed");
                prop_assert_eq!(received.verify(&far), Some(probe));
                prop_assert_eq!(received.verify(&near), None, "thrown back");
                prop_assert_eq!(received.verify(&keys(2)[1]), None, "of another flow");
            }
        }

        #[test]
        fn a_changed_bit_is_noticed(at in 0..PROBE_LEN, bit in 0..8_u8) {
            let [near, far] = keys(1);
            let probe = Probe::new(Step::Answer, 1, 2, SocketAddr::from(([192, 0, 2, 1], 9)));
            let mut packet = probe.encode(&near);
            packet[at] ^= 1 << bit;
            let read = ProbeIn::decode(&packet).and_then(|received| received.verify(&far));
            prop_assert_eq!(read, None);
        }

        #[test]
        fn quic_packets_are_none(mut datagram in prop::collection::vec(any::<u8>(), 0..200), long: bool) {
            if let Some(first) = datagram.first_mut() {
                *first |= if long { 0x80 } else { 0x40 };
            }
            prop_assert!(ProbeIn::decode(&datagram).is_none());
        }
    }

    /// By hand, from docs/protocol/reach.md.
    #[test]
    fn the_layout_is_as_documented() {
        let secret: [u8; FLOW_SECRET_LEN] = std::array::from_fn(|at| at as u8);
        let seen = SocketAddr::from(([192, 0, 2, 1], 9000));
        let body = [
            &[0x32][..],
            b"x0xp",
            &secret[..8],
            &[0, 0, 0, 0, 0, 0, 1, 2],
            &[3, 0, 0, 0, 0, 0, 0, 4],
            &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0x23, 0x28],
            &[0],
        ]
        .concat();
        for (first, key) in [(true, &secret[8..40]), (false, &secret[40..])] {
            let key = key.try_into().expect("32 bytes");
            let mac = blake3::keyed_hash(key, &body);
            let probe = Probe::new(Step::Answer, 0x102, 0x0300_0000_0000_0004, seen);
            let packet = probe.encode(&FlowKeys::new(&secret, first));
            assert_eq!(packet[..], [&body[..], &mac.as_bytes()[..16]].concat());
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let text = format!("{:?}", keys(7)[0]);
        assert!(text.starts_with("FlowKeys") && !text.contains("own"), "{text}");
    }
}
