//! One task that owns the machine and carries its outputs out.

use std::{
    collections::HashMap,
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::{
    sync::mpsc,
    time::{Instant, Sleep, sleep},
};
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Machine, Protocol, Tick};
use x0x_transport::{Inbound, InboundEvent, Transport, error::InboundTaken};

use crate::{
    config::DirectConfig,
    handle::{Command, Waiting},
    inbox::{DirectMessage, Inbox, InboxSender, inbox},
    metrics::DirectMetrics,
    routes::Routes,
    state::{DirectMachine, Input, Output, SendRequest},
};

/// Commands and events taken in one turn; their acknowledgements travel together.
const BATCH: usize = 256;

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) config: DirectConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<DirectMetrics>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) stop: CancellationToken,
}

/// Starts the task. It ends when told to, when all handles are gone, or with the transport.
pub(crate) fn spawn(parts: Parts) -> Result<Inbox, InboundTaken> {
    let Parts { transport, config, clock, metrics, routes, commands, stop } = parts;
    let inbound = transport.inbound(Protocol::Direct)?;
    let (sender, inbox) = inbox(&config);
    let driver = Driver {
        machine: DirectMachine::new(transport.local_id(), config, metrics),
        transport,
        clock,
        routes,
        commands,
        inbound,
        inbox: sender,
        inbox_open: true,
        waiting: HashMap::new(),
        tickets: 0,
        deliveries: Vec::new(),
    };
    tokio::spawn(driver.run(stop));
    Ok(inbox)
}

struct Driver {
    machine: DirectMachine,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    routes: Arc<Routes>,
    commands: mpsc::Receiver<Command>,
    inbound: Inbound,
    inbox: InboxSender,
    inbox_open: bool,
    /// Callers by ticket; as many as the gates let through.
    waiting: HashMap<u64, Waiting>,
    tickets: u64,
    deliveries: Vec<DirectMessage>,
}

impl Driver {
    async fn run(mut self, stop: CancellationToken) {
        let mut commands = Vec::with_capacity(BATCH);
        let mut events = Vec::with_capacity(BATCH);
        let mut timer = pin!(sleep(std::time::Duration::ZERO));
        let mut armed: Option<Tick> = None;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                taken = self.commands.recv_many(&mut commands, BATCH) => if taken == 0 { return },
                taken = self.inbound.recv_many(&mut events, BATCH) => if taken == 0 { return },
                () = self.inbox.drained(), if self.machine.is_holding() => {}
                () = &mut timer, if armed.is_some() => armed = None,
            }
            let now = self.clock.now();
            self.machine.handle_timeout(now);
            self.take_commands(now, &mut commands);
            // Whichever woke the task, the other side gets its turn too.
            while events.len() < BATCH
                && let Ok(event) = self.inbound.try_recv()
            {
                events.push(event);
            }
            self.carry_out(now, &mut events);
            self.arm(now, &mut armed, timer.as_mut());
        }
    }

    fn take_commands(&mut self, now: Tick, commands: &mut Vec<Command>) {
        while commands.len() < BATCH
            && let Ok(command) = self.commands.try_recv()
        {
            commands.push(command);
        }
        for Command { id, peer, from, to, payload, deadline, waiting } in commands.drain(..) {
            self.tickets += 1;
            let ticket = self.tickets;
            self.waiting.insert(ticket, waiting);
            let connected = self.transport.session(peer).is_some();
            let request = SendRequest { ticket, id, peer, from, to, payload, deadline, connected };
            self.machine.handle(now, Input::Send(request));
        }
    }

    fn take_events(&mut self, now: Tick, events: &mut Vec<InboundEvent>) {
        for event in events.drain(..) {
            let input = match event {
                InboundEvent::Up(session) => {
                    self.routes.up(session.peer, &session.agents);
                    Input::Up {
                        peer: session.peer,
                        generation: session.generation,
                        agents: session.agents,
                    }
                }
                InboundEvent::Message { peer, message } => Input::Received { peer, frame: message },
                InboundEvent::Writable(peer) => Input::Writable(peer),
                InboundEvent::Down(peer) => {
                    self.routes.down(peer);
                    Input::Down(peer)
                }
                _ => continue,
            };
            self.machine.handle(now, input);
        }
    }

    /// Handles the events, fills the inbox and carries all outputs out.
    fn carry_out(&mut self, now: Tick, events: &mut Vec<InboundEvent>) {
        loop {
            // All deliveries of the turn before are in the inbox, so its room is what it says.
            let snapshot = self.inbox.snapshot();
            match snapshot {
                Some(snapshot) => self.machine.handle(now, Input::Room(snapshot.room)),
                None if self.inbox_open => {
                    self.inbox_open = false;
                    self.machine.handle(now, Input::InboxClosed);
                }
                None => {}
            }
            self.take_events(now, events);
            self.poll_outputs(now);
            let waits = !self.machine.is_holding()
                || snapshot.is_some_and(|snapshot| self.inbox.want_room(snapshot));
            if waits {
                return;
            }
        }
    }

    fn poll_outputs(&mut self, now: Tick) {
        let wall = self.clock.wall();
        while let Some(output) = self.machine.poll_output() {
            if let Output::Deliver { machine, message } = output {
                self.deliveries.push(DirectMessage {
                    id: message.id(),
                    from: message.from(),
                    to: message.to(),
                    machine,
                    payload: message.payload().clone(),
                    received_at: wall,
                });
                continue;
            }
            // A message is in the inbox before anybody is told so.
            self.flush();
            match output {
                Output::Transmit { peer, frame } => {
                    let taken = self.transport.try_send(peer, Protocol::Direct, frame.clone());
                    // Busy: it will be writable. Not connected: the session's end is on its way.
                    if taken.is_err() {
                        self.machine.handle(now, Input::Blocked { peer, frame });
                    }
                }
                Output::Resolve { ticket, result } => {
                    if let Some(waiting) = self.waiting.remove(&ticket) {
                        // The caller may have stopped waiting.
                        let _ = waiting.reply.send(result);
                    }
                }
                Output::Disconnect(peer) => {
                    tracing::debug!(peer = %peer.short(), "peer breaks the protocol");
                    self.transport.disconnect(peer);
                }
                Output::Deliver { .. } => {}
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if !self.deliveries.is_empty() {
            self.inbox.push(&mut self.deliveries);
        }
    }

    /// Sets the timer when the next deadline is earlier. A later one is left to an idle wake-up, so
    /// that the timer is not set for every message.
    fn arm(&self, now: Tick, armed: &mut Option<Tick>, timer: Pin<&mut Sleep>) {
        let Some(deadline) = self.machine.poll_timeout() else { return };
        if armed.is_none_or(|armed| deadline < armed) {
            timer.reset(Instant::now() + deadline.since(now));
            *armed = Some(deadline);
        }
    }
}
