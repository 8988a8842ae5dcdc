//! From the class readers to the protocols' consumers: bounded by events and by bytes, never
//! dropping.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use x0x_core::{MachineId, Protocol};

use crate::{
    error::InboundTaken,
    transport::{Inbound, InboundEvent},
};

/// Most messages handed over at once.
pub(crate) const MAX_BATCH: usize = 64;
/// How often a reader that waits for bytes to be consumed looks again. A plain channel does not tell
/// when its consumer takes an item; this only runs while tens of megabytes wait for it.
const BYTES_POLL: Duration = Duration::from_millis(2);

const PROTOCOLS: usize = Protocol::ALL.len();

/// The consumer dropped its receiver.
#[derive(Debug)]
pub(crate) struct Gone;

/// Who consumes which protocol.
#[derive(Debug)]
pub(crate) struct Consumers {
    slots: Mutex<[Slot; PROTOCOLS]>,
    changed: watch::Sender<()>,
    max_events: usize,
    max_bytes: usize,
}

#[derive(Debug, Clone)]
enum Slot {
    Free,
    Taken(Arc<Consumer>),
    /// After the end: receivers end as soon as they are empty.
    Closed,
}

impl Consumers {
    pub(crate) fn new(max_events: usize, max_bytes: usize) -> Self {
        let slots = Mutex::new([const { Slot::Free }; PROTOCOLS]);
        Self { slots, changed: watch::Sender::new(()), max_events: max_events.max(1), max_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, [Slot; PROTOCOLS]> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out the receiver of a protocol. Readers then announce their sessions on it.
    pub(crate) fn take(&self, protocol: Protocol) -> Result<Inbound, InboundTaken> {
        if protocol == Protocol::Control {
            return Err(InboundTaken(protocol));
        }
        let (sender, receiver) = mpsc::channel(self.max_events);
        let ledger = Mutex::new(Ledger::default());
        let consumer = Arc::new(Consumer { sender, ledger, max_bytes: self.max_bytes });
        let mut slots = self.lock();
        let slot = &mut slots[protocol as usize];
        match slot {
            Slot::Taken(_) => return Err(InboundTaken(protocol)),
            Slot::Free => *slot = Slot::Taken(consumer),
            Slot::Closed => {}
        }
        drop(slots);
        self.changed.send_replace(());
        Ok(receiver)
    }

    /// The consumer of a protocol, if its receiver was taken.
    pub(crate) fn get(&self, protocol: Protocol) -> Option<Arc<Consumer>> {
        match &self.lock()[protocol as usize] {
            Slot::Taken(consumer) => Some(consumer.clone()),
            Slot::Free | Slot::Closed => None,
        }
    }

    /// Fires when a receiver is taken.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn close(&self) {
        self.lock().fill(Slot::Closed);
    }
}

/// The sending half of a protocol's [`Inbound`].
#[derive(Debug)]
pub(crate) struct Consumer {
    sender: mpsc::Sender<InboundEvent>,
    ledger: Mutex<Ledger>,
    max_bytes: usize,
}

/// What waits in the channel. Items leave it in order, so the sizes of those that left are the
/// oldest ones here.
#[derive(Debug, Default)]
struct Ledger {
    sent: VecDeque<usize>,
    /// Of these and of messages about to be sent.
    bytes: usize,
}

impl Consumer {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room and sends an event without payload.
    pub(crate) async fn event(&self, event: InboundEvent) -> Result<(), Gone> {
        let permit = self.sender.reserve().await.map_err(|_| Gone)?;
        let mut ledger = self.lock();
        ledger.sent.push_back(0);
        permit.send(event);
        Ok(())
    }

    /// Sends an event without payload if there is room.
    pub(crate) fn try_event(&self, event: InboundEvent) {
        if let Ok(permit) = self.sender.try_reserve() {
            let mut ledger = self.lock();
            ledger.sent.push_back(0);
            permit.send(event);
        }
    }

    /// Waits for room and sends all the messages, in order.
    pub(crate) async fn messages(
        &self,
        peer: MachineId,
        messages: &mut Vec<Bytes>,
    ) -> Result<(), Gone> {
        while !messages.is_empty() {
            let count = self.admit(messages).await?;
            let permits = self.sender.reserve_many(count).await.map_err(|_| Gone)?;
            let mut ledger = self.lock();
            for (message, permit) in messages.drain(..count).zip(permits) {
                ledger.sent.push_back(message.len());
                permit.send(InboundEvent::Message { peer, message });
            }
        }
        Ok(())
    }

    /// Waits until the first of the messages fits the byte budget; gives how many do.
    async fn admit(&self, messages: &[Bytes]) -> Result<usize, Gone> {
        loop {
            let slots = self.sender.max_capacity();
            let waiting = slots - self.sender.capacity();
            let batch = &messages[..messages.len().min(MAX_BATCH).min(slots)];
            let count = self.lock().admit(waiting, batch, self.max_bytes);
            if count > 0 {
                return Ok(count);
            }
            if self.sender.is_closed() {
                return Err(Gone);
            }
            tokio::time::sleep(BYTES_POLL).await;
        }
    }
}

impl Ledger {
    fn admit(&mut self, waiting: usize, messages: &[Bytes], max: usize) -> usize {
        while self.sent.len() > waiting {
            self.bytes -= self.sent.pop_front().unwrap_or(0).min(self.bytes);
        }
        let mut count = 0;
        for message in messages {
            // One larger than the whole budget passes alone.
            if self.bytes > 0 && self.bytes + message.len() > max {
                break;
            }
            self.bytes += message.len();
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_wait_for_the_consumer() {
        let consumers = Consumers::new(100, 1000);
        let mut inbound = consumers.take(Protocol::Direct).expect("free");
        assert!(consumers.take(Protocol::Direct).is_err());
        assert!(consumers.take(Protocol::Control).is_err());
        let consumer = consumers.get(Protocol::Direct).expect("taken");
        let peer = MachineId::new([1; 32]);
        let sender = tokio::spawn(async move {
            let mut messages: Vec<Bytes> = (0..50).map(|_| vec![0; 300].into()).collect();
            messages.push(vec![0; 5000].into());
            consumer.messages(peer, &mut messages).await.is_ok()
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(inbound.len(), 3);
        for received in 0..51 {
            assert!(inbound.recv().await.is_some(), "{received}");
            assert!(inbound.len() <= 3);
        }
        assert!(sender.await.expect("no panic"));
        consumers.close();
        assert!(inbound.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_receiver_ends_the_wait() {
        let consumers = Consumers::new(1, 10);
        let inbound = consumers.take(Protocol::Pubsub).expect("free");
        let consumer = consumers.get(Protocol::Pubsub).expect("taken");
        let waiting = tokio::spawn(async move {
            let mut messages = vec![Bytes::from_static(&[0; 10]); 5];
            consumer.messages(MachineId::new([1; 32]), &mut messages).await.is_err()
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(inbound);
        assert!(waiting.await.expect("no panic"));
    }
}
