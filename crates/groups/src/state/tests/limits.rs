//! What is bounded, and that a bound keeps nobody from the others for ever.

use super::*;

#[test]
fn operations_of_another_group_or_a_wrong_shape_are_refused() {
    let mut chain = staffed(GroupPolicy::PRIVATE_SECURE);
    let far = found(&key(3), [8; 32], GroupPolicy::PUBLIC_OPEN, profile("far"), None, "", NOW);
    assert_eq!(chain.offer(far.clone()), Err(OfferError::OtherGroup));
    let mut far = Chain::new(far).expect("founds");
    let leave = stated(&far, 3, Some(Role::Owner), far.parents(), Action::Leave);
    far.offer(leave.clone()).expect("fits");
    assert!(Chain::new(leave).is_none());
    let body = |height, parents| OperationBody {
        group: Some(chain.group()),
        author: id(4),
        parents,
        height,
        at: NOW,
        role: Some(Role::Member),
        action: Action::Leave,
    };
    let heads = chain.parents();
    let height = chain.height_after(&heads);
    let high = body(height + 1, heads.clone()).sign(&key(4));
    // A parent that another parent builds upon.
    let mut parents = vec![heads[0], chain.held[0].operation.id];
    parents.sort_unstable();
    let both = body(height, parents).sign(&key(4));
    assert_eq!(chain.offer(high), Err(OfferError::Shape));
    assert_eq!(chain.offer(both), Err(OfferError::Shape));
}

#[test]
fn a_flood_of_one_author_stops_until_others_build_upon_it() {
    let base = staffed(GroupPolicy::PRIVATE_SECURE);
    let heads = base.parents();
    let flood: Vec<Operation> = (0..MAX_UNVOUCHED + 3)
        .map(|n| {
            let name = Action::SetDisplayName(n.to_string());
            stated(&base, 4, Some(Role::Member), heads.clone(), name)
        })
        .collect();
    let mut chain = base.clone();
    for operation in &flood[..MAX_UNVOUCHED] {
        chain.offer(operation.clone()).expect("taken");
    }
    let last = flood[MAX_UNVOUCHED].clone();
    assert_eq!(chain.offer(last.clone()), Err(OfferError::Limit("operations of an author")));
    assert_eq!(chain.len(), base.len() + MAX_UNVOUCHED);
    // Another replica took others, and its member acts on them: all end with them.
    let mut other = base;
    other.offer(last.clone()).expect("taken");
    let built = act(&mut other, 1, Action::SetProfile(profile("built")));
    assert!(matches!(chain.offer(built.clone()), Ok(Offered::Waiting | Offered::Taken(_))));
    if chain.get(&built.id).is_none() {
        chain.offer(last).expect("built upon");
    }
    assert_eq!(chain.view().profile.name, "built");
    assert!(chain.missing().is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let mut ahead = staffed(GroupPolicy::PRIVATE_SECURE);
    let mut behind = Chain::new(founded(GroupPolicy::PRIVATE_SECURE)).expect("founds");
    for n in 0..=MAX_WAITING {
        let next = act(&mut ahead, 4, Action::SetDisplayName(n.to_string()));
        assert_eq!(behind.offer(next), Ok(Offered::Waiting));
        if n % 100 == 99 {
            act(&mut ahead, 1, Action::SetProfile(profile("vouches")));
        }
    }
    assert_eq!(behind.waiting.len(), MAX_WAITING);
    for bytes in ahead.since(&behind.parents()) {
        let operation = crate::wire::OperationIn::decode(&bytes).expect("reads");
        let _ = behind.offer(operation.verify().expect("verifies"));
    }
    assert_eq!(behind.view(), ahead.view());
}
