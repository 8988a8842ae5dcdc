//! Ten thousand tiny messages from ids that nobody knows: what they may leave is bounded, whoever they say that
//! they are, and a contact is heard as before.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use x0x_core::{AgentId, Machine, MachineId, Tick};
use x0x_direct::{
    Admittance, DirectConfig, DirectMetrics, Quotas, Standing, Standings,
    state::{DirectMachine, Input, Output, Room},
    wire::{Ack, FrameIn, MessageIn, Terms},
};

const OWN: AgentId = AgentId::new([0; 32]);
const FRIEND: AgentId = AgentId::new([1; 32]);
/// Machines of strangers, agents of each, and messages of each agent.
const MACHINES: u16 = 50;
const AGENTS: u16 = 20;
const MESSAGES: u64 = 10;

/// Knows one contact.
#[derive(Debug)]
struct OneContact;

impl Standings for OneContact {
    fn standing(&self, agent: &AgentId, _: &MachineId) -> Standing {
        if *agent == FRIEND { Standing::Contact } else { Standing::Stranger }
    }

    fn may_send(&self, _: &AgentId, _: &MachineId) -> bool {
        true
    }
}

fn numbered(kind: u8, n: u16) -> [u8; 32] {
    let mut id = [kind; 32];
    id[..2].copy_from_slice(&n.to_be_bytes());
    id
}

struct World {
    machine: DirectMachine,
    admittance: Admittance,
    stored: u64,
    heard: BTreeSet<AgentId>,
}

impl World {
    /// Sends tiny messages, and tells which numbers were refused.
    fn send(&mut self, peer: MachineId, messages: impl Iterator<Item = (u64, AgentId)>) -> usize {
        for (seq, from) in messages {
            let id = (u128::from(seq) << 64 | u128::from(peer.as_bytes()[1])).to_be_bytes();
            let (payload, terms) = (Bytes::from_static(b"x"), Terms::default());
            let message = MessageIn { epoch: 1, seq, id, from, to: OWN, payload, terms };
            let frame = FrameIn::Message(message).encode();
            self.machine.handle(Tick::ZERO, Input::Received { peer, frame });
        }
        let room = Room { messages: 1 << 20, bytes: 1 << 30 };
        self.machine.handle(Tick::ZERO, Input::Room(room));
        let mut refused = 0;
        loop {
            let mut settled = Vec::new();
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Deliver { message, .. } => {
                        self.heard.insert(message.from());
                        self.stored += 1;
                        self.admittance.settle(Some(self.stored));
                        settled.push(Ok(()));
                    }
                    Output::Transmit { frame, .. } => {
                        let Ok(FrameIn::Ack(Ack { refusals, .. })) = FrameIn::decode(frame) else {
                            panic!("nothing else is sent");
                        };
                        refused += refusals.len();
                    }
                    other => panic!("{other:?}"),
                }
            }
            if settled.is_empty() {
                return refused;
            }
            self.machine.handle(Tick::ZERO, Input::Settled(settled));
        }
    }

    fn up(&mut self, peer: MachineId, agents: Vec<AgentId>) {
        self.machine.handle(Tick::ZERO, Input::Up { peer, generation: 1, agents });
    }
}

#[test]
fn ten_thousand_messages_of_strangers_leave_room_for_a_contact() {
    let quotas = Quotas::default();
    let admittance = Admittance::new(Arc::new(OneContact), quotas);
    let machine = DirectMachine::with_admission(
        MachineId::new([200; 32]),
        DirectConfig::new(vec![OWN]),
        Arc::<DirectMetrics>::default(),
        Arc::new(admittance.clone()),
    );
    let mut world = World { machine, admittance, stored: 0, heard: BTreeSet::new() };
    let mut refused = 0;
    for n in 0..MACHINES {
        let peer = MachineId::new(numbered(9, n));
        let agents: Vec<_> =
            (0..AGENTS).map(|a| AgentId::new(numbered(8, n * AGENTS + a))).collect();
        world.up(peer, agents.clone());
        let from = |seq: u64| agents[((seq - 1) / MESSAGES) as usize];
        let count = u64::from(AGENTS) * MESSAGES;
        refused += world.send(peer, (1..=count).map(|seq| (seq, from(seq))));
    }
    let sent = usize::from(MACHINES) * usize::from(AGENTS) * MESSAGES as usize;
    assert_eq!(sent, 10_000);
    let unread = world.admittance.unread().messages;
    assert!((quotas.strangers.messages * 3 / 4..=quotas.strangers.messages).contains(&unread));
    assert_eq!(refused, sent - unread, "each of the others is told");
    let heard = world.heard.len();
    assert_eq!(heard, usize::from(MACHINES * AGENTS), "of everybody there is something");
    let friend = MachineId::new(numbered(7, 1));
    world.up(friend, vec![FRIEND]);
    assert_eq!(world.send(friend, (1..=1000).map(|seq| (seq, FRIEND))), 0, "a contact is heard");
}
