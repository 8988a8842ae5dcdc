//! The handle over a real file.

use std::{fs, sync::Arc, time::Duration};

use x0x_core::{AgentId, MachineId, ManualClock, WallTime};
use x0x_identity::{AgentBinding, SignedRevocation, testing::key};
use x0x_trust::{
    Action, Assessment, Change, Level, Loaded, MAX_UNREAD_EVENTS, Observation, Outcome, Policy,
    Reason, Trust, TrustEvent,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const AGENT: AgentId = AgentId::new([1; 32]);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::new(NOW))
}

fn put(level: Level) -> Change {
    Change::Put { agent: AGENT, level, label: None }
}

fn binding(machine: u8, generation: u64) -> AgentBinding {
    let machine = MachineId::new([machine; 32]);
    AgentBinding { agent: AGENT, machine, not_before: NOW, not_after: NOW, generation }
}

async fn next(events: &mut x0x_trust::TrustEvents) -> TrustEvent {
    let next = tokio::time::timeout(Duration::from_secs(5), events.next());
    next.await.expect("in time").expect("the handle lives")
}

#[tokio::test]
async fn what_was_answered_is_on_disk() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join("contacts.json");
    let trust = Trust::open(&path, clock()).await.expect("opens");
    assert_eq!(trust.loaded(), &Loaded::Fresh);
    assert_eq!(trust.change(put(Level::Blocked)).await.expect("kept"), Outcome::Created);
    let revoked = SignedRevocation::of_agent(&key(1), NOW, "lost").expect("short");
    trust.learn(revoked.revocation()).await.expect("kept");
    assert_eq!(trust.change(put(Level::Blocked)).await.expect("kept"), Outcome::Unchanged);
    assert_eq!(trust.metrics().saved.value(), 2, "what changes nothing is not written");

    // As after a kill: nothing is closed.
    let again = Trust::open(&path, clock()).await.expect("opens");
    assert_eq!(again.loaded(), &Loaded::Whole);
    assert_eq!(again.assess(&AGENT, None), Assessment::RejectBlocked);
    assert!(again.is_revoked(&revoked.revocation().subject));
    assert_eq!(again.contacts(), trust.contacts());
    assert_eq!(again.revocations(), trust.revocations());
}

#[tokio::test]
async fn what_is_observed_is_flushed() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join("contacts.json");
    let trust = Trust::open(&path, clock()).await.expect("opens");
    trust.change(put(Level::Known)).await.expect("kept");
    assert_eq!(trust.observe(&binding(1, 0)), Observation::Current);
    assert_eq!(trust.observe(&binding(2, 9)), Observation::Moved);
    assert_eq!(trust.observe(&binding(1, 0)), Observation::Superseded);
    trust.flush().await.expect("written");
    trust.flush().await.expect("nothing to write");
    assert_eq!(trust.metrics().saved.value(), 2);

    let again = Trust::open(&path, clock()).await.expect("opens");
    let decision = again.decide(&AGENT, Some(&MachineId::new([1; 32])), Action::DirectReceive);
    assert_eq!(decision.reason, Reason::Superseded);
    assert_eq!(again.sighting(&AGENT), trust.sighting(&AGENT));
    assert_eq!(trust.metrics().moved.value(), 1);
    assert_eq!(trust.metrics().superseded.value(), 1);
}

#[tokio::test]
async fn a_disk_that_fails_changes_nothing() {
    let temp = tempfile::tempdir().expect("temp dir");
    let folder = temp.path().join("data");
    fs::create_dir(&folder).expect("made");
    let trust = Trust::open(folder.join("contacts.json"), clock()).await.expect("opens");
    fs::remove_dir(&folder).expect("empty");
    let mut events = trust.events();
    trust.change(put(Level::Blocked)).await.expect_err("nowhere to write");
    assert_eq!((trust.level(&AGENT), trust.contacts().len()), (Level::Unknown, 0));
    assert_eq!(trust.metrics().save_failed.value(), 1);

    fs::create_dir(&folder).expect("made");
    trust.change(put(Level::Blocked)).await.expect("kept");
    assert_eq!(trust.level(&AGENT), Level::Blocked);
    assert_eq!(next(&mut events).await, TrustEvent::Contact { agent: AGENT });
}

#[tokio::test]
async fn events_reach_readers_and_say_what_was_missed() {
    let trust = Trust::in_memory(clock());
    let mut events = trust.events();
    trust.change(put(Level::Blocked)).await.expect("kept");
    assert_eq!(next(&mut events).await, TrustEvent::Contact { agent: AGENT });
    let (from, to) = (Level::Unknown, Level::Blocked);
    assert_eq!(next(&mut events).await, TrustEvent::Level { agent: AGENT, from, to });
    for n in 0..=MAX_UNREAD_EVENTS {
        let level = if n % 2 == 0 { Level::Known } else { Level::Blocked };
        trust.change(put(level)).await.expect("kept");
    }
    assert!(matches!(next(&mut events).await, TrustEvent::Lagged { missed } if missed > 0));
    drop(trust);
    let mut left = 0;
    while events.next().await.is_some() {
        left += 1;
    }
    assert_eq!(left, MAX_UNREAD_EVENTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_from_many_tasks_are_all_kept() {
    let temp = tempfile::tempdir().expect("temp dir");
    let path = temp.path().join("contacts.json");
    let trust = Trust::open(&path, clock()).await.expect("opens");
    let tasks: Vec<_> = (0..16_u8)
        .map(|n| {
            let trust = trust.clone();
            tokio::spawn(async move {
                let agent = AgentId::new([n; 32]);
                let put = Change::Put { agent, level: Level::Known, label: None };
                trust.change(put).await.expect("kept");
                let binding = AgentBinding { agent, ..binding(n, 1) };
                assert_eq!(trust.observe(&binding), Observation::Current);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    trust.flush().await.expect("written");
    let again = Trust::open(&path, clock()).await.expect("opens");
    assert_eq!(again.contacts().len(), 16);
    assert!(again.contacts().iter().all(|contact| contact.sighting.generation == 1));
}
