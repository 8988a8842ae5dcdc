//! What comes to the driver: from each queue a part in each turn, so that none that is full holds up another.

use tokio::sync::mpsc;
use x0x_transport::{Inbound, InboundEvent, fill};

use super::Command;
use crate::{id::TransferId, state::Input};

/// The most that is taken from a queue in one turn.
pub(super) const BATCH: usize = 64;

/// A result of work that went on beside the driver.
pub(super) struct Report {
    /// The opening of a file that it belongs to, if it does.
    pub(super) opening: Option<(TransferId, u64)>,
    pub(super) input: Input,
}

/// Everything that comes.
pub(super) struct Queues {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) results: mpsc::Receiver<Report>,
    pub(super) control: Inbound,
    pub(super) content: Inbound,
}

/// What one turn took.
#[derive(Default)]
pub(super) struct Taken {
    pub(super) commands: Vec<Command>,
    pub(super) results: Vec<Report>,
    pub(super) control: Vec<InboundEvent>,
    pub(super) content: Vec<InboundEvent>,
}

impl Queues {
    /// Waits until something comes; `None` once nobody is left whom it could come from. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Taken> {
        let mut taken = Taken::default();
        let Taken { commands, results, control, content } = &mut taken;
        let count = tokio::select! {
            biased;
            count = self.commands.recv_many(commands, BATCH) => count,
            count = self.results.recv_many(results, BATCH) => count,
            count = self.control.recv_many(control, BATCH) => count,
            count = self.content.recv_many(content, BATCH) => count,
        };
        if count == 0 {
            return None;
        }
        // Whichever had something, the others get their turn too.
        fill(&mut self.commands, commands, BATCH);
        fill(&mut self.results, results, BATCH);
        fill(&mut self.control, control, BATCH);
        fill(&mut self.content, content, BATCH);
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use x0x_core::MachineId;

    use super::*;

    #[tokio::test]
    async fn a_queue_that_is_always_full_holds_up_no_other() {
        let (commands, receiver) = mpsc::channel(1);
        let (results, finished) = mpsc::channel(BATCH);
        let (control, frames) = mpsc::channel(4 * BATCH);
        let (content, groups) = mpsc::channel(BATCH);
        let mut queues =
            Queues { commands: receiver, results: finished, control: frames, content: groups };
        let peer = MachineId::new([1; 32]);
        let event = || InboundEvent::Message { peer, message: Bytes::new() };
        for _ in 0..3 * BATCH {
            control.try_send(event()).expect("there is room");
        }
        content.try_send(event()).expect("there is room");
        let result = Report { opening: None, input: Input::Writable(peer) };
        results.try_send(result).unwrap_or_else(|_| unreachable!("there is room"));
        let taken = queues.next().await.expect("something came");
        assert_eq!((taken.control.len(), taken.content.len(), taken.results.len()), (BATCH, 1, 1));
        drop(commands);
        assert!(queues.next().await.is_none(), "nobody asks for anything any more");
    }
}
