//! Packets of NAT-PMP (RFC 6886 §3) and PCP (RFC 6887 §7, §11), as far as one UDP port is mapped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest packet of either protocol (RFC 6887 §7).
pub const MAX_PACKET: usize = 1100;

/// The number that ties the answers of PCP to their question.
pub type Nonce = [u8; 12];

const PCP_VERSION: u8 = 2;
const PCP_MAP: u8 = 1;
const PCP_LEN: usize = 60;
const NATPMP_VERSION: u8 = 0;
const NATPMP_ADDRESS: u8 = 0;
const NATPMP_MAP_UDP: u8 = 1;
const NATPMP_ADDRESS_LEN: usize = 12;
const NATPMP_MAP_LEN: usize = 16;
const NATPMP_ERROR_LEN: usize = 8;
/// The bit of an opcode that marks answers, of both protocols.
const ANSWER: u8 = 0x80;
const UNSUPPORTED_VERSION: u16 = 1;
/// The number of UDP among the protocols of IP.
const UDP: u8 = 17;

/// Which protocol a gateway speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MapProtocol {
    /// The Port Control Protocol, version 2.
    Pcp,
    /// The NAT Port Mapping Protocol.
    NatPmp,
}

/// What a gateway says, well-formed and not yet believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum AnswerIn {
    /// NAT-PMP: the gateway's external address.
    Address(Ipv4Addr),
    /// NAT-PMP: a port is mapped.
    Port {
        /// This machine's port.
        internal: u16,
        /// The gateway's.
        external: u16,
        /// For how many seconds.
        lifetime: u32,
    },
    /// PCP: a port is mapped.
    Mapping {
        /// That of the question.
        nonce: Nonce,
        /// This machine's port.
        internal: u16,
        /// The gateway's address.
        address: IpAddr,
        /// The gateway's port.
        external: u16,
        /// For how many seconds.
        lifetime: u32,
    },
    /// NAT-PMP: it does not speak the version that it was asked in.
    OtherVersion,
    /// NAT-PMP: it does not do so.
    NatPmpRefusal,
    /// PCP: it does not do so.
    PcpRefusal {
        /// That of the question.
        nonce: Nonce,
    },
}

/// Bytes are no answer of a gateway: the sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer of NAT-PMP or PCP")]
pub struct NoAnswer;

/// The question of PCP for a mapping of UDP, or with a lifetime of 0 for its end. The address and the port that are
/// suggested may be unspecified.
#[must_use]
pub fn pcp_map(
    nonce: Nonce,
    own: Ipv4Addr,
    port: u16,
    suggested: (Ipv4Addr, u16),
    lifetime: u32,
) -> Vec<u8> {
    let mut packet = Vec::with_capacity(PCP_LEN);
    packet.extend([PCP_VERSION, PCP_MAP, 0, 0]);
    packet.extend(lifetime.to_be_bytes());
    packet.extend(own.to_ipv6_mapped().octets());
    packet.extend(nonce);
    packet.extend([UDP, 0, 0, 0]);
    packet.extend(port.to_be_bytes());
    packet.extend(suggested.1.to_be_bytes());
    packet.extend(suggested.0.to_ipv6_mapped().octets());
    packet
}

/// The question of NAT-PMP for the external address.
#[must_use]
pub fn natpmp_address() -> Vec<u8> {
    vec![NATPMP_VERSION, NATPMP_ADDRESS]
}

/// The question of NAT-PMP for a mapping of UDP, or with a lifetime of 0 for its end.
#[must_use]
pub fn natpmp_map(port: u16, suggested: u16, lifetime: u32) -> Vec<u8> {
    let mut packet = vec![NATPMP_VERSION, NATPMP_MAP_UDP, 0, 0];
    packet.extend(port.to_be_bytes());
    packet.extend(suggested.to_be_bytes());
    packet.extend(lifetime.to_be_bytes());
    packet
}

fn u16_at(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

fn u32_at(packet: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

impl AnswerIn {
    /// Reads an answer.
    ///
    /// # Errors
    /// [`NoAnswer`] for anything else.
    pub fn decode(packet: &[u8]) -> Result<Self, NoAnswer> {
        if packet.len() > MAX_PACKET {
            return Err(NoAnswer);
        }
        let answer = match packet.first() {
            Some(&NATPMP_VERSION) => Self::natpmp(packet),
            Some(&PCP_VERSION) => Self::pcp(packet),
            _ => None,
        };
        answer.ok_or(NoAnswer)
    }

    fn natpmp(packet: &[u8]) -> Option<Self> {
        let opcode = *packet.get(1)?;
        if opcode & ANSWER == 0 || packet.len() < NATPMP_ERROR_LEN {
            return None;
        }
        match (u16_at(packet, 2)?, opcode & !ANSWER, packet.len()) {
            (UNSUPPORTED_VERSION, ..) => Some(Self::OtherVersion),
            (0, NATPMP_ADDRESS, NATPMP_ADDRESS_LEN) => {
                Some(Self::Address(Ipv4Addr::from(u32_at(packet, 8)?)))
            }
            (0, NATPMP_MAP_UDP, NATPMP_MAP_LEN) => Some(Self::Port {
                internal: u16_at(packet, 8)?,
                external: u16_at(packet, 10)?,
                lifetime: u32_at(packet, 12)?,
            }),
            (0, ..) => None,
            _ => Some(Self::NatPmpRefusal),
        }
    }

    fn pcp(packet: &[u8]) -> Option<Self> {
        // Options, of which none was asked for, may follow.
        let map = packet.first_chunk::<PCP_LEN>()?;
        if map[1] != PCP_MAP | ANSWER || map[36] != UDP {
            return None;
        }
        let nonce = *map.get(24..)?.first_chunk()?;
        if map[3] != 0 {
            return Some(Self::PcpRefusal { nonce });
        }
        let address: [u8; 16] = *map.get(44..)?.first_chunk()?;
        Some(Self::Mapping {
            nonce,
            internal: u16_at(map, 40)?,
            address: IpAddr::V6(Ipv6Addr::from(address)).to_canonical(),
            external: u16_at(map, 42)?,
            lifetime: u32_at(map, 4)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn questions_have_the_form_of_the_rfcs() {
        let own = Ipv4Addr::new(192, 168, 1, 2);
        let packet = pcp_map([7; 12], own, 5483, (Ipv4Addr::UNSPECIFIED, 0), 3600);
        assert_eq!(packet.len(), 60);
        assert_eq!(packet[..8], [2, 1, 0, 0, 0, 0, 14, 16]);
        assert_eq!(packet[8..24], own.to_ipv6_mapped().octets());
        assert_eq!(packet[24..36], [7; 12]);
        assert_eq!(packet[36..44], [17, 0, 0, 0, 21, 107, 0, 0]);
        assert_eq!(natpmp_address(), [0, 0]);
        assert_eq!(natpmp_map(5483, 0, 3600), [0, 1, 0, 0, 21, 107, 0, 0, 0, 0, 14, 16]);
    }

    #[test]
    fn answers_are_read_and_refusals_told_apart() {
        let address = AnswerIn::decode(&[0, 128, 0, 0, 0, 0, 0, 1, 8, 8, 4, 4]);
        assert_eq!(address, Ok(AnswerIn::Address(Ipv4Addr::new(8, 8, 4, 4))));
        let port = AnswerIn::decode(&[0, 129, 0, 0, 0, 0, 0, 1, 21, 107, 21, 108, 0, 0, 14, 16]);
        assert_eq!(port, Ok(AnswerIn::Port { internal: 5483, external: 5484, lifetime: 3600 }));
        let version = AnswerIn::decode(&[0, 129, 0, 1, 0, 0, 0, 1]);
        assert_eq!(version, Ok(AnswerIn::OtherVersion));
        let refusal = AnswerIn::decode(&[0, 129, 0, 2, 0, 0, 0, 1]);
        assert_eq!(refusal, Ok(AnswerIn::NatPmpRefusal));
        // A question is no answer.
        assert_eq!(AnswerIn::decode(&natpmp_map(1, 1, 1)), Err(NoAnswer));
        assert_eq!(AnswerIn::decode(&[2; MAX_PACKET + 1]), Err(NoAnswer));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer_or_none(
            head in prop::sample::select(vec![[0, 128], [0, 129], [2, 129]]),
            bytes in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let packet: Vec<u8> = head.into_iter().chain(bytes).collect();
            let read = AnswerIn::decode(&packet);
            prop_assert!(read.is_err() || packet.len() >= 8);
        }
    }
}
