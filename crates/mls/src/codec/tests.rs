use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Kind {
    Plain,
    One(Vec<u8>),
    Two(u8, i64),
    Named { a: u8, b: u8 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Sample {
    octets: Vec<u8>,
    fixed: [u8; 4],
    pair: (u8, u16),
    tiny: u8,
    kinds: Vec<Option<Kind>>,
    map: BTreeMap<String, u64>,
    nothing: (),
    yes: bool,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Plain),
        any::<Vec<u8>>().prop_map(Kind::One),
        any::<(u8, i64)>().prop_map(|(a, b)| Kind::Two(a, b)),
        any::<(u8, u8)>().prop_map(|(a, b)| Kind::Named { a, b }),
    ]
}

prop_compose! {
    fn sample()(
        octets in any::<Vec<u8>>(), fixed: [u8; 4], tiny: u8, second: u16, yes: bool,
        kinds in proptest::collection::vec(proptest::option::of(kind()), 0..100),
        map in proptest::collection::btree_map(".{0,5}", any::<u64>(), 0..5),
    ) -> Sample {
        Sample { octets, fixed, pair: (tiny, second), tiny, kinds, map, nothing: (), yes }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in sample(), cut in 0usize..2000) {
        let encoded = encode(&value).expect("encodes");
        prop_assert_eq!(&decode::<Sample>(&encoded).expect("decodes"), &value);

        // Whatever is cut off or added is an error, never a panic.
        let mut bytes: Vec<u8> = encoded.chunks.iter().flat_map(|c| c.iter().copied()).collect();
        bytes.truncate(cut % bytes.len());
        prop_assert!(decode_slice::<Sample>(&bytes).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = decode_slice::<Sample>(&bytes);
        let _ = decode_slice::<Vec<Kind>>(&bytes);
    }
}

#[test]
fn bytes_cost_what_they_are() {
    let encoded = encode(&vec![0xffu8; 1000]).expect("encodes");
    assert_eq!(encoded.chunks.len(), 1);
    assert_eq!(encoded.chunks[0].len(), 1003);
}

#[test]
fn a_change_of_one_item_changes_one_chunk() {
    let mut value: Vec<Option<Vec<u8>>> = vec![Some(vec![7; 40]); 512];
    let before = encode(&value).expect("encodes");
    value[300] = Some(vec![8; 50]);
    let after = encode(&value).expect("encodes");
    assert_eq!(before.chunks.len(), 512 / CHUNK_ITEMS);
    let changed = before.chunks.iter().zip(&after.chunks).filter(|(a, b)| a != b).count();
    assert_eq!(changed, 1);
}
