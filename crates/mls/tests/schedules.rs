//! Members that commit at once, hear of it in any order, crash and come back: one group in the end.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::{SeededRng, WallTime};
use x0x_identity::testing;
use x0x_mls::{
    GroupId, Groups, MlsGroups, Suite, ordering::Standing, testing::MemoryStore, verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const MEMBERS: usize = 4;

struct World {
    rng: SeededRng,
    group: GroupId,
    members: Vec<Groups<Arc<MemoryStore>>>,
    stores: Vec<Arc<MemoryStore>>,
    /// All that was published, and what each has not heard yet.
    log: Vec<Bytes>,
    unheard: Vec<Vec<usize>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let stores: Vec<_> = (0..MEMBERS).map(|_| Arc::new(MemoryStore::new())).collect();
        let mut members: Vec<_> = stores.iter().enumerate().map(|(n, s)| open(n, s)).collect();
        let packages = members[1..].iter_mut().map(|member| {
            let package = member.key_packages(Suite::Hybrid, 1, NOW).expect("made").swap_remove(0);
            verify_key_package(&package, NOW).expect("verifies")
        });
        let packages = packages.collect();
        let group = members[0].create(Suite::Hybrid).expect("creates");
        let welcome = members[0].commit(group, packages, &[]).expect("adds").welcome;
        let welcome = welcome.expect("a welcome");
        members[1..].iter_mut().for_each(|m| assert_eq!(m.join(&welcome, None).ok(), Some(group)));
        let unheard = vec![Vec::new(); MEMBERS];
        Self { rng: SeededRng::from_number(seed), group, members, stores, log: Vec::new(), unheard }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n)
    }

    fn publish(&mut self, by: usize, frame: Bytes) {
        self.log.push(frame);
        for n in (0..MEMBERS).filter(|n| *n != by) {
            self.unheard[n].push(self.log.len() - 1);
        }
    }

    /// One member hears one frame, whichever; sometimes one it has heard.
    fn hear(&mut self, n: usize) {
        let at = self.below(self.unheard[n].len());
        let frame = self.unheard[n].swap_remove(at);
        // A message of a state that fell is refused or waits; what matters is the group.
        let _ = self.members[n].process(&self.log[frame]);
    }

    fn step(&mut self) {
        let n = self.below(MEMBERS);
        match self.below(8) {
            0 => {
                if let Ok(sent) = self.members[n].refresh(self.group) {
                    self.publish(n, sent.frame);
                }
            }
            1 => {
                if let Ok(sent) = self.members[n].encrypt(self.group, b"", b"text") {
                    self.publish(n, sent.frame);
                }
            }
            2 => self.members[n] = open(n, &self.stores[n]),
            3 => self.stores[n].fail_after(0),
            4 => self.stores[n].heal(),
            _ if !self.unheard[n].is_empty() => self.hear(n),
            _ => {}
        }
    }

    /// Everybody hears everything; who fell behind comes back by itself.
    fn settle(&mut self) {
        self.stores.iter().for_each(|store| store.heal());
        for n in 0..MEMBERS {
            self.unheard[n] = (0..self.log.len()).collect();
            while !self.unheard[n].is_empty() {
                self.hear(n);
            }
            // What a failed write or a missing parent left undone.
            for frame in self.log.clone() {
                let _ = self.members[n].process(&frame);
            }
        }
    }

    fn secrets(&mut self) -> Vec<Vec<u8>> {
        let group = self.group;
        let secret = |m: &mut Groups<_>| m.export(group, "x", b"", 32).expect("a member").to_vec();
        self.members.iter_mut().map(secret).collect()
    }
}

fn open(n: usize, store: &Arc<MemoryStore>) -> Groups<Arc<MemoryStore>> {
    Groups::open(Arc::clone(store), Arc::new(testing::key(n as u64 + 1)), NOW).expect("opens")
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..60 {
        world.step();
    }
    world.settle();
    for n in 0..MEMBERS {
        let group = world.group;
        if world.members[n].standing(group).expect("a member") == Standing::Behind {
            let ahead = (0..MEMBERS).find(|m| {
                world.members[*m].standing(group).expect("a member") == Standing::Current
            });
            let info = world.members[ahead.expect("one is current")].invitation(group);
            let info = info.expect("a member").info;
            let (_, back) = world.members[n].join_external(&info, None).expect("comes back");
            world.publish(n, back.frame);
            world.settle();
        }
    }
    let secrets = world.secrets();
    assert!(secrets.iter().all(|secret| *secret == secrets[0]), "seed {seed}: parted");
}

#[test]
fn any_schedule_ends_in_one_epoch_and_transcript() {
    for seed in 0..6 {
        println!("seed {seed}");
        run(seed);
    }
}
