use std::time::Duration;

use x0x_core::SeededRng;

use super::*;
use crate::{
    Policy,
    model::{Copy, Written, agent, converges},
};

/// Cases of the law test; a further run of the same length is in the release check.
const CASES: u64 = 10_000;

fn titled(title: &str) -> Fields {
    Fields { title: Some(title.to_owned()), ..Fields::default() }
}

fn open() -> Policy {
    Policy::initial(None)
}

fn add(copy: &mut Copy<TaskList>, title: &str) -> (TaskId, Written<TaskList>) {
    let op = copy.state.add(titled(title), Spot::End).expect("added");
    let written = copy.write(&open(), &op);
    (TaskId::of(written.stamp.dot), written)
}

fn act(
    copy: &mut Copy<TaskList>,
    id: TaskId,
    action: Action,
) -> Result<Written<TaskList>, TaskError> {
    let policy = open();
    let op = copy.state.act(&copy.context(&policy), id, action)?;
    Ok(copy.write(&policy, &op))
}

fn hour() -> Action {
    Action::Claim(DEFAULT_LEASE)
}

fn holder(copy: &Copy<TaskList>, id: TaskId) -> Option<AgentId> {
    match copy.state.get(&id)?.phase() {
        Phase::Held { agent, .. } | Phase::Done { agent, .. } => Some(agent),
        Phase::Open => None,
    }
}

fn random_op(copy: &Copy<TaskList>, policy: &Policy, rng: &mut SeededRng) -> Option<TaskOp> {
    let tasks = copy.state.in_order();
    let pick = |rng: &mut SeededRng| tasks.get(rng.below(tasks.len())).map(TaskView::id);
    if tasks.is_empty() || rng.chance(0.2) {
        let spot = match pick(rng) {
            Some(id) if rng.chance(0.5) => Spot::After(id),
            _ => Spot::End,
        };
        return copy.state.add(titled("t"), spot).ok();
    }
    let id = pick(rng)?;
    let lease = Duration::from_millis(rng.range(1000, 4000));
    let action = [
        Action::Claim(lease),
        Action::Renew(lease),
        Action::Release,
        Action::Complete,
        Action::Reopen,
    ][rng.below(5)];
    match rng.below(10) {
        0 => Some(TaskOp::Delete(id)),
        1 | 2 => {
            let fields = Fields { priority: Some(rng.below(256) as u8), ..Fields::default() };
            let labels = (0..rng.below(3)).map(|n| n.to_string()).collect();
            let spot = rng.chance(0.5).then_some(Spot::Start);
            copy.state.edit(id, fields, Some(labels), spot).ok()
        }
        // Also what is refused locally: a foreign program may write it.
        3 | 4 => Some(TaskOp::Step(id, action)),
        // Also of tasks that the author cannot have seen.
        5 if rng.chance(0.2) => Some(TaskOp::Delete(TaskId::new([7; 32]))),
        _ => copy.state.act(&copy.context(policy), id, action).ok(),
    }
}

#[test]
fn every_order_gives_the_same_list() {
    converges::<TaskList>(CASES, &open(), random_op);
}

#[test]
fn a_claim_that_was_forestalled_is_lost_and_told() {
    let policy = open();
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let (id, added) = add(&mut one, "paint");
    two.apply(&policy, &added);
    one.wait(10);
    two.wait(500);
    // A partition: both claim, the first one's clock says the earlier time.
    let early = act(&mut one, id, hour()).expect("free here");
    let late = act(&mut two, id, hour()).expect("free there");
    two.events.clear();
    two.apply(&policy, &early);
    one.apply(&policy, &late);
    assert_eq!((holder(&one, id), holder(&two, id)), (Some(agent(1)), Some(agent(1))));
    let lost = TaskChange::ClaimLost { holder: Some(agent(1)) };
    let told: Vec<_> = two.events.iter().map(|event| (event.agent, event.change)).collect();
    assert!(told.contains(&(agent(2), lost)), "{told:?}");
    assert!(told.contains(&(agent(1), TaskChange::Claimed)), "{told:?}");
    assert!(one.events.iter().any(|event| event.change == lost), "at the winner's, too");
    assert_eq!(two.state.get(&id).expect("there").lost(), [agent(2)]);
    assert_eq!(one.bytes(), two.bytes());
    let refused = act(&mut two, id, hour()).map(drop);
    assert_eq!(refused, Err(TaskError::Held(agent(1))));
}

#[test]
fn a_lease_ends_by_the_times_of_operations() {
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let policy = open();
    let (id, added) = add(&mut one, "dig");
    let claim = act(&mut one, id, Action::Claim(Duration::from_secs(5))).expect("free");
    [&added, &claim].iter().for_each(|written| two.apply(&policy, written));
    two.wait(4_000);
    assert_eq!(act(&mut two, id, hour()).map(drop), Err(TaskError::Held(agent(1))));
    assert_eq!(act(&mut two, id, Action::Release).map(drop), Err(TaskError::NotHolder));
    two.wait(2_000);
    let taken = act(&mut two, id, hour()).expect("the lease is over");
    assert_eq!(holder(&two, id), Some(agent(2)));
    // A renewal in time that only arrives now comes before: the claim did not hold.
    one.wait(3_000);
    let renewal = act(&mut one, id, Action::Renew(Duration::from_secs(60))).expect("its own");
    two.apply(&policy, &renewal);
    one.apply(&policy, &taken);
    assert_eq!((holder(&one, id), holder(&two, id)), (Some(agent(1)), Some(agent(1))));
    assert_eq!(one.bytes(), two.bytes());
}

#[test]
fn states_allow_only_their_steps() {
    let mut one = Copy::new(1);
    let (id, _) = add(&mut one, "cook");
    let mut tries = |action, expected: Result<(), TaskError>| {
        assert_eq!(act(&mut one, id, action).map(drop), expected, "{action:?}");
    };
    tries(Action::Complete, Err(TaskError::NotClaimed));
    tries(Action::Release, Err(TaskError::NotClaimed));
    tries(Action::Reopen, Err(TaskError::NotDone));
    tries(hour(), Ok(()));
    tries(Action::Renew(DEFAULT_LEASE), Ok(()));
    tries(Action::Complete, Ok(()));
    tries(hour(), Err(TaskError::Done));
    tries(Action::Complete, Err(TaskError::Done));
    tries(Action::Reopen, Ok(()));
    tries(hour(), Ok(()));
    tries(Action::Release, Ok(()));
    assert_eq!(act(&mut one, TaskId::new([9; 32]), hour()).map(drop), Err(TaskError::NotFound));
    assert_eq!(one.state.get(&id).expect("there").steps().len(), 6);
}

#[test]
fn fields_have_limits_and_labels_merge() {
    let policy = open();
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let (id, added) = add(&mut one, "wash");
    two.apply(&policy, &added);
    for bad in [titled(" "), titled(&"x".repeat(1025)), Fields::default()] {
        assert!(one.state.add(bad, Spot::End).is_err());
    }
    let label = |copy: &mut Copy<TaskList>, labels: &[&str]| {
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        let op = copy.state.edit(id, Fields::default(), Some(labels), None).expect("edited");
        copy.write(&open(), &op)
    };
    let first = label(&mut one, &["a", "b"]);
    let second = label(&mut two, &["c"]);
    one.apply(&policy, &second);
    two.apply(&policy, &first);
    let labels = |copy: &Copy<TaskList>| {
        copy.state.get(&id).expect("there").labels().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        (labels(&one), labels(&two)),
        (labels(&two), ["a", "b", "c"].map(str::to_owned).into())
    );
    let third = label(&mut one, &["b"]);
    two.apply(&policy, &third);
    assert_eq!(labels(&two), ["b"]);
    let many: Vec<_> = (0..17).map(|n| n.to_string()).collect();
    assert!(one.state.edit(id, Fields::default(), Some(many), None).is_err());
}

#[test]
fn tasks_keep_their_order() {
    let mut one = Copy::new(1);
    let ids: Vec<_> = (0..4).map(|n| add(&mut one, &n.to_string()).0).collect();
    let titles = |copy: &Copy<TaskList>| {
        copy.state.in_order().iter().map(|view| view.title()).collect::<String>()
    };
    assert_eq!(titles(&one), "0123");
    let mut moves = |id: usize, spot, expected: &str| {
        let op = one.state.edit(ids[id], Fields::default(), None, Some(spot)).expect("moved");
        one.write(&open(), &op);
        assert_eq!(titles(&one), expected);
    };
    moves(3, Spot::Start, "3012");
    moves(0, Spot::After(ids[1]), "3102");
    moves(2, Spot::Before(ids[0]), "3120");
    moves(3, Spot::End, "1203");
    // Of two that were put to one place at once neither is lost.
    let (mut two, policy) = (Copy::new(2), open());
    let (_, a) = add(&mut one, "a");
    let (_, b) = add(&mut two, "b");
    one.apply(&policy, &b);
    two.apply(&policy, &a);
    assert_eq!(one.state.len(), 6);
}

#[test]
fn a_deletion_wins_and_leaves_nothing() {
    let policy = open();
    let (mut one, mut two) = (Copy::new(1), Copy::new(2));
    let (id, added) = add(&mut one, "gone");
    two.apply(&policy, &added);
    let claim = act(&mut two, id, hour()).expect("free");
    let op = one.state.delete(id).expect("there");
    let deleted = one.write(&policy, &op);
    one.apply(&policy, &claim);
    two.apply(&policy, &deleted);
    assert!(one.state.is_empty() && two.state.is_empty());
    assert_eq!((one.bytes(), one.state.size()), (Copy::<TaskList>::new(3).bytes(), 0));
    assert_eq!(two.events.last().map(|event| event.change), Some(TaskChange::Deleted));
    assert_eq!(one.state.delete(id).map(drop), Err(TaskError::NotFound));
}

#[test]
fn the_first_steps_of_a_task_are_kept() {
    let mut one = Copy::new(1);
    let (id, _) = add(&mut one, "long");
    let renew = Action::Claim(DEFAULT_LEASE);
    for _ in 0..MAX_STEPS {
        act(&mut one, id, renew).expect("room");
    }
    assert_eq!(act(&mut one, id, renew).map(drop), Err(TaskError::TooManySteps));
    let before = one.bytes();
    one.write(&open(), &TaskOp::Step(id, Action::Complete));
    assert_eq!(one.state.get(&id).expect("there").steps().len(), MAX_STEPS);
    assert_eq!(one.bytes().len(), before.len());
}

#[test]
fn history_names_what_was_edited() {
    let mut one = Copy::new(1);
    let (id, _) = add(&mut one, "write");
    for n in 0..MAX_EDITS + 6 {
        let fields = Fields { priority: Some(n as u8), due: Some(None), ..Fields::default() };
        let op = one.state.edit(id, fields, None, None).expect("edited");
        one.write(&open(), &op);
        one.wait(1);
    }
    let view = one.state.get(&id).expect("there");
    let edits: Vec<_> = view.edits().collect();
    assert_eq!(edits.len(), MAX_EDITS);
    assert_eq!(edits[0].1.fields().collect::<Vec<_>>(), ["priority", "due_at"]);
    assert_eq!(view.priority(), (MAX_EDITS + 5) as u8);
}

#[test]
fn what_is_no_operation_is_refused() {
    let id = TaskId::new([1; 32]);
    let bad = [
        TaskOp::Add(titled("no place")),
        TaskOp::Add(Fields { place: Some(vec![1]), ..Fields::default() }),
        TaskOp::Edit(id, titled("")),
        TaskOp::Edit(id, Fields { place: Some(vec![0; 65]), ..Fields::default() }),
        TaskOp::Edit(id, Fields { add_labels: vec!["\n".to_owned()], ..Fields::default() }),
        TaskOp::Step(id, Action::Claim(Duration::from_millis(1))),
        TaskOp::Step(id, Action::Renew(MAX_LEASE + Duration::from_millis(1))),
    ];
    for op in bad {
        assert!(TaskList::decode_op(&TaskList::encode_op(&op)).is_err(), "{op:?}");
    }
    assert!(TaskList::decode_op(&[]).is_err());
    assert!(TaskList::decode_op(&vec![0; crate::MAX_OP + 1]).is_err());
    let claim = TaskList::encode_op(&TaskOp::Step(id, hour()));
    assert!(claim.len() <= 50, "a claim takes {} bytes", claim.len());
}
