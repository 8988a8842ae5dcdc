//! The cost of one decision among many contacts and strangers.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use x0x_core::{AgentId, MachineId, ManualClock, SeededRng, UserId, WallTime};
use x0x_identity::AgentBinding;
use x0x_trust::{Action, Change, Level, Policy, Trust, TrustState};

fn id(rng: &mut SeededRng) -> [u8; 32] {
    std::array::from_fn(|_| rng.next_u64() as u8)
}

fn populated(contacts: usize) -> (TrustState, Vec<(AgentId, MachineId)>) {
    let mut rng = SeededRng::from_number(1);
    let (mut state, mut events, now) = (TrustState::default(), Vec::new(), WallTime::default());
    let mut asked = Vec::new();
    for n in 0..contacts * 2 {
        let (agent, machine) = (AgentId::new(id(&mut rng)), MachineId::new(id(&mut rng)));
        if n % 2 == 0 {
            let put = Change::Put { agent, level: Level::Known, label: None };
            state.apply(now, &put, &mut events).expect("room");
        }
        let binding =
            AgentBinding { agent, machine, not_before: now, not_after: now, generation: 1 };
        state.observe(&binding, now, &mut events);
        state.observe_user(agent, UserId::new(id(&mut rng)), now);
        asked.push((agent, machine));
    }
    (state, asked)
}

fn evaluate(c: &mut Criterion) {
    for contacts in [10, 4000] {
        let (state, asked) = populated(contacts);
        let mut next = (0..asked.len()).cycle();
        c.bench_function(&format!("state/{contacts}"), |b| {
            b.iter(|| {
                let (agent, machine) = &asked[next.next().expect("endless")];
                black_box(state.decide(agent, Some(machine), Action::DirectReceive))
            });
        });
    }
    let trust = Trust::in_memory(Arc::new(ManualClock::new(WallTime::default())));
    let agent = AgentId::new([7; 32]);
    c.bench_function("handle", |b| {
        b.iter(|| black_box(trust.decide(black_box(&agent), None, Action::GossipDeliver)));
    });
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
