//! A member that is killed at any write, and whose old file is put back: it comes again, uses no
//! generation twice, and stops nobody else.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::{SeededRng, WallTime};
use x0x_identity::testing;
use x0x_mls::{
    Event, GroupError, GroupId, Groups, MlsGroups, Pending, Suite,
    ordering::Standing,
    testing::{MemoryStore, NonceProbe},
    verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
/// Of each of four runs: 10,000 messages and 200 crashes in all.
const MESSAGES: u64 = 2_500;
const CRASHES: u64 = 50;
const MEMBERS: usize = 3;

type Member = Groups<Arc<MemoryStore>>;

fn open(n: usize, store: &Arc<MemoryStore>, probe: &Arc<NonceProbe>) -> Member {
    let key = Arc::new(testing::key(n as u64 + 1));
    Groups::open_probed(Arc::clone(store), key, NOW, Some(probe.clone())).expect("opens")
}

/// Members that share a log; each hears all of it, in order.
struct World {
    rng: SeededRng,
    probe: Arc<NonceProbe>,
    group: GroupId,
    members: Vec<Member>,
    stores: Vec<Arc<MemoryStore>>,
    /// Old files, and how much of the log each had heard.
    backup: Vec<(MemoryStore, usize)>,
    log: Vec<Bytes>,
    heard: Vec<usize>,
    written: u64,
    read: u64,
    crashes: u64,
    restored: u64,
    rejoined: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let probe = Arc::new(NonceProbe::default());
        let stores: Vec<_> = (0..MEMBERS).map(|_| Arc::new(MemoryStore::new())).collect();
        let mut members: Vec<_> =
            stores.iter().enumerate().map(|(n, store)| open(n, store, &probe)).collect();
        let packages = members[1..].iter_mut().map(|member| {
            let package = member.key_packages(Suite::Hybrid, 1, NOW).expect("made").swap_remove(0);
            verify_key_package(&package, NOW).expect("verifies")
        });
        let packages = packages.collect();
        let group = members[0].create(Suite::Hybrid).expect("creates");
        let added = members[0].commit(group, packages, &[]).expect("adds");
        let welcome = added.welcome.expect("a welcome");
        members[1..].iter_mut().for_each(|m| assert_eq!(m.join(&welcome, None).ok(), Some(group)));
        members[0].acknowledge(&[added.commit.id]).expect("acknowledges");
        let backup = stores.iter().map(|store| (store.snapshot(), 0)).collect();
        let (log, heard) = (Vec::new(), vec![0; MEMBERS]);
        let rng = SeededRng::from_number(seed);
        let (written, read, crashes, restored, rejoined) = (0, 0, 0, 0, 0);
        Self {
            rng,
            probe,
            group,
            members,
            stores,
            backup,
            log,
            heard,
            written,
            read,
            crashes,
            restored,
            rejoined,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    /// Publishes what a member's journal holds; what was read is safe at once.
    fn publish(&mut self, n: usize) -> Result<(), GroupError> {
        let mut done = Vec::new();
        for (id, pending) in self.members[n].pending() {
            if let Pending::Outgoing { frame, .. } = pending {
                self.log.push(frame);
            }
            done.push(id);
        }
        if done.is_empty() { Ok(()) } else { self.members[n].acknowledge(&done) }
    }

    fn hear(&mut self, n: usize) -> Result<(), GroupError> {
        while let Some(frame) = self.log.get(self.heard[n]).cloned() {
            match self.members[n].process(&frame) {
                Ok(events) => {
                    let texts = events.iter().filter(|e| matches!(e, Event::Message { .. }));
                    self.read += texts.count() as u64;
                }
                Err(error @ GroupError::Store(_)) => return Err(error),
                // A repeated message, or one that a backup made and nobody can read.
                Err(_) => {}
            }
            self.heard[n] += 1;
        }
        Ok(())
    }

    /// A member writes some messages, with new keys first where it must, or now and then.
    fn speak(&mut self, n: usize, count: usize, refresh: bool) -> Result<(), GroupError> {
        let group = self.group;
        if refresh || self.members[n].must_refresh(group)? {
            self.members[n].refresh(group)?;
        }
        for _ in 0..count {
            self.members[n].encrypt(group, b"", &self.written.to_be_bytes())?;
            self.written += 1;
        }
        self.publish(n)
    }

    /// Ends a member's process at some write of what it is doing, and starts it again from what was
    /// written, or from an old copy.
    fn crash(&mut self, n: usize) {
        let writes = self.below(6) as u64;
        self.stores[n].fail_after(writes);
        let failed = match self.below(2) {
            0 => self.speak(n, 8, true),
            _ => self.hear(n).and_then(|()| self.speak(n, 8, false)),
        };
        assert!(failed.is_err() || writes > 0, "a write that fails is told");
        self.crashes += 1;
        let store = if self.crashes.is_multiple_of(10) {
            self.restored += 1;
            self.heard[n] = self.backup[n].1;
            self.backup[n].0.snapshot()
        } else {
            self.stores[n].snapshot()
        };
        if self.crashes % 10 == 5 {
            self.backup[n] = (self.stores[n].snapshot(), self.heard[n]);
        }
        self.stores[n] = Arc::new(store);
        self.members[n] = open(n, &self.stores[n], &self.probe);
        let refused = self.members[n].encrypt(self.group, b"", b"x");
        assert!(matches!(refused, Err(GroupError::RefreshFirst)), "{refused:?}");
        self.publish(n).expect("the store works again");
    }

    /// All hear all; who is behind joins again by another's info.
    fn settle(&mut self) {
        for _ in 0..10 {
            for n in 0..MEMBERS {
                self.hear(n).expect("the store works");
                self.publish(n).expect("the store works");
            }
            let behind =
                |m: &Member| matches!(m.standing(self.group), Ok(Standing::Behind) | Err(_));
            let Some(n) = (0..MEMBERS).find(|n| behind(&self.members[*n])) else { break };
            let Some(by) = (0..MEMBERS).find(|n| !behind(&self.members[*n])) else {
                panic!("nobody is current")
            };
            let info = self.members[by].invitation(self.group).expect("a member");
            self.members[n].join_external(&info.info, info.tree.as_deref()).expect("joins");
            self.rejoined += 1;
            self.publish(n).expect("the store works");
        }
    }

    fn agree(&mut self) {
        let states: Vec<_> = (0..MEMBERS)
            .map(|n| {
                let group = self.group;
                let (epoch, mut who) = self.members[n].members(group).expect("a member");
                who.sort_unstable();
                let secret = self.members[n].export(group, "same", b"", 32).expect("exports");
                (epoch, who, secret.to_vec())
            })
            .collect();
        assert!(states.windows(2).all(|pair| pair[0] == pair[1]), "{states:?}");
        assert_eq!(states[0].1.len(), MEMBERS);
    }
}

/// Crashes are spread over the messages, each at a random write of a random member.
fn crashes_reuse_nothing_and_stop_nobody(seed: u64) {
    let mut world = World::new(seed);
    let each = MESSAGES / CRASHES;
    while world.crashes < CRASHES || world.written < MESSAGES {
        let n = world.below(MEMBERS);
        if world.written >= world.crashes * each && world.crashes < CRASHES {
            world.crash(n);
            // Nobody waits for who crashed: another writes, and a third reads it.
            let (other, third) = ((n + 1) % MEMBERS, (n + 2) % MEMBERS);
            world.settle();
            let before = world.read;
            world.speak(other, 1, false).expect("writes");
            world.hear(third).expect("hears");
            assert!(world.read > before, "after {} crashes", world.crashes);
            world.settle();
            world.agree();
        } else {
            world.speak(n, 20, false).expect("writes");
            world.settle();
        }
    }
    let (reused, generations) = (world.probe.reused(), world.probe.keys_reused());
    assert_eq!((reused, generations), (0, 0), "of {} encryptions", world.probe.calls());
    assert!(world.probe.calls() >= MESSAGES);
    assert!(world.restored >= CRASHES / 10);
    println!(
        "{} messages written, {} read, {} crashes, {} old files, {} joined again, {} encryptions",
        world.written,
        world.read,
        world.crashes,
        world.restored,
        world.rejoined,
        world.probe.calls()
    );
}

#[test]
fn crashes_reuse_nothing_and_stop_nobody_1() {
    crashes_reuse_nothing_and_stop_nobody(1);
}

#[test]
fn crashes_reuse_nothing_and_stop_nobody_2() {
    crashes_reuse_nothing_and_stop_nobody(2);
}

#[test]
fn crashes_reuse_nothing_and_stop_nobody_3() {
    crashes_reuse_nothing_and_stop_nobody(3);
}

#[test]
fn crashes_reuse_nothing_and_stop_nobody_4() {
    crashes_reuse_nothing_and_stop_nobody(4);
}
