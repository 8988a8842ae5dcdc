//! What comes to the driver: from each queue a part in each turn, so that none that is full holds up another.

use tokio::sync::mpsc;
use x0x_transport::{Inbound, InboundEvent, fill};

use crate::handle::{Arrival, Command};

/// The most that is taken from a queue in one turn; acknowledgements of it travel together.
pub(super) const BATCH: usize = 256;

/// Everything that comes.
pub(super) struct Queues {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) inbound: Inbound,
    /// Messages that came on another way.
    pub(super) arrivals: mpsc::Receiver<Arrival>,
}

/// What one turn took.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) commands: Vec<Command>,
    pub(super) events: Vec<InboundEvent>,
    pub(super) arrivals: Vec<Arrival>,
}

impl Queues {
    /// Waits until something comes and adds it to `taken`; false once nobody is left whom it could come
    /// from. Cancel safe.
    pub(super) async fn next(&mut self, taken: &mut Taken) -> bool {
        let count = tokio::select! {
            biased;
            count = self.commands.recv_many(&mut taken.commands, BATCH) => count,
            count = self.inbound.recv_many(&mut taken.events, BATCH) => count,
            count = self.arrivals.recv_many(&mut taken.arrivals, BATCH) => count,
        };
        count > 0
    }

    /// Adds what is there already: whichever had something, the others get their turn too.
    pub(super) fn fill(&mut self, taken: &mut Taken) {
        fill(&mut self.commands, &mut taken.commands, BATCH);
        fill(&mut self.inbound, &mut taken.events, BATCH);
        fill(&mut self.arrivals, &mut taken.arrivals, BATCH);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::sync::oneshot;
    use x0x_core::{AgentId, MachineId};

    use super::*;
    use crate::wire::{MessageIn, Terms};

    #[tokio::test]
    async fn a_flood_of_frames_does_not_hold_up_what_comes_on_another_way() {
        let (commands, receiver) = mpsc::channel(1);
        let (events, inbound) = mpsc::channel(4 * BATCH);
        let (arrivals, arrived) = mpsc::channel(1);
        let mut queues = Queues { commands: receiver, inbound, arrivals: arrived };
        let (machine, agent) = (MachineId::new([1; 32]), AgentId::new([2; 32]));
        for _ in 0..3 * BATCH {
            let event = InboundEvent::Message { peer: machine, message: Bytes::new() };
            events.try_send(event).expect("there is room");
        }
        let (id, payload, terms) = ([0; 16], Bytes::new(), Terms::default());
        let message = MessageIn { epoch: 0, seq: 1, id, from: agent, to: agent, payload, terms };
        let message = message.verify(&[agent], &[agent]).expect("it is proven");
        let arrival = Arrival { machine, message, reply: oneshot::channel().0 };
        arrivals.try_send(arrival).unwrap_or_else(|_| unreachable!("there is room"));
        let mut taken = Taken::default();
        assert!(queues.next(&mut taken).await);
        queues.fill(&mut taken);
        assert_eq!((taken.events.len(), taken.arrivals.len()), (BATCH, 1));
        drop(commands);
        assert!(!queues.next(&mut taken).await, "nobody sends anything any more");
    }
}
