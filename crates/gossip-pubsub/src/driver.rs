//! The tokio shell around the machine: one task that owns it.
//!
//! Signing runs on a blocking thread, one run at a time, which is what clocks the publisher's
//! batches. Verifying runs inline: about 60 µs for a run of up to 64 entries, after the duplicate and
//! rate checks, keeps each author's runs in order without a second queue.

use std::{
    collections::BTreeMap,
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Machine as _, Protocol, Tick, TopicId};
use x0x_identity::SecretKey;
use x0x_transport::{Inbound, InboundEvent, Transport, error::SendError};

use crate::{
    error::{SubscribeError, VerifyError},
    handle::{Feed, Shared, Subscription},
    run::Run,
    state::{Equivocation, Input, Output, PubSubMachine},
    subscriber::{Batch, Start, SubscriptionId},
};

/// Transport events taken in one turn.
const EVENTS: usize = 64;

/// How long a shutdown may sign and hand over what was accepted.
const FLUSH: Duration = Duration::from_secs(1);

/// What handles ask of the actor.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe {
        topic: TopicId,
        start: Start,
        reply: oneshot::Sender<Result<Subscription, SubscribeError>>,
    },
    Equivocations(oneshot::Sender<Vec<Equivocation>>),
}

/// The writing end of a subscription.
#[derive(Debug)]
pub(crate) struct Channel {
    batches: mpsc::Sender<Batch>,
    parked: Arc<AtomicBool>,
}

impl Channel {
    fn is_empty(&self) -> bool {
        self.batches.capacity() == self.batches.max_capacity()
    }
}

type Signing = JoinHandle<Result<Run, VerifyError>>;

/// The actor.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) machine: PubSubMachine,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbound: Inbound,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stop: CancellationToken,
    pub(crate) signing: Option<Signing>,
    pub(crate) channels: BTreeMap<SubscriptionId, Channel>,
    pub(crate) subscription_batches: usize,
    /// Bytes waiting in all subscriptions, and their limit.
    pub(crate) waiting: Arc<AtomicU64>,
    pub(crate) waiting_limit: u64,
}

/// What ended a wait.
enum Wake {
    Stop,
    Command(Option<Command>),
    Signed(Option<Box<Run>>),
    Work,
    Events(usize),
    Timer,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            let wake = self.wait(&mut events).await;
            let now = self.shared.clock.now();
            self.machine.handle(now, Input::Wall(self.shared.clock.wall()));
            // Timers are not left to their own turn, which a steady flow of events would keep away.
            self.machine.handle_timeout(now);
            match wake {
                // Without a transport or a handle there is nothing left to serve.
                Wake::Stop | Wake::Command(None) | Wake::Signed(None) | Wake::Events(0) => break,
                Wake::Command(Some(command)) => self.command(now, command),
                Wake::Signed(Some(run)) => self.signed(now, *run),
                Wake::Work => self.signals(now),
                Wake::Events(_) => self.events(now, &mut events),
                Wake::Timer => {}
            }
            // First, so that signing overlaps with sending.
            self.sign();
            self.outputs(now);
        }
        self.flush().await;
    }

    async fn wait(&mut self, events: &mut Vec<InboundEvent>) -> Wake {
        let timeout = self.machine.poll_timeout();
        let clock = &self.shared.clock;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stop,
            command = self.commands.recv() => Wake::Command(command),
            run = finish(&mut self.signing) => Wake::Signed(run),
            () = self.shared.work.notified() => Wake::Work,
            count = self.inbound.recv_many(events, EVENTS) => Wake::Events(count),
            () = sleep_until(timeout.map(|at| at.since(clock.now()))) => Wake::Timer,
        }
    }

    fn command(&mut self, now: Tick, command: Command) {
        match command {
            Command::Subscribe { topic, start, reply } => {
                let subscription = self.subscribe(now, topic, start);
                // A caller that is gone drops the subscription, which unsubscribes.
                drop(reply.send(subscription));
            }
            Command::Equivocations(reply) => {
                drop(reply.send(self.machine.equivocations().cloned().collect()));
            }
        }
    }

    fn subscribe(
        &mut self,
        now: Tick,
        topic: TopicId,
        start: Start,
    ) -> Result<Subscription, SubscribeError> {
        let id = self.machine.subscribe(now, topic, start)?;
        let (batches, receiver) = mpsc::channel(self.subscription_batches.max(1));
        let parked = Arc::new(AtomicBool::new(false));
        let feed = Feed { id, parked: Arc::clone(&parked), shared: Arc::clone(&self.shared) };
        self.channels.insert(id, Channel { batches, parked });
        Ok(Subscription::new(topic, receiver, Some(feed)))
    }

    fn signals(&mut self, now: Tick) {
        let signals = std::mem::take(&mut *self.shared.signals());
        for id in signals.ready {
            self.machine.handle(now, Input::SubscriberReady(id));
        }
        for id in signals.dropped {
            self.unsubscribe(now, id);
        }
    }

    fn unsubscribe(&mut self, now: Tick, id: SubscriptionId) {
        if self.channels.remove(&id).is_some() {
            self.machine.handle(now, Input::Unsubscribe(id));
        }
    }

    fn events(&mut self, now: Tick, events: &mut Vec<InboundEvent>) {
        for event in events.drain(..) {
            let input = match event {
                InboundEvent::Up(session) => Input::LinkUp(session.peer),
                InboundEvent::Down(peer) => Input::LinkDown(peer),
                InboundEvent::Writable(peer) => Input::Writable(peer),
                InboundEvent::Message { peer, message } => Input::Frame { peer, message },
                _ => continue,
            };
            self.machine.handle(now, input);
            self.outputs(now);
        }
        let wall = self.shared.clock.wall();
        self.shared.publisher().observe(wall, self.machine.latest_time());
    }

    fn signed(&mut self, now: Tick, run: Run) {
        self.shared.publisher().signed(&run);
        // The topic's chain may be forgotten now, which a waiting publisher may need.
        self.shared.room.notify_waiters();
        self.machine.handle(now, Input::Signed(run));
    }

    /// Gives the signer the next run, if it is free.
    fn sign(&mut self) {
        if self.signing.is_some() {
            return;
        }
        let Some(run) = self.shared.publisher().next_run() else { return };
        self.shared.room.notify_waiters();
        let key = Arc::clone(&self.key);
        self.signing = Some(tokio::task::spawn_blocking(move || run.sign(&key)));
    }

    fn outputs(&mut self, now: Tick) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { peer, message } => {
                    match self.transport.try_send(peer, Protocol::Pubsub, message) {
                        Ok(()) => {}
                        // Would be refused for ever: no reason to wait.
                        Err(SendError::TooLarge { .. }) => {
                            self.shared.metrics.sends_too_large.inc()
                        }
                        Err(error) => {
                            tracing::trace!(peer = %peer.short(), %error, "not sent");
                            self.machine.handle(now, Input::SendRefused(peer));
                        }
                    }
                }
                Output::Verify(pending) => {
                    let checked = pending.verify();
                    self.machine.handle(now, Input::Verified(checked));
                }
                Output::Deliver { subscription, batch } => self.deliver(now, subscription, batch),
                Output::Congestion { topic, congested } => {
                    self.shared.publisher().set_congested(topic, congested);
                    if !congested {
                        self.shared.room.notify_waiters();
                    }
                }
                Output::Disconnect(peer) => {
                    tracing::warn!(peer = %peer.short(), "disconnecting a peer that misbehaves");
                    self.transport.disconnect(peer);
                }
            }
        }
    }

    fn deliver(&mut self, now: Tick, id: SubscriptionId, mut batch: Batch) {
        let Some(channel) = self.channels.get(&id) else { return };
        let (messages, missed) = batch.counts();
        let over = self.waiting.load(Ordering::Relaxed) + batch.bytes() > self.waiting_limit;
        batch.charge(&self.waiting);
        let sent = if over && !channel.is_empty() {
            Err(TrySendError::Full(batch))
        } else {
            channel.batches.try_send(batch)
        };
        match sent {
            Ok(()) => {
                self.shared.metrics.messages_delivered.add(messages);
                self.shared.metrics.messages_lagged.add(missed);
            }
            Err(TrySendError::Full(_)) => {
                channel.parked.store(true, Ordering::SeqCst);
                fence(Ordering::SeqCst);
                // The reader may have emptied the channel just before it could see that.
                let resumed = channel.is_empty() && channel.parked.swap(false, Ordering::SeqCst);
                self.machine.handle(now, Input::SubscriberFull(id));
                if resumed {
                    self.machine.handle(now, Input::SubscriberReady(id));
                }
            }
            Err(TrySendError::Closed(_)) => self.unsubscribe(now, id),
        }
    }

    /// Signs what was accepted before the stop, and hands it to the transport of every link that
    /// takes it in time.
    async fn flush(mut self) {
        self.shared.publisher().close();
        self.shared.room.notify_waiters();
        let accepted = async {
            loop {
                self.sign();
                if self.signing.is_none() {
                    break;
                }
                let Some(run) = finish(&mut self.signing).await else { break };
                let now = self.shared.clock.now();
                self.signed(now, *run);
                self.outputs(now);
            }
            let mut events = Vec::with_capacity(EVENTS);
            while self.machine.has_unsent() {
                let timeout = self.machine.poll_timeout();
                let clock = Arc::clone(&self.shared.clock);
                let (received, now) = tokio::select! {
                    biased;
                    count = self.inbound.recv_many(&mut events, EVENTS) => (Some(count), clock.now()),
                    () = sleep_until(timeout.map(|at| at.since(clock.now()))) => (None, clock.now()),
                };
                match received {
                    Some(0) => break,
                    Some(_) => self.events(now, &mut events),
                    None => self.machine.handle_timeout(now),
                }
                self.outputs(now);
            }
        };
        if tokio::time::timeout(FLUSH, accepted).await.is_err() {
            tracing::debug!("stopped with entries that were not signed or not taken by a peer");
        }
    }
}

/// The signed run; pending while nothing is being signed. `None` when the signer failed, which
/// ends the service: the author's log cannot continue past a gap.
async fn finish(signing: &mut Option<Signing>) -> Option<Box<Run>> {
    let Some(task) = signing.as_mut() else { return future::pending().await };
    let result = task.await;
    *signing = None;
    match result {
        Ok(Ok(run)) => Some(Box::new(run)),
        Ok(Err(error)) => {
            tracing::error!(%error, "signing failed");
            None
        }
        Err(error) => {
            tracing::error!(%error, "the signer failed");
            None
        }
    }
}

async fn sleep_until(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => future::pending().await,
    }
}
