use std::time::Duration;

use x0x_core::SeededRng;

use super::*;
use crate::{
    PolicyChange, WriteContext,
    model::{Copy, Written, agent, converges},
};

/// Cases of each law test.
const CASES: u64 = 10_000;

fn policy(rules: Rules) -> Policy {
    let mut policy = Policy::initial(None);
    policy.apply(&PolicyChange::Rules { kind: rules.kind(), everyone: true });
    policy
}

fn shared() -> Policy {
    policy(Rules::Shared)
}

fn put(
    copy: &mut Copy<KvStore>,
    policy: &Policy,
    put: Put,
    when: If,
) -> Result<Written<KvStore>, KvError> {
    let op = copy.state.set(&copy.context(policy), put, when)?;
    Ok(copy.write(policy, &op))
}

fn value(copy: &Copy<KvStore>, key: &str) -> Option<String> {
    let view = copy.state.get(key, copy.now())?;
    match view.value().content() {
        Content::Inline(value) => String::from_utf8(value.to_vec()).ok(),
        Content::File(file) => Some(file.name.clone()),
    }
}

fn tag(copy: &Copy<KvStore>, key: &str) -> VersionTag {
    copy.state.get(key, copy.now()).expect("there").tag()
}

fn random_op(copy: &Copy<KvStore>, policy: &Policy, rng: &mut SeededRng) -> Option<KvOp> {
    let own = format!("{}/", copy.agent);
    let prefix = if rng.chance(0.5) { own } else { String::new() };
    let key = format!("{prefix}{}", rng.below(3));
    let mut put = Put::new(&*key, rng.next_u64().to_be_bytes().to_vec());
    put.ttl = rng.chance(0.3).then(|| Duration::from_millis(rng.range(1000, 3000)));
    let cx: WriteContext<'_> = copy.context(policy);
    match rng.below(8) {
        0 => copy.state.delete_key(&cx, &key, If::Always).ok(),
        // Also what is refused locally: a foreign program may write it.
        1 => Some(KvOp::Delete(key)),
        2 => Some(KvOp::Put(put)),
        _ => copy.state.set(&cx, put, If::Always).ok(),
    }
}

#[test]
fn every_order_gives_the_same_store() {
    converges::<KvStore>(CASES, &shared(), random_op);
}

#[test]
fn every_order_gives_the_same_with_other_rules() {
    converges::<KvStore>(CASES, &policy(Rules::SelfKeyed), random_op);
    converges::<KvStore>(CASES, &policy(Rules::AppendOnly), random_op);
}

#[test]
fn values_of_one_time_stay_until_somebody_has_seen_both() {
    let policy = shared();
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let a = put(&mut one, &policy, Put::new("k", "a"), If::Always).expect("put");
    two.wait(100);
    let b = put(&mut two, &policy, Put::new("k", "b"), If::Always).expect("put");
    one.apply(&policy, &b);
    two.apply(&policy, &a);
    assert_eq!(one.events.last().map(|event| event.change), Some(KvChange::Conflict));
    for copy in [&one, &two] {
        assert_eq!(value(copy, "k").as_deref(), Some("b"), "the later one counts");
        assert_eq!(copy.state.get("k", copy.now()).expect("there").conflicts().len(), 1);
    }
    assert_eq!(tag(&one, "k"), tag(&two, "k"));
    let both = If::Holds(tag(&one, "k"));
    let settled = put(&mut one, &policy, Put::new("k", "c"), both);
    two.apply(&policy, &settled.expect("put"));
    assert!(two.state.get("k", two.now()).expect("there").conflicts().is_empty());
    assert_eq!(one.bytes(), two.bytes());
    // A value that is put while another agent deletes the key stays.
    let op = one.state.delete_key(&one.context(&policy), "k", If::Always).expect("there");
    let deleted = one.write(&policy, &op);
    let kept = put(&mut two, &policy, Put::new("k", "d"), If::Always).expect("put");
    two.apply(&policy, &deleted);
    one.apply(&policy, &kept);
    assert_eq!((value(&one, "k").as_deref(), one.bytes()), (Some("d"), two.bytes()));
}

#[test]
fn a_change_may_depend_on_what_is_there() {
    let policy = shared();
    let mut one = Copy::new(1);
    put(&mut one, &policy, Put::new("k", "1"), If::Absent).expect("nothing is there");
    let first = tag(&one, "k");
    let again = put(&mut one, &policy, Put::new("k", "2"), If::Absent).map(drop);
    assert_eq!(again, Err(KvError::Changed { tag: Some(first) }));
    put(&mut one, &policy, Put::new("k", "2"), If::Holds(first)).expect("it is there");
    let stale = put(&mut one, &policy, Put::new("k", "3"), If::Holds(first)).map(drop);
    assert!(matches!(stale, Err(KvError::Changed { tag: Some(now) }) if now != first));
    let cx = one.context(&policy);
    let refused = one.state.delete_key(&cx, "k", If::Holds(first)).map(drop);
    assert!(matches!(refused, Err(KvError::Changed { .. })));
    let missing = one.state.delete_key(&cx, "other", If::Always).map(drop);
    assert_eq!(missing.map_err(|error| error.to_string()), Err("key not found: other".to_owned()));
}

#[test]
fn a_time_to_live_hides_and_a_later_operation_removes() {
    let policy = shared();
    let mut one = Copy::new(1);
    let mut soon = Put::new("k", "v");
    soon.ttl = Some(Duration::from_secs(5));
    put(&mut one, &policy, soon, If::Always).expect("put");
    one.wait(4_000);
    assert_eq!(value(&one, "k").as_deref(), Some("v"));
    one.wait(2_000);
    assert_eq!((value(&one, "k"), one.state.len()), (None, 1));
    assert_eq!(one.state.range("", None, one.now()).count(), 0);
    one.events.clear();
    put(&mut one, &policy, Put::new("other", ""), If::Always).expect("put");
    assert_eq!(one.state.len(), 1, "nothing is left of it");
    assert_eq!((one.events[0].change, &*one.events[0].key), (KvChange::Expired, "k"));
    put(&mut one, &policy, Put::new("k", "new"), If::Absent).expect("it counts as absent");
}

#[test]
fn self_keyed_stores_take_own_keys_only() {
    let policy = policy(Rules::SelfKeyed);
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let own = format!("{}/a", agent(1));
    let written = put(&mut one, &policy, Put::new(&*own, "1"), If::Always).expect("its own");
    two.apply(&policy, &written);
    let foreign = put(&mut two, &policy, Put::new(&*own, "2"), If::Always).map(drop);
    assert!(matches!(foreign, Err(KvError::Rules(_))), "{foreign:?}");
    // Whoever writes it all the same is skipped by all.
    let forced = two.write(&policy, &KvOp::Put(Put::new(&*own, "2")));
    one.apply(&policy, &forced);
    assert_eq!((one.invalid, two.invalid, value(&one, &own).as_deref()), (1, 1, Some("1")));
    assert_eq!(one.bytes(), two.bytes());
    assert!(!is_own_key(&agent(1), &agent(1).to_string()));
}

#[test]
fn append_only_stores_keep_the_first_value() {
    let policy = policy(Rules::AppendOnly);
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let first = put(&mut one, &policy, Put::new("k", "first"), If::Always).expect("put");
    two.wait(10);
    let second = put(&mut two, &policy, Put::new("k", "second"), If::Always).expect("put");
    one.apply(&policy, &second);
    two.apply(&policy, &first);
    assert_eq!((value(&one, "k").as_deref(), one.bytes()), (Some("first"), two.bytes()));
    for refused in [
        put(&mut one, &policy, Put::new("k", "third"), If::Always).map(drop),
        one.state.delete_key(&one.context(&policy), "k", If::Always).map(drop),
        put(&mut one, &policy, Put { ttl: Some(MIN_TTL), ..Put::new("t", "") }, If::Always)
            .map(drop),
    ] {
        assert!(matches!(refused, Err(KvError::Rules(_))), "{refused:?}");
    }
    one.write(&policy, &KvOp::Delete("k".to_owned()));
    assert_eq!((one.invalid, value(&one, "k").as_deref()), (1, Some("first")));
}

#[test]
fn pages_follow_each_other() {
    let policy = shared();
    let mut one = Copy::new(1);
    for key in ["a", "b/1", "b/2", "b/3", "c"] {
        put(&mut one, &policy, Put::new(key, "v"), If::Always).expect("put");
    }
    let page = |prefix, after, count| {
        let views = one.state.range(prefix, after, one.now()).take(count);
        views.map(|view| view.key().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(page("b/", None, 2), ["b/1", "b/2"]);
    assert_eq!(page("b/", Some("b/2"), 2), ["b/3"]);
    assert_eq!(page("b/", Some("a"), 9), ["b/1", "b/2", "b/3"]);
    assert_eq!(page("", None, 9).len(), 5);
}

#[test]
fn what_is_too_large_is_refused_before_it_is_written() {
    let policy = shared();
    let mut one = Copy::new(1);
    let big = put(&mut one, &policy, Put::new("k", vec![0; MAX_VALUE + 1]), If::Always).map(drop);
    assert_eq!(big, Err(KvError::TooLarge(MAX_VALUE + 1)));
    assert!(big.expect_err("refused").to_string().contains("value too large"));
    let largest = Put {
        content_type: "t".repeat(MAX_CONTENT_TYPE),
        metadata: [("n".to_owned(), "x".repeat(MAX_METADATA_BYTES - 1))].into(),
        ttl: Some(MAX_TTL),
        ..Put::new("k".repeat(MAX_KEY), vec![0; MAX_VALUE])
    };
    let op = KvOp::Put(largest.clone());
    assert!(KvStore::encode_op(&op).len() <= crate::MAX_OP);
    put(&mut one, &policy, largest, If::Always).expect("it fits");
    let file = FileReference { hash: [1; 32], size: 1 << 40, name: "film.mp4".to_owned() };
    let large = Put { content: Content::File(file), ..Put::new("film", "") };
    put(&mut one, &policy, large, If::Always).expect("by reference");
    assert_eq!(value(&one, "film").as_deref(), Some("film.mp4"));
    let path = FileReference { hash: [1; 32], size: 1, name: "../x".to_owned() };
    let bad = [
        Put::new("", "v"),
        Put::new("k\n", "v"),
        Put::new("k".repeat(MAX_KEY + 1), "v"),
        Put { ttl: Some(Duration::from_millis(1)), ..Put::new("k", "v") },
        Put { content: Content::File(path), ..Put::new("k", "v") },
    ];
    for put in bad {
        assert!(KvStore::decode_op(&KvOp::Put(put.clone()).encode()).is_err(), "{put:?}");
        let cx = one.context(&policy);
        assert!(matches!(one.state.set(&cx, put, If::Always), Err(KvError::Field(_))));
    }
    assert!(KvStore::decode_op(&KvOp::Delete(String::new()).encode()).is_err());
    let small = KvStore::encode_op(&KvOp::Put(Put::new("key", "value")));
    assert!(small.len() <= 16, "an operation takes {} bytes", small.len());
}

#[test]
fn rules_of_a_later_version_stop_writes() {
    let mut later = Policy::initial(None);
    later.apply(&PolicyChange::Rules { kind: 99, everyone: true });
    let mut one = Copy::new(1);
    let refused = put(&mut one, &later, Put::new("k", "v"), If::Always).map(drop);
    assert!(matches!(refused, Err(KvError::Rules(_))));
    one.write(&later, &KvOp::Put(Put::new("k", "v")));
    assert_eq!((one.invalid, one.state.len()), (1, 0));
}
