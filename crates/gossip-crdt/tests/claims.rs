//! Two agents that claim one task while nothing passes between them, by the machines alone: once they are joined, both
//! see one holder, and whoever lost is told.

use std::{convert::Infallible, sync::Arc};

use x0x_core::{AgentId, Machine as _, Tick, WallTime};
use x0x_gossip_crdt::{
    Descriptor, Entry, Input, Object as _, ObjectMachine, Output,
    tasks::{
        Action, DEFAULT_LEASE, Fields, Phase, Spot, TaskChange, TaskEvent, TaskId, TaskList, TaskOp,
    },
};

const START: u64 = 1_800_000_000_000;

/// An agent with its replica, its part of the log, and what it was told.
struct Agent {
    id: AgentId,
    machine: ObjectMachine<TaskList>,
    log: Vec<Entry>,
    told: Vec<TaskEvent>,
}

impl Agent {
    fn new(number: u8) -> Self {
        let id = AgentId::new([number; 32]);
        let object = Descriptor::open(TaskList::KIND, "shared").id();
        let machine = ObjectMachine::new(object, None, id, Arc::default());
        Self { id, machine, log: Vec::new(), told: Vec::new() }
    }

    fn write(&mut self, now: WallTime, op: &TaskOp) {
        let prepared = self.machine.prepare::<Infallible>(now, op).expect("it is allowed");
        for payload in prepared.payloads {
            let seq = self.log.len() as u64 + 1;
            let entry = Entry { author: self.id, epoch: 1, seq, time: now, payload };
            let accepted = Input::Accepted { write: Some(seq), epoch: 1, seq };
            self.machine.handle(Tick::ZERO, accepted);
            self.log.push(entry.clone());
            self.deliver(&[entry]);
        }
    }

    fn deliver(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.machine.handle(Tick::ZERO, Input::Entry(entry.clone()));
        }
        while let Some(output) = self.machine.poll_output() {
            if let Output::Changed(change) = output {
                self.told.extend(change.events);
            }
        }
    }

    fn claim(&mut self, now: WallTime, task: TaskId) {
        let (state, cx) = (self.machine.state(), self.machine.write_context(now));
        let claim = state.act(&cx, task, Action::Claim(DEFAULT_LEASE));
        self.write(now, &claim.expect("nobody holds it as far as it knows"));
    }

    fn holder(&self, task: TaskId) -> Option<AgentId> {
        match self.machine.state().get(&task)?.phase() {
            Phase::Held { agent, .. } => Some(agent),
            _ => None,
        }
    }

    /// Whose claims it was told are lost, and against whom.
    fn lost(&self) -> Vec<(AgentId, Option<AgentId>)> {
        let lost = |event: &TaskEvent| match event.change {
            TaskChange::ClaimLost { holder } => Some((event.agent, holder)),
            _ => None,
        };
        self.told.iter().filter_map(lost).collect()
    }
}

#[test]
fn of_two_claims_apart_one_holds_everywhere_and_the_loser_is_told() {
    let at = |millis| WallTime::from_millis(START + millis);
    // Whoever claimed first by the operations' times, and of equal times the lesser stamp.
    for (hers, his) in [(1000, 2000), (2000, 1000), (1000, 1000)] {
        let (mut she, mut he) = (Agent::new(1), Agent::new(2));
        let fields = Fields { title: Some("contested".to_owned()), ..Fields::default() };
        let add = she.machine.state().add(fields, Spot::End).expect("a task");
        she.write(at(0), &add);
        he.deliver(&she.log);
        let task = she.machine.state().in_order()[0].id();
        let before = she.log.len();
        she.claim(at(hers), task);
        he.claim(at(his), task);
        assert_eq!((she.holder(task), he.holder(task)), (Some(she.id), Some(he.id)), "apart");
        assert!(she.lost().is_empty() && he.lost().is_empty(), "nobody knows better yet");
        he.deliver(&she.log[before..]);
        she.deliver(&he.log);
        assert_eq!(she.machine.hash(), he.machine.hash());
        let holder = she.holder(task).expect("somebody holds it");
        assert_eq!(he.holder(task), Some(holder));
        if hers != his {
            assert_eq!(holder, if hers < his { she.id } else { he.id });
        }
        let loser = if holder == she.id { he.id } else { she.id };
        for agent in [&she, &he] {
            assert_eq!(agent.lost(), [(loser, Some(holder))], "{hers} {his}");
            let view = agent.machine.state().get(&task).expect("it is there");
            assert_eq!(view.lost(), [loser]);
        }
        let cx = he.machine.write_context(at(3000));
        let again = Action::Claim(DEFAULT_LEASE);
        let both = [&she, &he].map(|agent| agent.machine.state().act(&cx, task, again).is_ok());
        assert_eq!(both, [holder == he.id; 2], "he may claim it only if he holds it");
    }
}
