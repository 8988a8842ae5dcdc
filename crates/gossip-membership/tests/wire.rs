//! The wire: golden bytes, round trips, and bytes of an enemy.

use std::net::SocketAddr;

use proptest::prelude::*;
use x0x_core::{DecodeError, MAX_ADDRESSES, MachineId};
use x0x_gossip_membership::{
    Hint, Message, MessageIn, Outcome, Peer,
    config::{MAX_SHUFFLE_ENTRIES, MAX_WALK},
    wire::MAX_MESSAGE,
};
use x0x_transport::{ReachClass, testing};

const LOCAL: MachineId = MachineId::new([0; 32]);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).expect("ascii"), 16);
    digits.chunks(2).map(|pair| byte(pair).expect("hex")).collect()
}

fn peer(n: u8, addresses: &[&str]) -> Peer {
    Peer::new(MachineId::new([n; 32]), addresses.iter().map(|a| a.parse().expect("an address")))
}

fn verify(bytes: &[u8]) -> Result<Message, DecodeError> {
    MessageIn::decode(bytes)?.verify(LOCAL).map(|verified| verified.message)
}

/// A change of these bytes is a change of the protocol.
#[test]
fn golden_vectors() {
    let vectors = include_str!("vectors/messages.txt");
    let id = |n: u8| [n; 32].map(|b| format!("{b:02x}")).concat();
    let messages = [
        ("join", Message::Join),
        ("forward_join", Message::ForwardJoin { ttl: 6, joiner: peer(1, &["192.0.2.1:5483"]) }),
        ("neighbor_low", Message::Neighbor { high: false }),
        ("neighbor_high", Message::Neighbor { high: true }),
        ("accept", Message::NeighborReply { accept: true, entries: vec![] }),
        ("reject", Message::NeighborReply { accept: false, entries: vec![] }),
        (
            "accept_join",
            Message::NeighborReply { accept: true, entries: vec![peer(2, &["192.0.2.2:1"])] },
        ),
        (
            "shuffle",
            Message::Shuffle {
                id: 300,
                ttl: 2,
                entries: vec![peer(1, &["192.0.2.1:5483", "[2001:db8::1]:5483"])],
            },
        ),
        (
            "shuffle_reply",
            Message::ShuffleReply { id: 300, entries: vec![peer(2, &["192.0.2.2:1"])] },
        ),
        ("disconnect_alive", Message::Disconnect { alive: true }),
        ("disconnect_leaving", Message::Disconnect { alive: false }),
        ("ping", Message::Ping { nonce: 1, suspected: None, sample: false }),
        ("ping_suspect", Message::Ping { nonce: 300, suspected: Some(0), sample: true }),
        ("ack", Message::Ack { nonce: 1, incarnation: 300, entries: vec![] }),
        (
            "ping_request",
            Message::PingRequest { nonce: 1, target: MachineId::new([1; 32]), suspected: Some(2) },
        ),
        ("report_unknown", Message::PingReport { nonce: 1, outcome: Outcome::Unknown }),
        ("report_silent", Message::PingReport { nonce: 1, outcome: Outcome::Silent }),
        ("report_alive", Message::PingReport { nonce: 1, outcome: Outcome::Alive(300) }),
        (
            "hint",
            Message::ShuffleReply {
                id: 1,
                entries: vec![
                    peer(1, &["192.0.2.1:5483"])
                        .with_hint(Hint::new(ReachClass::Public, Some([7; 16]))),
                ],
            },
        ),
    ];
    let lines: Vec<(&str, &str)> =
        vectors.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_once('=')).collect();
    assert_eq!(lines.len(), messages.len());
    for ((name, message), (line_name, bytes)) in messages.into_iter().zip(lines) {
        let bytes = bytes.replace("ID1", &id(1)).replace("ID2", &id(2));
        assert_eq!(name, line_name.trim());
        assert_eq!(message.encode(), hex(&bytes), "{name}");
        assert_eq!(verify(&hex(&bytes)), Ok(message), "{name}");
    }
}

#[test]
fn limits_are_checked() {
    let full = |count: u8| Message::Shuffle {
        id: u64::MAX,
        ttl: MAX_WALK,
        entries: (1..=count)
            .map(|n| {
                let addresses = (0..MAX_ADDRESSES as u16)
                    .map(|k| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, k + 1], 65535)));
                let hint = Hint::new(ReachClass::RelayOnly, Some([n; 16]));
                Peer::new(MachineId::new([n; 32]), addresses).with_hint(hint)
            })
            .collect(),
    };
    let largest = full(MAX_SHUFFLE_ENTRIES as u8);
    assert!(largest.encode().len() <= MAX_MESSAGE);
    assert_eq!(verify(&largest.encode()), Ok(largest));
    assert_eq!(verify(&full(17).encode()), Err(DecodeError::Field("entries")));
    let huge = vec![0; MAX_MESSAGE + 1];
    assert!(matches!(MessageIn::decode(&huge), Err(DecodeError::TooLarge { .. })));
    assert_eq!(verify(&[]), Err(DecodeError::Field("body")), "nothing");
    assert_eq!(verify(&hex("7a 00")), Err(DecodeError::Field("body")), "a kind of the future");
    assert_eq!(verify(&hex("5a 02 10 03")), Err(DecodeError::Field("outcome")));
    assert_eq!(verify(&hex("52 02 08 01")), Err(DecodeError::Field("target")));
    let mut record =
        Message::Record(testing::record(1, ReachClass::Public, testing::EPOCH)).encode();
    assert!(record.len() <= MAX_MESSAGE && verify(&record).is_ok());
    record = record.iter().map(|byte| byte ^ u8::from(*byte == 0x51)).collect::<Vec<u8>>().into();
    assert!(verify(&record).is_err(), "altered somewhere");
    assert_eq!(
        verify(&hex(&format!("32 27 12 25 0a 20 {} 22 01 00", "01".repeat(32)))),
        Err(DecodeError::Field("record")),
        "a hash of one byte"
    );
    // A walk of 2^32 - 1 hops is cut.
    let long = hex("2a 08 08 01 10 ff ff ff ff 0f");
    assert_eq!(verify(&long), Ok(Message::Shuffle { id: 1, ttl: MAX_WALK, entries: vec![] }));
}

#[test]
fn broken_peers_are_refused_and_useless_ones_left_out() {
    let shuffle = |entry: &str| {
        let entry = hex(entry);
        let mut body = vec![0x1a, entry.len() as u8];
        body.extend(entry);
        let mut frame = vec![0x2a, body.len() as u8];
        frame.extend(body);
        MessageIn::decode(&frame).and_then(|message| message.verify(LOCAL))
    };
    let id = "0a 20 0101010101010101010101010101010101010101010101010101010101010101";
    assert_eq!(shuffle("0a 02 0101"), Err(DecodeError::Field("id")));
    assert_eq!(shuffle(&format!("{id} 12 05 0a00000101")), Err(DecodeError::Field("address")));
    assert_eq!(shuffle(&format!("{id} 12 00")), Err(DecodeError::Field("address")));
    let nine = format!("{id} {}", "12 06 0a0000010101".repeat(9));
    assert_eq!(shuffle(&nine), Err(DecodeError::Field("addresses")));
    let own = shuffle(&id.replace("01", "00")).expect("well-formed");
    assert_eq!((own.refused_entries, own.message), (1, entries(vec![])));
    let port_zero = shuffle(&format!("{id} 12 06 0a0000010000")).expect("well-formed");
    assert_eq!((port_zero.refused_entries, port_zero.message), (1, entries(vec![])));
    let good = shuffle(&format!("{id} 12 06 0a000001156b")).expect("well-formed");
    assert_eq!(good.message, entries(vec![peer(1, &["10.0.0.1:5483"])]));
}

fn entries(entries: Vec<Peer>) -> Message {
    Message::Shuffle { id: 0, ttl: 0, entries }
}

fn any_peer() -> impl Strategy<Value = Peer> {
    let v4 = (1_u8..224, 1_u16..).prop_map(|(a, port)| SocketAddr::from(([a, 2, 3, 4], port)));
    let v6 = (any::<u16>(), 1_u16..)
        .prop_map(|(a, port)| SocketAddr::from(([0x2001, a, 0, 0, 0, 0, 0, 1], port)));
    let addresses = prop::collection::vec(prop_oneof![v4, v6], 1..=MAX_ADDRESSES);
    (1_u8.., addresses).prop_map(|(n, addresses)| Peer::new(MachineId::new([n; 32]), addresses))
}

fn any_message() -> impl Strategy<Value = Message> {
    let list = || prop::collection::vec(any_peer(), 0..=MAX_SHUFFLE_ENTRIES);
    prop_oneof![
        Just(Message::Join),
        (0..=MAX_WALK, any_peer()).prop_map(|(ttl, joiner)| Message::ForwardJoin { ttl, joiner }),
        any::<bool>().prop_map(|high| Message::Neighbor { high }),
        (any::<bool>(), list())
            .prop_map(|(accept, entries)| Message::NeighborReply { accept, entries }),
        any::<bool>().prop_map(|alive| Message::Disconnect { alive }),
        (any::<u64>(), 0..=MAX_WALK, list()).prop_map(|(id, ttl, entries)| Message::Shuffle {
            id,
            ttl,
            entries
        }),
        (any::<u64>(), list()).prop_map(|(id, entries)| Message::ShuffleReply { id, entries }),
    ]
}

proptest! {
    #[test]
    fn messages_round_trip(message in any_message()) {
        let bytes = message.encode();
        prop_assert!(bytes.len() <= MAX_MESSAGE);
        prop_assert_eq!(verify(&bytes), Ok(message));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        let _ = verify(&bytes);
    }

    #[test]
    fn damaged_messages_never_panic(message in any_message(), place: usize, with: u8) {
        let mut bytes = message.encode().to_vec();
        if !bytes.is_empty() {
            let place = place % bytes.len();
            bytes[place] ^= with;
        }
        let _ = verify(&bytes);
    }
}
