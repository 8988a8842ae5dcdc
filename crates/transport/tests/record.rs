//! Records: what holds, and what does not.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;
use x0x_core::{DecodeError, WallTime};
use x0x_identity::testing::key;
use x0x_transport::{
    ReachClass, SignedRecord,
    record::{MAX_RECORD, MAX_RECORD_ADDRESSES, RECORD_VALIDITY, RecordError},
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);

fn addresses(count: u16) -> impl Iterator<Item = SocketAddr> {
    (0..count).map(|n| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 5000 + n)))
}

fn record() -> SignedRecord {
    SignedRecord::issue(&key(1), addresses(9), ReachClass::Public, NOW)
}

#[test]
fn a_record_survives_the_wire() {
    let record = record();
    assert!(record.encode().len() <= MAX_RECORD);
    let read = SignedRecord::decode(&record.encode()).expect("well-formed");
    assert_eq!(read.claimed_machine(), key(1).public_key().machine_id());
    assert_eq!(read.verify().expect("holds"), record);
    let told = record.record();
    assert_eq!(told.addresses, addresses(4).collect::<Vec<_>>());
    assert_eq!((told.reach, told.seq), (ReachClass::Public, NOW.as_millis()));
    assert_eq!(told.addresses.len(), MAX_RECORD_ADDRESSES);
}

#[test]
fn it_holds_for_a_day_and_not_from_the_future() {
    let record = record();
    let second = Duration::from_secs(1);
    assert!(record.is_valid(NOW) && record.is_valid(NOW + (RECORD_VALIDITY - second)));
    assert!(!record.is_valid(NOW + RECORD_VALIDITY));
    assert!(record.is_valid(WallTime::from_millis(NOW.as_millis() - 299_000)));
    assert!(!record.is_valid(WallTime::from_millis(NOW.as_millis() - 301_000)));
}

#[test]
fn newer_records_differ_and_unusable_addresses_are_left_out() {
    let later =
        SignedRecord::issue(&key(1), addresses(9), ReachClass::Public, NOW + RECORD_VALIDITY);
    assert!(later.record().seq > record().record().seq && later.hash() != record().hash());
    let useless = ["0.0.0.0:1", "224.0.0.1:1", "192.0.2.1:0"].map(|a| a.parse().expect("address"));
    let none = SignedRecord::issue(&key(1), useless, ReachClass::Unknown, NOW);
    assert!(none.record().addresses.is_empty());
    assert_eq!([0, 1, 2, 3, 4].map(|n| ReachClass::from_number(n).number()), [0, 1, 2, 3, 0]);
}

#[test]
fn a_foreign_key_or_an_altered_byte_is_refused() {
    let good = record().encode().to_vec();
    let other = SignedRecord::issue(&key(2), addresses(4), ReachClass::Public, NOW).encode();
    // The second machine's key and signature, each with a tag and a length of two bytes, under the first
    // one's body.
    let body = good.len() - (1952 + 3) - (3309 + 3);
    assert_eq!(good.len(), other.len());
    let mixed: Vec<u8> = good[..body].iter().chain(&other[body..]).copied().collect();
    let mixed = SignedRecord::decode(&mixed.into()).expect("well-formed");
    assert_eq!(mixed.verify().expect_err("of another"), RecordError::Key);
    for place in (0..good.len()).step_by(97) {
        let mut altered = good.clone();
        altered[place] ^= 1;
        let read = SignedRecord::decode(&altered.into());
        assert!(read.is_err() || read.is_ok_and(|read| read.verify().is_err()), "byte {place}");
    }
    let large = Bytes::from(vec![0; MAX_RECORD + 1]);
    assert!(matches!(SignedRecord::decode(&large), Err(DecodeError::TooLarge { .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let read = SignedRecord::decode(&bytes.into());
        prop_assert!(read.is_err() || read.is_ok_and(|read| read.verify().is_err()));
    }
}
