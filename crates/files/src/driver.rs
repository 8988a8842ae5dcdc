//! One task that owns the machine and carries its outputs out; what blocks runs on threads for that.

mod journal;
mod lane;
mod queues;
mod work;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, broadcast, mpsc, oneshot},
    time::{Instant, Sleep, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_core::{AgentId, Clock, Machine, MachineId, Protocol, Tick};
use x0x_transport::{Inbound, InboundEvent, Transport, error::SendError};

use self::{
    journal::{Answer, Journal},
    lane::{Job, Lanes},
    queues::{Queues, Report, Taken},
};
use crate::{
    config::MAX_READ,
    error::{ChangeTransferError, SendFileError},
    id::TransferId,
    io::Room,
    metrics::FilesMetrics,
    record::{FileEvent, Record, TransferInfo},
    state::{Change, Changed, FilesMachine, Input, Output},
    store::FileStore,
};

/// Results of work on their way to the driver; the threads wait while it is full.
const MAX_RESULTS: usize = 256;
/// Control frames that wait for a machine that takes none; further ones are dropped, for they are made
/// again.
const MAX_BACKLOG: usize = 256;
/// Files that are read for their hashes at once.
const MAX_PREPARING: usize = 2;
/// Files whose content is verified at once when they are opened.
const MAX_OPENING: usize = 2;
/// How long the end waits for work that is still going on.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// What users ask for.
pub(crate) enum Command {
    Send {
        record: Box<Record>,
        reply: oneshot::Sender<Result<TransferId, SendFileError>>,
    },
    Change {
        id: TransferId,
        change: Change,
        reply: oneshot::Sender<Result<Changed, ChangeTransferError>>,
    },
    List(oneshot::Sender<Vec<TransferInfo>>),
    Show {
        id: TransferId,
        reply: oneshot::Sender<Option<TransferInfo>>,
    },
    Reconsider(Option<AgentId>),
}

/// What the driver is made of.
pub(crate) struct Parts {
    pub(crate) machine: FilesMachine,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) store: Arc<dyn FileStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<FilesMetrics>,
    pub(crate) keep_free: u64,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) control: Inbound,
    pub(crate) content: Inbound,
    pub(crate) events: broadcast::Sender<FileEvent>,
    pub(crate) seeks: mpsc::Sender<AgentId>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

pub(crate) struct Driver {
    machine: FilesMachine,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    metrics: Arc<FilesMetrics>,
    events: broadcast::Sender<FileEvent>,
    seeks: mpsc::Sender<AgentId>,
    queues: Queues,
    journal: Journal,
    work: Work,
    answers: HashMap<u64, Answer>,
    tickets: u64,
    backlog: BTreeMap<MachineId, VecDeque<Bytes>>,
    stop: CancellationToken,
}

/// What tasks of the driver share.
#[derive(Clone)]
struct Shared {
    transport: Arc<dyn Transport>,
    store: Arc<dyn FileStore>,
    results: mpsc::Sender<Report>,
    tasks: TaskTracker,
    stop: CancellationToken,
    room: Arc<Room>,
    opening: Arc<Semaphore>,
    /// Groups that may be read and not sent yet.
    memory: Arc<Semaphore>,
}

/// Work that goes on beside the driver.
struct Work {
    shared: Shared,
    preparing: Arc<Semaphore>,
    /// Gives up reading a file that is not to be sent any more.
    prepares: BTreeMap<TransferId, CancellationToken>,
    /// The tasks that store what arrives.
    writers: BTreeMap<TransferId, work::Writer>,
    /// The files that were opened, as they were last; as many as there are transfers.
    openings: BTreeMap<TransferId, work::Opening>,
    next_opening: u64,
    lanes: Lanes,
}

/// Starts the task.
pub(crate) fn spawn(parts: Parts) {
    let (results, finished) = mpsc::channel(MAX_RESULTS);
    let tasks = parts.tasks.clone();
    let shared = Shared {
        transport: Arc::clone(&parts.transport),
        store: parts.store,
        results,
        tasks: tasks.clone(),
        stop: parts.stop.clone(),
        room: Arc::new(Room::new(parts.keep_free)),
        opening: Arc::new(Semaphore::new(MAX_OPENING)),
        memory: Arc::new(Semaphore::new(MAX_READ)),
    };
    let driver = Driver {
        machine: parts.machine,
        transport: parts.transport,
        clock: parts.clock,
        metrics: parts.metrics,
        events: parts.events,
        seeks: parts.seeks,
        queues: Queues {
            commands: parts.commands,
            results: finished,
            control: parts.control,
            content: parts.content,
        },
        journal: Journal::new(shared.clone()),
        work: Work {
            shared,
            preparing: Arc::new(Semaphore::new(MAX_PREPARING)),
            prepares: BTreeMap::new(),
            writers: BTreeMap::new(),
            openings: BTreeMap::new(),
            next_opening: 0,
            lanes: Lanes::default(),
        },
        answers: HashMap::new(),
        tickets: 0,
        backlog: BTreeMap::new(),
        stop: parts.stop,
    };
    tasks.spawn(driver.run());
}

impl Driver {
    async fn run(mut self) {
        let mut timer = pin!(sleep(Duration::ZERO));
        let mut armed: Option<Tick> = None;
        let stop = self.stop.clone();
        self.turn(Taken::default(), &mut armed, timer.as_mut());
        loop {
            let mut taken = Taken::default();
            // What comes seldom comes first: the queues can be full all the time.
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.journal.finished() => {}
                () = &mut timer, if armed.is_some() => armed = None,
                next = self.queues.next() => match next {
                    Some(next) => taken = next,
                    None => break,
                },
            }
            self.turn(taken, &mut armed, timer.as_mut());
        }
        self.shut_down().await;
    }

    /// Hands what was taken to the machine and carries out what that asks for.
    fn turn(&mut self, taken: Taken, armed: &mut Option<Tick>, timer: Pin<&mut Sleep>) {
        let now = self.clock.now();
        self.machine.set_wall(self.clock.wall());
        self.machine.handle_timeout(now);
        for command in taken.commands {
            self.command(now, command);
        }
        for Report { opening, input } in taken.results {
            if self.work.is_current(opening) {
                self.machine.handle(now, input);
            }
        }
        for event in taken.control {
            self.control_event(now, event);
        }
        for event in taken.content {
            let input = match event {
                InboundEvent::Message { peer, message } => Input::Content { peer, frame: message },
                InboundEvent::Writable(peer) => Input::Writable(peer),
                _ => continue,
            };
            self.machine.handle(now, input);
        }
        for input in self.journal.take_results() {
            self.machine.handle(now, input);
        }
        while let Some(output) = self.machine.poll_output() {
            self.carry_out(output);
        }
        self.journal.start();
        if let Some(due) = self.machine.poll_timeout()
            && armed.is_none_or(|armed| due < armed)
        {
            timer.reset(Instant::now() + due.since(now));
            *armed = Some(due);
        }
    }

    fn command(&mut self, now: Tick, command: Command) {
        self.tickets += 1;
        let ticket = self.tickets;
        match command {
            Command::Send { record, reply } => {
                self.answers.insert(ticket, Answer::Send(reply));
                self.machine.handle(now, Input::Send { ticket, record });
            }
            Command::Change { id, change, reply } => {
                self.answers.insert(ticket, Answer::Change(id, reply));
                self.machine.handle(now, Input::Change { ticket, id, change });
            }
            // Whoever asked may have gone.
            Command::List(reply) => {
                let _ = reply.send(self.machine.infos());
            }
            Command::Show { id, reply } => {
                let _ = reply.send(self.machine.info(&id));
            }
            Command::Reconsider(agent) => self.machine.handle(now, Input::Reconsider(agent)),
        }
    }

    fn control_event(&mut self, now: Tick, event: InboundEvent) {
        let input = match event {
            InboundEvent::Up(session) => Input::Up { peer: session.peer, agents: session.agents },
            InboundEvent::Message { peer, message } => Input::Frame { peer, frame: message },
            InboundEvent::Writable(peer) => return self.send_backlog(peer),
            InboundEvent::Down(peer) => {
                self.backlog.remove(&peer);
                self.work.lanes.close(peer);
                Input::Down(peer)
            }
            _ => return,
        };
        self.machine.handle(now, input);
    }

    fn transmit(&mut self, peer: MachineId, frame: Bytes) {
        let backlog = self.backlog.entry(peer).or_default();
        if backlog.len() >= MAX_BACKLOG {
            self.metrics.dropped.inc();
            return;
        }
        backlog.push_back(frame);
        self.send_backlog(peer);
    }

    /// Sends what waits for a machine, until it takes no more.
    fn send_backlog(&mut self, peer: MachineId) {
        let Some(backlog) = self.backlog.get_mut(&peer) else { return };
        while let Some(frame) = backlog.front() {
            match self.transport.try_send(peer, Protocol::Files, frame.clone()) {
                Ok(()) => drop(backlog.pop_front()),
                Err(SendError::Busy) => return,
                // The session's end is on its way.
                Err(_) => break,
            }
        }
        self.backlog.remove(&peer);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Transmit { peer, frame } => self.transmit(peer, frame),
            Output::Save(record) => self.journal.save(*record),
            Output::Forget(record) => {
                self.work.give_up(record.id);
                self.journal.forget(*record);
            }
            Output::Discard(record) => {
                self.work.give_up(record.id);
                self.journal.discard(*record);
            }
            Output::Prepare(record) => self.work.prepare(*record),
            Output::Serve { peer, session, record, groups } => {
                let job = Job { record: *record, groups };
                self.work.lanes.put(&self.work.shared, peer, session, job);
            }
            Output::LookForSpace { id, folder } => self.work.look_for_space(id, folder),
            Output::Open(record) => self.work.open(*record),
            Output::Store(slice) => self.work.store(slice),
            Output::Finish(id) => self.work.finish(id),
            Output::Close(id) => drop(self.work.writers.remove(&id)),
            Output::Seek(agent) => {
                // Whoever looks is busy with others: it is asked again.
                let _ = self.seeks.try_send(agent);
            }
            Output::Disconnect(peer) => {
                tracing::debug!(peer = %peer.short(), "peer breaks the protocol");
                self.transport.disconnect(peer);
            }
            Output::Offered { ticket, result } => {
                if let Some(Answer::Send(reply)) = self.answers.remove(&ticket) {
                    self.journal.answer_send(reply, result);
                }
            }
            Output::Changed { ticket, result } => {
                if let Some(Answer::Change(id, reply)) = self.answers.remove(&ticket) {
                    self.journal.answer_change(id, reply, result);
                }
            }
            Output::Event(event) => {
                // There may be nobody who listens.
                let _ = self.events.send(*event);
            }
        }
    }

    /// What was told to be kept is still kept; everything else is taken up in the next run.
    async fn shut_down(mut self) {
        self.work.writers.clear();
        self.work.lanes = Lanes::default();
        let journal = async {
            self.journal.start();
            while self.journal.is_busy() {
                self.journal.finished().await;
                let _ = self.journal.take_results();
                self.journal.start();
            }
        };
        if tokio::time::timeout(CLOSE_DEADLINE, journal).await.is_err() {
            tracing::warn!("the records of file transfers are not written in time");
        }
    }
}
