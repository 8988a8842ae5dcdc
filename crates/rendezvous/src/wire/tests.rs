//! Everything a false announcement can get wrong.

use std::{sync::LazyLock, time::Duration};

use proptest::prelude::*;
use x0x_identity::testing::key;

use super::*;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn agent(n: u64) -> AgentId {
    key(n).public_key().agent_id()
}

fn machine(n: u64) -> MachineId {
    key(n).public_key().machine_id()
}

fn honest() -> Announcement {
    Announcement {
        agent: agent(1),
        machine: machine(100),
        user: Some(key(200).public_key().user_id()),
        addresses: vec![
            SocketAddr::from(([192, 0, 2, 1], 5483)),
            SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 65535)),
        ],
        stamp: Stamp { announced_at: NOW, counter: 3 },
    }
}

fn binding(n: u64, on: MachineId) -> SignedBinding {
    SignedBinding::issue(&key(n), on, NOW, HOUR)
}

/// The binding of the honest announcement. Signing is slow without aws-lc.
static PROOF: LazyLock<SignedBinding> = LazyLock::new(|| binding(1, machine(100)));

fn message() -> AgentAnnouncement {
    let encoded = honest().encode(&PROOF);
    AgentAnnouncement::decode(encoded).expect("own form")
}

#[test]
fn an_honest_announcement_is_believed() {
    let encoded = honest().encode(&PROOF);
    let received = Announcement::decode(&encoded).expect("well-formed");
    assert_eq!(received.claimed_agent(), agent(1));
    assert_eq!(received.claimed_stamp(), honest().stamp);
    let (news, binding) = received.verify(agent(1), NOW).expect("holds");
    assert_eq!((news, binding.machine), (honest(), honest().machine));
}

#[test]
fn the_largest_announcement_fits() {
    let addresses = (0..20).map(|port| SocketAddr::from(([0xffff; 8], 60_000 + port)));
    let stamp = Stamp { announced_at: NOW, counter: u64::MAX };
    let large = Announcement { addresses: addresses.collect(), stamp, ..honest() };
    let encoded = large.encode(&PROOF);
    assert!(encoded.len() <= MAX_ANNOUNCEMENT, "{} bytes", encoded.len());
    let decoded = Announcement::decode(&encoded).expect("well-formed").claimed;
    assert_eq!(decoded.addresses, large.addresses[..MAX_ADDRESSES]);
}

#[test]
fn lies_are_refused() {
    let verify = |announcement: Announcement, binding: &SignedBinding, author| {
        let encoded = announcement.encode(binding);
        Announcement::decode(&encoded).expect("well-formed").verify(author, NOW).map(|_| ())
    };
    assert_eq!(verify(honest(), &PROOF, agent(1)), Ok(()));
    assert_eq!(verify(honest(), &PROOF, agent(2)), Err(VerifyError::WrongAuthor));

    // Another agent's binding, and a binding to another machine.
    let theirs = Announcement { agent: agent(2), ..honest() };
    let refused = Err(VerifyError::Binding(BindingError::WrongAgent));
    assert_eq!(verify(theirs, &PROOF, agent(2)), refused);
    let elsewhere = Announcement { machine: machine(101), ..honest() };
    let refused = Err(VerifyError::Binding(BindingError::WrongMachine));
    assert_eq!(verify(elsewhere, &PROOF, agent(1)), refused);

    let at = |announced_at| Announcement { stamp: Stamp { announced_at, counter: 1 }, ..honest() };
    assert_eq!(verify(at(NOW + MAX_CLOCK_SKEW), &PROOF, agent(1)), Ok(()));
    let future = NOW + MAX_CLOCK_SKEW + Duration::from_millis(1);
    assert_eq!(verify(at(future), &PROOF, agent(1)), Err(VerifyError::FromTheFuture));
}

#[test]
fn malformed_announcements_do_not_decode() {
    let change = |edit: fn(&mut AgentAnnouncement)| {
        let mut message = message();
        edit(&mut message);
        Announcement::decode(&message.encode_to_vec()).map(|_| ())
    };
    assert_eq!(change(|_| ()), Ok(()));
    assert_eq!(change(|m| m.agent_id.truncate(31)), Err(DecodeError::Field("agent_id")));
    assert_eq!(change(|m| m.machine_id.push(0)), Err(DecodeError::Field("machine_id")));
    assert_eq!(change(|m| m.user_id = Some(vec![])), Err(DecodeError::Field("user_id")));
    assert_eq!(change(|m| m.user_id = None), Ok(()));
    assert_eq!(change(|m| m.addresses[0].ip.truncate(3)), Err(DecodeError::Field("ip")));
    assert_eq!(change(|m| m.addresses[0].port = 65_536), Err(DecodeError::Field("port")));
    let too_many = change(|m| m.addresses = vec![m.addresses[0].clone(); MAX_ADDRESSES + 1]);
    assert_eq!(too_many, Err(DecodeError::Field("addresses")));
    assert!(change(|m| m.binding = Bytes::from_static(&[0xff])).is_err());
    let huge = vec![0; MAX_ANNOUNCEMENT + 1];
    assert!(matches!(Announcement::decode(&huge), Err(DecodeError::TooLarge { .. })));
}

/// The encoding of version 1 without its binding, fixed by `docs/protocol/rendezvous.md`.
#[test]
fn golden_vector() {
    let bytes = AgentAnnouncement { binding: Bytes::new(), ..message() }.encode_to_vec();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, include_str!("../../tests/vectors/announcement-1.hex").replace('\n', ""));
}

proptest! {
    #[test]
    fn any_bytes_are_handled(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = Announcement::decode(&bytes);
    }

    #[test]
    fn every_announcement_round_trips(
        octets in prop::collection::vec((any::<[u8; 16]>(), any::<bool>(), any::<u16>()), 0..=MAX_ADDRESSES),
        user in any::<Option<[u8; 32]>>(),
        announced_at in 0..NOW.as_millis(),
        counter: u64,
    ) {
        let addresses = octets
            .iter()
            .map(|(ip, v4, port)| {
                let short: [u8; 4] = ip[..4].try_into().expect("four bytes");
                let ip = if *v4 { IpAddr::from(short) } else { IpAddr::from(*ip) };
                SocketAddr::new(ip, *port)
            })
            .collect();
        let stamp = Stamp { announced_at: WallTime::from_millis(announced_at), counter };
        let sent = Announcement {
            agent: AgentId::new([1; 32]),
            machine: MachineId::new([2; 32]),
            user: user.map(UserId::new),
            addresses,
            stamp,
        };
        let encoded = sent.encode(&PROOF);
        let decoded = Announcement::decode(&encoded).expect("well-formed").claimed;
        prop_assert_eq!(decoded, sent);
    }
}
