//! The tokio shell around the machine: one task that owns it.
//!
//! Signing runs on a blocking thread, one run at a time, which is what clocks the publisher's
//! batches; a message at rest is signed here. Verifying runs inline: about 60 µs for a run of up to 64 entries, after the duplicate and
//! rate checks, keeps each author's runs in order without a second queue.

use std::{
    collections::{BTreeMap, VecDeque},
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
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Machine as _, MachineId, PeerAddr, Protocol, Tick, TopicId};
use x0x_gossip_membership::NeighborEvent;
use x0x_identity::SecretKey;
use x0x_transport::{Inbound, InboundEvent, Transport, error::SendError};

use crate::{
    error::{PublishError, SubscribeError},
    handle::{Feed, Shared, Subscription},
    retention::{ChainEnd, Retention},
    run::Run,
    state::{Equivocation, Input, Output, PubSubMachine, Snapshot},
    store::follow::{Followed, Follower},
    subscriber::{Batch, Start, SubscriptionId},
};

pub(crate) mod gather;
mod neighbors;
mod sign;
pub(crate) mod waiters;

pub(crate) use neighbors::Links;

use gather::Gather;
use sign::{Signing, finish};
use waiters::{Appended, Waiters};

/// Transport events taken in one turn.
const EVENTS: usize = 64;

/// How long a shutdown may sign and hand over what was accepted.
const FLUSH: Duration = Duration::from_secs(1);

/// How long a shutdown waits for the store.
const STORE: Duration = Duration::from_secs(5);

/// How often the round trips of links are read.
const MEASURE: Duration = Duration::from_secs(10);

/// What handles ask of the actor.
#[derive(Debug)]
pub(crate) enum Command {
    Subscribe {
        topic: TopicId,
        start: Start,
        reply: oneshot::Sender<Result<Subscription, SubscribeError>>,
    },
    Introduce {
        topic: TopicId,
        peers: Vec<PeerAddr>,
    },
    Equivocations(oneshot::Sender<Vec<Equivocation>>),
    Snapshot(oneshot::Sender<Snapshot>),
    Ready {
        topic: TopicId,
        links: usize,
        reply: oneshot::Sender<usize>,
    },
    FirstHop {
        topic: TopicId,
        entry: (u64, u64),
        reply: oneshot::Sender<()>,
    },
    Release {
        topic: TopicId,
        upto: Vec<ChainEnd>,
        reply: oneshot::Sender<()>,
    },
}

/// The writing end of a subscription.
#[derive(Debug)]
pub(crate) struct Channel {
    batches: mpsc::Sender<Batch>,
    parked: Arc<AtomicBool>,
}

impl Channel {
    /// Whether a batch may go in: the last place is for what is left at the end.
    fn has_room(&self) -> bool {
        self.batches.capacity() > 1
    }

    fn is_empty(&self) -> bool {
        self.batches.capacity() == self.batches.max_capacity()
    }
}

/// The actor.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) machine: PubSubMachine,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) key: Arc<SecretKey>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbound: Inbound,
    pub(crate) links: Links,
    pub(crate) store: Option<Follower>,
    /// Runs of this author of which the store has not taken the change with this number yet.
    pub(crate) unstored: VecDeque<(u64, Appended)>,
    /// The number of the last change.
    pub(crate) changes: u64,
    /// The machine knows that the store is behind.
    pub(crate) behind: bool,
    pub(crate) waiters: Waiters,
    pub(crate) dials: JoinSet<(MachineId, bool)>,
    pub(crate) measured: Tick,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stop: CancellationToken,
    pub(crate) signing: Option<Signing>,
    pub(crate) gather: Gather,
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
    Followed(Box<Followed>),
    Neighbor(NeighborEvent),
    Dialled(MachineId, bool),
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
                Wake::Followed(followed) => {
                    self.followed(now, *followed);
                    self.look_at_store(now);
                }
                Wake::Neighbor(event) => {
                    if let Some(input) = self.links.neighbor(event) {
                        self.machine.handle(now, input);
                    }
                }
                Wake::Dialled(peer, up) => self.machine.handle(now, Input::Dialled { peer, up }),
                Wake::Work => self.signals(now),
                Wake::Events(_) => self.events(now, &mut events),
                Wake::Timer => {}
            }
            // First, so that signing overlaps with sending.
            self.sign_next(now);
            self.outputs(now);
            self.waiters.look(&self.machine);
            self.measure(now);
        }
        self.flush().await;
    }

    async fn wait(&mut self, events: &mut Vec<InboundEvent>) -> Wake {
        let clock = &self.shared.clock;
        let waits = self.signing.is_none() && self.shared.publisher().pending() > 0;
        let gathered = self.gather.until(clock.now()).filter(|_| waits);
        let timeout = self.machine.poll_timeout().into_iter().chain(gathered).min();
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Wake::Stop,
            command = self.commands.recv() => Wake::Command(command),
            run = finish(&mut self.signing) => Wake::Signed(run),
            followed = follow(&mut self.store) => Wake::Followed(followed),
            event = self.links.changed() => Wake::Neighbor(event),
            Some(Ok((peer, up))) = self.dials.join_next() => Wake::Dialled(peer, up),
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
            Command::Introduce { topic, peers } => {
                self.machine.handle(now, Input::Introduced { topic, peers });
            }
            Command::Equivocations(reply) => {
                drop(reply.send(self.machine.equivocations().cloned().collect()));
            }
            Command::Snapshot(reply) => drop(reply.send(self.machine.snapshot())),
            Command::Ready { topic, links, reply } => self.waiters.ready(topic, links, reply),
            Command::FirstHop { topic, entry, reply } => {
                let retention = Retention::of_epoch(entry.0);
                let confirmed = self.machine.confirmed_upto(&topic, retention);
                self.waiters.hop(topic, entry, reply);
                self.waiters.first_hop(topic, confirmed);
            }
            Command::Release { topic, upto, reply } => {
                self.machine.handle(now, Input::Release { topic, upto });
                // Who does not wait any more does not want to know.
                let _ = reply.send(());
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
        let (batches, receiver) = mpsc::channel(self.subscription_batches.max(1) + 1);
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
                InboundEvent::Up(session) => {
                    let from = session.remote_address.ip();
                    self.machine.handle(now, Input::Path { peer: session.peer, from });
                    if !self.links.session_up(session.peer) {
                        continue;
                    }
                    let (peer, rtt) = (session.peer, session.rtt);
                    self.machine.handle(now, Input::LinkUp(peer));
                    self.machine.handle(now, Input::Address(session.peer_addr()));
                    Input::Rtt { peer, rtt }
                }
                InboundEvent::Down(peer) => {
                    self.links.session_down(&peer);
                    Input::LinkDown(peer)
                }
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

    /// Dials a peer in a task of its own; the machine asks for few at a time.
    fn dial(&mut self, address: PeerAddr) {
        let Some(peer) = address.id else { return };
        let transport = Arc::clone(&self.transport);
        self.dials.spawn(async move { (peer, transport.connect(address).await.is_ok()) });
    }

    /// Reads the round trips of the links now and then.
    fn measure(&mut self, now: Tick) {
        if now.since(self.measured) < MEASURE {
            return;
        }
        self.measured = now;
        for peer in self.links.sessions() {
            if let Some(session) = self.transport.session(peer) {
                let from = session.remote_address.ip();
                self.machine.handle(now, Input::Path { peer, from });
                self.machine.handle(now, Input::Rtt { peer, rtt: session.rtt });
                self.machine.handle(now, Input::Address(session.peer_addr()));
            }
        }
    }

    /// The store did something.
    fn followed(&mut self, now: Tick, followed: Followed) {
        match followed {
            Followed::Loaded { topic, result } => {
                let stored = result.unwrap_or_else(|error| {
                    self.shared.metrics.store_failures.inc();
                    tracing::warn!(%error, %topic, "a topic's stored log is damaged; it begins empty");
                    None
                });
                self.machine.handle(now, Input::Restored { topic, stored });
            }
            Followed::Holed(topic) => {
                self.shared.metrics.topics_mended.inc();
                self.machine.handle(now, Input::Holed(topic));
            }
            Followed::Own(held) => {
                self.shared.publisher().follow(held.epoch);
                self.machine.handle(now, Input::Carry(held.topics));
            }
            Followed::LoadFailed { topic, error, failures } => {
                self.shared.metrics.store_retries.inc();
                // Whoever waits for the topic should find out why, once.
                if failures == 0 {
                    tracing::warn!(%error, %topic, "a topic's stored log cannot be read; trying again");
                }
            }
            Followed::Committed { through, ends, result } => {
                if let Err(error) = &result {
                    self.shared.metrics.store_failures.inc();
                    tracing::warn!(%error, "changes of the logs were not stored");
                }
                let result = result.map_err(|_| PublishError::NotStored);
                while self.unstored.front().is_some_and(|(at, _)| *at <= through) {
                    let Some((_, run)) = self.unstored.pop_front() else { break };
                    self.published(now, run, result);
                }
                // What was not stored is delivered too: nothing better comes of it.
                for (topic, upto) in ends {
                    self.machine.handle(now, Input::Stored { topic, upto });
                }
            }
        }
    }

    /// Tells the machine when so much waits for the store that peers should bring no more, and when no
    /// longer.
    fn look_at_store(&mut self, now: Tick) {
        let behind = self.store.as_ref().is_some_and(Follower::is_behind);
        if behind != self.behind {
            self.behind = behind;
            self.machine.handle(now, Input::StoreBehind(behind));
        }
    }

    fn published(&mut self, now: Tick, run: Appended, result: Result<(), PublishError>) {
        let entries = usize::try_from(run.seqs.1 + 1 - run.seqs.0).unwrap_or(usize::MAX);
        let waiting = self.shared.publisher().waiting(run.topic, Retention::of_epoch(run.epoch));
        self.gather.answered(now, run.topic, entries, waiting);
        let result = result.map(|()| self.machine.topic_links(&run.topic));
        self.shared.publishing().published(run, result);
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
                Output::Full { topic, full } => {
                    self.shared.publisher().set_full(topic, full);
                }
                Output::Dial(address) => self.dial(address),
                Output::Hold { peer, held } => self.transport.hold(peer, Protocol::Pubsub, held),
                Output::FirstHop { topic, epoch, seq } => {
                    self.waiters.first_hop(topic, (epoch, seq));
                }
                Output::Persist(change) => {
                    if let Some(store) = &mut self.store {
                        self.changes = store.push(change);
                    }
                    self.look_at_store(now);
                }
                Output::Load(topic) => match &mut self.store {
                    Some(store) => store.load(topic),
                    None => self.machine.handle(now, Input::Restored { topic, stored: None }),
                },
                Output::Appended { topic, epoch, seqs, start, stored } => {
                    let run = Appended { topic, epoch, seqs, start };
                    if stored && self.store.is_some() {
                        self.unstored.push_back((self.changes, run));
                    } else {
                        self.published(now, run, Ok(()));
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
        let closed = channel.batches.is_closed();
        let sent = if !closed && (!channel.has_room() || (over && !channel.is_empty())) {
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
            let now = self.shared.clock.now();
            self.machine.handle(now, Input::Wall(self.shared.clock.wall()));
            self.machine.handle(now, Input::Closing);
            self.outputs(now);
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
        self.store_rest().await;
        self.deliver_rest();
    }

    /// Hands every subscription at once what it has not read: the log ends with this service.
    fn deliver_rest(&mut self) {
        for (id, channel) in &self.channels {
            if let Some(batch) = self.machine.rest(*id) {
                let (messages, missed) = batch.counts();
                if channel.batches.try_send(batch).is_ok() {
                    self.shared.metrics.messages_delivered.add(messages);
                    self.shared.metrics.messages_lagged.add(missed);
                }
            }
        }
    }

    /// Waits until what is in the logs is stored.
    async fn store_rest(&mut self) {
        let stored = async {
            while self.store.as_ref().is_some_and(|store| !store.is_idle()) {
                let followed = follow(&mut self.store).await;
                let now = self.shared.clock.now();
                self.followed(now, *followed);
                self.outputs(now);
            }
        };
        if tokio::time::timeout(STORE, stored).await.is_err() {
            tracing::warn!("stopped with changes that were not stored");
        }
    }
}

/// What the store did next; pending while there is no store.
async fn follow(store: &mut Option<Follower>) -> Box<Followed> {
    match store {
        Some(store) => Box::new(store.next().await),
        None => future::pending().await,
    }
}

async fn sleep_until(after: Option<Duration>) {
    match after {
        Some(after) => tokio::time::sleep(after).await,
        None => future::pending().await,
    }
}
