//! Golden vectors and refusals of the control messages.

use std::time::Duration;

use proptest::prelude::*;
use x0x_identity::{AcceptAll, SecretKey};

use super::*;

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn key(n: u8) -> SecretKey {
    SecretKey::from_seed([n; 32])
}

fn machine() -> MachineId {
    key(1).public_key().machine_id()
}

fn hello_out(agents: &[u8]) -> HelloOut {
    let mut hello = HelloOut::new(NetworkTag::of("test"), [7; 16]);
    let issue = |agent: &u8| SignedBinding::issue(&key(*agent), machine(), NOW, DAY).encode();
    hello.bindings = agents.iter().map(issue).collect();
    hello.listen_addresses =
        vec!["192.0.2.1:9000".parse().expect("v4"), "[2001:db8::1]:9001".parse().expect("v6")];
    hello
}

fn hello_in(out: HelloOut) -> Box<HelloIn> {
    match ControlIn::decode(&ControlOut::Hello(out).encode(), true) {
        Ok(ControlIn::Hello(hello)) => hello,
        other => panic!("not a hello: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn golden_vectors() {
    let mut hello = hello_out(&[]);
    hello.replace = true;
    let observed = |address: &str| ControlOut::Observed {
        seq: 3,
        address: address.parse().expect("an address"),
    };
    let expected = [
        (
            ControlOut::Hello(hello),
            "0a5408011220810e3231c756ebaa2dede20577cc70eb49a88d49f8c2f06dacbe84cf260d49301a10\
             070707070707070707070707070707072a06c000020123282a1220010db800000000000000000000\
             000123293001",
        ),
        (ControlOut::Keep(5), "12020805"),
        (ControlOut::Ping(1), "1a09090100000000000000"),
        (ControlOut::Pong(1), "2209090100000000000000"),
        (observed("192.0.2.1:9000"), "2a0a08031206c00002012328"),
        (
            ControlOut::DialBack(DialBackStep::Ask(DialBack {
                round: [1; 16],
                seed: [2; 32],
                address: "192.0.2.1:9000".parse().expect("v4"),
            })),
            "a2013c0a1001010101010101010101010101010101122002020202020202020202020202020202020202\
             020202020202020202020202021a06c00002012328",
        ),
        (observed("[::ffff:192.0.2.1]:9000"), "2a0a08031206c00002012328"),
        (observed("[2001:db8::1]:9001"), "2a160803121220010db80000000000000000000000012329"),
    ];
    for (message, golden) in expected {
        assert_eq!(hex(&message.encode()), golden, "{message:?}");
    }
}

#[test]
fn a_full_hello_fits_and_verifies() {
    let agents = [2, 3, 4, 5, 6, 7, 8, 9];
    let out = hello_out(&agents);
    let addresses = out.listen_addresses.clone();
    let encoded = ControlOut::Hello(out.clone()).encode();
    assert!(encoded.len() <= MAX_HELLO);
    assert!(MAX_HELLO <= x0x_core::StreamClass::Control.max_message());
    assert!(ControlIn::decode(&encoded, false).is_err(), "only the first message may be large");
    let hello =
        hello_in(out).verify(NetworkTag::of("test"), machine(), NOW, &AcceptAll).expect("holds");
    let ids: Vec<_> = agents.iter().map(|n| key(*n).public_key().agent_id()).collect();
    assert_eq!(hello.agents, ids);
    assert_eq!((hello.instance, hello.replace), ([7; 16], false));
    assert_eq!(hello.listen_addresses, addresses);
    let twice =
        hello_in(hello_out(&[2, 2])).verify(NetworkTag::of("test"), machine(), NOW, &AcceptAll);
    assert_eq!(twice.map(|hello| hello.agents.len()), Ok(1));
}

#[test]
fn hellos_that_do_not_hold_are_refused() {
    let network = NetworkTag::of("test");
    let verify =
        |network, machine, now| hello_in(hello_out(&[2])).verify(network, machine, now, &AcceptAll);
    assert_eq!(verify(NetworkTag::of("other"), machine(), NOW), Err(HelloError::Network));
    assert_eq!(verify(network, machine(), NOW + DAY), Err(BindingError::Expired.into()));
    let foreign = key(9).public_key().machine_id();
    assert_eq!(verify(network, foreign, NOW), Err(BindingError::WrongMachine.into()));

    let mut forged = hello_out(&[2]);
    let mut binding = forged.bindings[0].to_vec();
    let last = binding.len() - 1;
    binding[last] ^= 1;
    forged.bindings = vec![binding.into()];
    let refused = hello_in(forged).verify(network, machine(), NOW, &AcceptAll);
    assert!(matches!(refused, Err(HelloError::Binding(_))));

    let mut later = hello_out(&[]).to_proto();
    later.version = 2;
    let later = HelloIn::from_proto(&later).expect("well-formed");
    assert_eq!(later.verify(network, machine(), NOW, &AcceptAll), Err(HelloError::Version(2)));
}

#[test]
fn malformed_hellos_do_not_decode() {
    let broken = |change: fn(&mut proto::Hello)| {
        let mut hello = hello_out(&[]).to_proto();
        change(&mut hello);
        HelloIn::from_proto(&hello).expect_err("malformed")
    };
    assert_eq!(
        broken(|h| h.bindings = vec![Bytes::new(); MAX_AGENTS + 1]),
        DecodeError::Field("bindings")
    );
    assert_eq!(
        broken(|h| h.listen = vec![Bytes::from_static(&[0; 6]); MAX_ADDRESSES + 1]),
        DecodeError::Field("listen")
    );
    assert_eq!(
        broken(|h| h.instance = Bytes::from_static(&[0; 15])),
        DecodeError::Field("instance")
    );
    assert_eq!(broken(|h| h.network = Bytes::new()), DecodeError::Field("network"));
    for length in [0, 1, 5, 7, 17, 19] {
        let address = vec![0; length];
        assert_eq!(unpack(&address), Err(DecodeError::Field("address")), "{length} bytes");
    }
    assert!(hello_out(&[]).to_proto().bindings.is_empty());
}

#[test]
fn unknown_kinds_are_skipped_and_sizes_checked() {
    // Field 15, a later kind of message.
    let later = Bytes::from_static(&[0x7a, 2, 1, 2]);
    assert!(matches!(ControlIn::decode(&later, false), Ok(ControlIn::Unknown)));
    assert!(matches!(ControlIn::decode(&Bytes::new(), false), Ok(ControlIn::Unknown)));
    let long = Bytes::from(vec![0; MAX_CONTROL + 1]);
    let too_large = |result| matches!(result, Err(DecodeError::TooLarge { .. }));
    assert!(too_large(ControlIn::decode(&long, false)));
    assert!(too_large(ControlIn::decode(&Bytes::from(vec![0; MAX_HELLO + 1]), true)));
}

#[test]
fn close_codes_round_trip() {
    for number in 0..8 {
        assert_eq!(CloseCode::from_wire(number) as u64, number);
    }
    assert_eq!(CloseCode::from_wire(u64::MAX), CloseCode::Misbehaved);
}

proptest! {
    #[test]
    fn any_bytes_decode_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = Bytes::from(bytes);
        for first in [true, false] {
            if let Ok(ControlIn::Hello(hello)) = ControlIn::decode(&bytes, first) {
                let verified = hello.verify(NetworkTag::of("test"), machine(), NOW, &AcceptAll);
                prop_assert!(verified.is_err());
            }
        }
    }
}

#[test]
fn steps_of_relays_round_trip_and_names_tell_who_made_them() {
    let machine = MachineId::new([7; 32]);
    let decode = |step| ControlIn::decode(&ControlOut::Relay(step).encode(), false);
    let why = RelayRefusal::Idle;
    for step in [
        RelayStep::Open { context: 2, target: machine },
        RelayStep::Incoming { context: 3, from: machine },
        RelayStep::Ok { context: u32::MAX },
        RelayStep::Close { context: 9, from_relay: true, why },
        RelayStep::Close { context: 8, from_relay: false, why: RelayRefusal::Unknown },
    ] {
        assert!(matches!(decode(step), Ok(ControlIn::Relay(read)) if read == step), "{step:?}");
    }
    for context in [0, 1, 3] {
        assert!(decode(RelayStep::Open { context, target: machine }).is_err());
    }
    for context in [0, 1, 2] {
        assert!(decode(RelayStep::Incoming { context, from: machine }).is_err());
    }
}
