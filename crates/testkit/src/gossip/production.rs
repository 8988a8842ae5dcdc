//! The production pubsub machine, composed as its driver does it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{Machine as _, PeerAddr, Tick, TopicId};
use x0x_gossip_pubsub::{
    Batch, Cursor, Delivery, Input, LoadLimits, LogChange, LogStore, MemoryLogStore, NetworkId,
    Output, PendingRun, PubSubMachine, Publisher, Retention, Run, Start,
};
use x0x_identity::SecretKey;

use super::{
    announce::Reader,
    ids::{self, Node},
    net::{Caller, Class, Event},
    objects::Replica,
    protocol::{Context, Order, Protocol},
};

/// What a signature costs here (ML-DSA-65 with aws-lc-rs), in microseconds of one core.
const SIGN_MICROS: u64 = 187;

/// What checking one costs.
pub(super) const VERIFY_MICROS: u64 = 62;

/// First byte of a publish frame.
const PUBLISH_TAG: u8 = 0x12;

/// The class of an encoded frame.
pub(super) fn class_of(frame: &[u8]) -> Class {
    if frame.first() == Some(&PUBLISH_TAG) { Class::Payload } else { Class::Control }
}

/// Signs what a node publishes.
pub(super) struct Author {
    pub(super) key: Arc<SecretKey>,
    pub(super) publisher: Publisher,
    pub(super) epoch: u64,
}

/// What survives a crash: the logs, and how far the reader has come.
pub(super) struct Disk {
    store: MemoryLogStore,
    cursor: Option<Cursor>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self { store: MemoryLogStore::new(), cursor: None }
    }

    /// Where the reader goes on.
    pub(super) fn start(&self) -> Start {
        self.cursor.map_or(Start::Retained, Start::After)
    }

    /// Takes a change, and says what is stored with it.
    fn commit(&self, change: LogChange) -> Option<Input> {
        let stored = match &change {
            LogChange::Append { incarnation, position, run, .. } => {
                let upto = Cursor::new(*incarnation, position + run.body().entries().len() as u64);
                Some(Input::Stored { topic: run.body().topic(), upto })
            }
            _ => None,
        };
        // In memory, so that it is done at once.
        let _ = at_once(self.store.commit(vec![change]));
        stored
    }
}

/// The result of a future that need not wait.
fn at_once<T>(mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> Option<T> {
    match future.as_mut().poll(&mut TaskContext::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// A node's pubsub service.
pub(super) struct Production {
    pub(super) machine: PubSubMachine,
    pub(super) network: NetworkId,
    pub(super) topic: TopicId,
    pub(super) limits: LoadLimits,
    pub(super) disk: Option<Disk>,
    pub(super) author: Option<Author>,
    /// What it keeps above the topic: then it publishes operations.
    pub(super) replica: Option<Replica>,
    /// The same of a group: then it publishes texts.
    pub(super) reader: Option<Reader>,
    pub(super) start: Start,
    pub(super) subscribes: bool,
    /// Peers of sessions that are no neighbours, but of which it has heard or which it dialled.
    pub(super) strangers: Vec<Node>,
    /// What the signer is at.
    pub(super) signing: VecDeque<Run>,
    /// Who sent the frame that is being handled.
    pub(super) from: Option<Node>,
    /// Payload is lost on its way out, which the machine does not know: for adversaries.
    pub(super) mute: bool,
}

impl Production {
    fn handle(&mut self, context: &mut Context<'_>, input: Input) {
        let now = context.now();
        self.machine.handle(now, Input::Wall(context.wall));
        // As in the driver: a flow of events does not keep timers away.
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
        }
        self.machine.handle(now, input);
        self.outputs(context);
    }

    /// What the driver reads of a session now and then.
    fn measure(&mut self, context: &mut Context<'_>, peer: Node) {
        let id = context.net.id(peer);
        let address = PeerAddr::known(id, [context.net.address(peer)]);
        self.handle(context, Input::Address(address));
        if let Some(rtt) = context.net.rtt(context.me, peer) {
            self.handle(context, Input::Rtt { peer: id, rtt });
        }
    }

    /// A peer that is no neighbour speaks, or answered a dial.
    fn meet(&mut self, context: &mut Context<'_>, peer: Node) {
        if !self.strangers.contains(&peer) {
            self.strangers.push(peer);
            self.measure(context, peer);
        }
    }

    fn forget(&mut self, peer: Node) {
        self.strangers.retain(|known| *known != peer);
    }

    fn outputs(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { peer, message } => {
                    let (to, class, size) =
                        (ids::node_of(&peer), class_of(&message), message.len());
                    if self.mute && class == Class::Payload {
                        continue;
                    }
                    if context.send(to, class, size, message).is_err() {
                        self.machine.handle(now, Input::SendRefused(peer));
                    }
                }
                Output::Verify(pending) => self.verify(context, *pending),
                Output::Deliver { batch, .. } => self.deliver(context, batch),
                Output::Congestion { topic, congested } => {
                    if let Some(author) = &mut self.author {
                        author.publisher.set_congested(topic, congested);
                    }
                }
                Output::Persist(change) => {
                    if let Some(stored) = self.disk.as_ref().and_then(|disk| disk.commit(change)) {
                        self.machine.handle(now, stored);
                    }
                }
                Output::Hold { peer, held } => {
                    context.net.hold(context.me, ids::node_of(&peer), held);
                }
                Output::Load(topic) => self.load(now, topic),
                Output::Dial(to) => context.net.dial(context.me, to, Caller::Gossip),
                Output::Disconnect(peer) => context.net.close(context.me, ids::node_of(&peer)),
                _ => {}
            }
        }
    }

    fn load(&mut self, now: Tick, topic: TopicId) {
        let loaded =
            self.disk.as_ref().and_then(|disk| at_once(disk.store.load(topic, self.limits)));
        let stored = loaded.and_then(Result::ok).flatten();
        let stored = stored.map(|stored| Box::new(stored.check(self.network, topic)));
        self.machine.handle(now, Input::Restored { topic, stored });
    }

    /// A run of an honest author was checked when it was signed; the time is charged all the same.
    fn verify(&mut self, context: &mut Context<'_>, pending: PendingRun) {
        context.net.charge(context.me, VERIFY_MICROS);
        context.ledger.verifies += u64::from(!self.mute);
        let checked = match context.ledger.known(pending.encoded()).cloned() {
            Some(run) => {
                if let Some(from) = self.from {
                    context.ledger.passed(pending.encoded(), from, context.me);
                }
                pending.known(run)
            }
            None => pending.verify(),
        };
        self.machine.handle(context.now(), Input::Verified(checked));
    }

    fn deliver(&mut self, context: &mut Context<'_>, batch: Batch) {
        let (now, me) = (context.now(), context.me);
        if self.mute {
            return;
        }
        for delivery in batch {
            match delivery {
                Delivery::Message(message) => {
                    let place = (message.epoch, message.seq);
                    context.ledger.deliver(now, me, &message.author, place);
                    if let Some(disk) = &mut self.disk {
                        disk.cursor = Some(message.cursor);
                    }
                    if let Some(reader) = &mut self.reader {
                        let checked = reader.deliver(&message.payload);
                        context.net.charge(me, checked * VERIFY_MICROS);
                    }
                    if let Some(replica) = &mut self.replica {
                        let (applied, reread) = replica.deliver(now, message);
                        context.ledger.applied(now, me, &applied);
                        if reread {
                            let text = "a replica is to read its log again, which is not simulated";
                            context.ledger.violate(format!("node {me}: {text}"));
                        }
                    }
                }
                Delivery::Lagged { missed } => context.ledger.lag(me, missed),
                _ => {}
            }
        }
    }

    /// Writes an operation of the replica into the log.
    fn write(&mut self, context: &mut Context<'_>, order: Order) -> Option<u32> {
        let (author, replica) = (self.author.as_mut()?, self.replica.as_mut()?);
        let (now, agent) = (context.now(), author.key.public_key().agent_id());
        let number = context.ledger.messages.len();
        let mut message = None;
        for payload in replica.prepare(context.wall, number, order.payload) {
            let len = payload.len();
            let class = Retention::Durable;
            let placed = author.publisher.publish_as(context.wall, self.topic, class, payload);
            replica.accepted(now, placed.as_ref().ok().copied());
            let (epoch, seq) = placed.ok()?;
            context.ledger.operations.write(now, &agent, (epoch, seq), len);
            let what = (len, order.measured, order.expected);
            let place = Some((agent, epoch, seq));
            message = Some(context.ledger.publish(now, context.me, place, what));
        }
        message
    }

    /// Gives the signer the next run, if it is free.
    fn sign(&mut self, context: &mut Context<'_>) {
        let Some(author) = self.author.as_mut().filter(|_| self.signing.is_empty()) else { return };
        let Some(unsigned) = author.publisher.next_run() else { return };
        match unsigned.sign(&author.key) {
            Ok(run) => {
                self.signing.push_back(run);
                let (me, run) = (context.me, context.net.host(context.me).run);
                let at = context.now() + Duration::from_micros(SIGN_MICROS);
                context.net.queue.schedule(me, at, Event::Signed { run });
            }
            Err(error) => context.ledger.violate(format!("a run was not signed: {error}")),
        }
    }
}

impl Protocol for Production {
    fn start(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        self.machine.handle(now, Input::Wall(context.wall));
        if self.subscribes
            && let Err(error) = self.machine.subscribe(now, self.topic, self.start)
        {
            context.ledger.violate(format!("not subscribed: {error}"));
        }
        self.outputs(context);
    }

    fn link(&mut self, context: &mut Context<'_>, peer: Node, up: bool) {
        let id = context.net.id(peer);
        if !up {
            return self.handle(context, Input::LinkLeft(id));
        }
        self.forget(peer);
        self.handle(context, Input::LinkUp(id));
        self.measure(context, peer);
    }

    fn session(&mut self, context: &mut Context<'_>, peer: Node, up: bool) {
        let id = context.net.id(peer);
        if up {
            let from = context.net.address(peer).ip();
            return self.handle(context, Input::Path { peer: id, from });
        }
        self.forget(peer);
        self.handle(context, Input::LinkDown(id));
    }

    fn dialled(&mut self, context: &mut Context<'_>, to: &PeerAddr, up: bool) {
        let Some(peer) = to.id else { return };
        self.handle(context, Input::Dialled { peer, up });
        if up {
            self.meet(context, ids::node_of(&peer));
        }
    }

    fn frame(&mut self, context: &mut Context<'_>, peer: Node, class: Class, frame: Bytes) {
        if class == Class::Payload {
            context.ledger.copied(context.net.now(), &frame);
        }
        let id = context.net.id(peer);
        self.from = Some(peer);
        self.handle(context, Input::Frame { peer: id, message: frame });
        self.from = None;
        if !context.net.is_neighbour(context.me, peer) {
            self.meet(context, peer);
        }
    }

    fn writable(&mut self, context: &mut Context<'_>, peer: Node) {
        self.handle(context, Input::Writable(context.net.id(peer)));
    }

    fn publish(&mut self, context: &mut Context<'_>, order: Order) -> Option<u32> {
        if self.replica.is_some() {
            let number = self.write(context, order);
            self.sign(context);
            return number;
        }
        let author = self.author.as_mut()?;
        let payload = match &mut self.reader {
            Some(reader) => {
                let text = (context.ledger.messages.len(), order.payload);
                reader.prepare(&author.key, context.wall, text)?
            }
            None => Bytes::from(vec![0; order.payload]),
        };
        let what = (payload.len(), order.measured, order.expected);
        let seq = author.publisher.publish(context.wall, self.topic, payload).ok()?;
        let place = (author.key.public_key().agent_id(), author.epoch, seq);
        let number = context.ledger.publish(context.now(), context.me, Some(place), what);
        self.sign(context);
        Some(number)
    }

    fn signed(&mut self, context: &mut Context<'_>) {
        let Some(run) = self.signing.pop_front() else { return };
        if let Some(author) = &mut self.author {
            author.publisher.signed(&run);
        }
        let run = Arc::new(run);
        context.ledger.sign(Arc::clone(&run));
        self.handle(context, Input::Signed(run));
        self.sign(context);
    }

    fn timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now();
        self.machine.handle(now, Input::Wall(context.wall));
        self.machine.handle_timeout(now);
        self.outputs(context);
    }

    fn due(&self) -> Option<Tick> {
        self.machine.poll_timeout()
    }

    fn take_disk(&mut self) -> Option<Disk> {
        self.disk.take()
    }

    fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    fn reader(&self) -> Option<&Reader> {
        self.reader.as_ref()
    }
}
