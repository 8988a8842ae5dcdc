//! The task that owns the finder: it carries its outputs out, dials, and signs records.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Machine, MachineId, PeerAddr, Protocol, Scope, Tick};
use x0x_transport::{Inbound, InboundEvent, SessionInfo, Transport, error::DialError};

use super::FindingParts;
use crate::{
    addresses::{OwnAddresses, believable_addresses, usable_addresses},
    error::FindError,
    finder::{Finder, FinderInput, FinderOutput},
    key::Subject,
    record::{Record, SignedRecord},
    wire::Stamp,
};

/// Events taken in one turn.
const BATCH: usize = 64;
/// How often the overlay is asked whom it knows.
const CANDIDATES_INTERVAL: Duration = Duration::from_secs(30);

pub(crate) type FindReply = oneshot::Sender<Result<Vec<Record>, FindError>>;

/// What a handle asks.
#[derive(Debug)]
pub(crate) enum Command {
    Offer(Subject),
    Withdraw(Subject),
    Find { subject: Subject, after: Option<Stamp>, patience: Duration, reply: FindReply },
}

/// Who waits for a search, and what it found.
#[derive(Debug)]
struct Caller {
    found: Vec<Record>,
    reply: FindReply,
}

/// What a dial came to: nothing when the machine may well be there.
type Dialled = (Option<MachineId>, bool);

pub(super) struct Driver {
    finder: Finder,
    transport: Arc<dyn Transport>,
    parts: FindingParts,
    commands: mpsc::Receiver<Command>,
    inbound: Inbound,
    stop: CancellationToken,
    dials: JoinSet<Dialled>,
    asking: JoinSet<Vec<PeerAddr>>,
    ask_at: Tick,
    own: OwnAddresses,
    callers: BTreeMap<u64, Caller>,
    tickets: u64,
    stamp: Stamp,
}

impl Driver {
    pub(super) fn new(
        finder: Finder,
        transport: Arc<dyn Transport>,
        parts: FindingParts,
        commands: mpsc::Receiver<Command>,
        inbound: Inbound,
        stop: CancellationToken,
    ) -> Self {
        Self {
            finder,
            transport,
            commands,
            inbound,
            stop,
            dials: JoinSet::new(),
            asking: JoinSet::new(),
            ask_at: parts.clock.now(),
            own: OwnAddresses::default(),
            callers: BTreeMap::new(),
            tickets: 0,
            stamp: Stamp::default(),
            parts,
        }
    }

    /// Runs until it is stopped, the last handle is dropped, or the transport ends.
    pub(super) async fn run(mut self, own: Subject) {
        self.handle(FinderInput::Offer(own));
        let mut events = Vec::with_capacity(BATCH);
        loop {
            self.carry_out();
            let pause = self.pause();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                Some(dialled) = self.dials.join_next() => {
                    if let Ok((Some(peer), true)) = dialled {
                        self.handle(FinderInput::DialFailed(peer));
                    }
                }
                Some(Ok(peers)) = self.asking.join_next() => {
                    self.handle(FinderInput::Volunteers(peers));
                }
                taken = self.inbound.recv_many(&mut events, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                    events.drain(..).for_each(|event| self.event(event));
                }
                () = tokio::time::sleep(pause) => {}
            }
            self.turn();
        }
        for (_, caller) in std::mem::take(&mut self.callers) {
            let _ = caller.reply.send(Err(FindError::Closed));
        }
    }

    fn pause(&self) -> Duration {
        let due = self.ask_at.min(self.own.look_at());
        let due = self.finder.poll_timeout().map_or(due, |at| at.min(due));
        due.since(self.parts.clock.now())
    }

    /// Timers, whatever woke the task.
    fn turn(&mut self) {
        let now = self.parts.clock.now();
        if self.ask_at <= now {
            self.ask_at = now + CANDIDATES_INTERVAL;
            if self.asking.is_empty() {
                let candidates = Arc::clone(&self.parts.candidates);
                self.asking.spawn(async move { candidates.candidates().await });
            }
        }
        if self.own.changed(now, &*self.parts.addresses) {
            self.handle(FinderInput::Moved);
        }
        self.finder.handle(now, FinderInput::Wall(self.parts.clock.wall()));
        if self.finder.poll_timeout().is_some_and(|due| due <= now) {
            self.finder.handle_timeout(now);
        }
        let gone = |caller: &Caller| caller.reply.is_closed();
        let gone = self.callers.extract_if(.., |_, caller| gone(caller));
        let gone: Vec<u64> = gone.map(|(ticket, _)| ticket).collect();
        for ticket in gone {
            self.finder.handle(now, FinderInput::Cancel(ticket));
        }
    }

    fn handle(&mut self, input: FinderInput) {
        let now = self.parts.clock.now();
        self.finder.handle(now, FinderInput::Wall(self.parts.clock.wall()));
        self.finder.handle(now, input);
    }

    fn event(&mut self, event: InboundEvent) {
        match event {
            InboundEvent::Up(session) => self.up(session),
            InboundEvent::Message { peer, message } => {
                self.handle(FinderInput::Message { peer, frame: message });
            }
            InboundEvent::Down(peer) => self.handle(FinderInput::Down(peer)),
            // Answers that were refused are asked for again elsewhere.
            _ => {}
        }
    }

    fn up(&mut self, session: SessionInfo) {
        let address = session.peer_addr();
        let SessionInfo { peer, agents, remote_address: remote, .. } = session;
        self.handle(FinderInput::Up { peer, agents, address, remote });
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Offer(subject) => self.handle(FinderInput::Offer(subject)),
            Command::Withdraw(subject) => self.handle(FinderInput::Withdraw(subject)),
            Command::Find { subject, after, patience, reply } => {
                self.tickets += 1;
                let ticket = self.tickets;
                self.callers.insert(ticket, Caller { found: Vec::new(), reply });
                let deadline = self.parts.clock.now() + patience;
                self.handle(FinderInput::Find { ticket, subject, after, deadline });
            }
        }
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.finder.poll_output() {
            match output {
                FinderOutput::Send { peer, frame } => {
                    if self.transport.try_send(peer, Protocol::Rendezvous, frame).is_err() {
                        self.finder.metrics().sends_refused.inc();
                    }
                }
                FinderOutput::Dial(address) => self.dial(address),
                FinderOutput::Sign(subject) => self.sign(subject),
                FinderOutput::Found { ticket, record } => self.found(ticket, record.record()),
                FinderOutput::Done { ticket } => {
                    if let Some(caller) = self.callers.remove(&ticket) {
                        let _ = caller.reply.send(Ok(caller.found));
                    }
                }
                FinderOutput::Busy { ticket } => {
                    if let Some(caller) = self.callers.remove(&ticket) {
                        // Whoever asked may have gone.
                        let _ = caller.reply.send(Err(FindError::Busy));
                    }
                }
            }
        }
    }

    fn found(&mut self, ticket: u64, record: &Record) {
        let loopback = self.parts.config.allow_loopback;
        let Some(caller) = self.callers.get_mut(&ticket) else { return };
        let mut record = record.clone();
        let local = (self.parts.addresses)();
        record.addresses = believable_addresses(record.addresses, loopback, &local);
        caller.found.push(record);
    }

    fn dial(&mut self, address: PeerAddr) {
        let transport = Arc::clone(&self.transport);
        let deadline = self.parts.config.dial_deadline();
        self.dials.spawn(async move {
            let peer = address.id;
            let dialled = tokio::time::timeout(deadline, transport.connect(address)).await;
            let failed = match dialled {
                Ok(Ok(_) | Err(DialError::Limit { .. })) => false,
                Ok(Err(_)) | Err(_) => true,
            };
            (peer, failed)
        });
    }

    /// Signs one record with all addresses for this site, and one with the global ones for all others.
    fn sign(&mut self, subject: Subject) {
        let parts = &self.parts;
        let wall = parts.clock.wall();
        self.stamp = Stamp {
            announced_at: self.stamp.announced_at.max(wall),
            counter: self.stamp.counter + 1,
        };
        let addresses = (parts.addresses)();
        self.own.told(&addresses);
        let near = usable_addresses(addresses, parts.config.allow_loopback);
        let reaches_far =
            |address: &&SocketAddr| Scope::of(address.ip()).is_some_and(|at| at >= Scope::Global);
        let far: Vec<SocketAddr> = near.iter().filter(reaches_far).copied().collect();
        let (machine, stamp, moves) = (self.transport.local_id(), self.stamp, parts.generation);
        let issue =
            |to: &[SocketAddr]| SignedRecord::issue(&parts.key, machine, moves, subject, to, stamp);
        let near_record = Box::new(issue(&near));
        let far_record = if far == near { near_record.clone() } else { Box::new(issue(&far)) };
        self.handle(FinderInput::Publish { subject, near: near_record, far: far_record });
    }
}
