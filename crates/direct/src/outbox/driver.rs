//! The task around the machine, and its handle.

use std::{
    fmt,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock, Machine, WallTime};
use x0x_transport::{BoxFuture, ask};

use super::state::{Entry, Input, OutboxMachine, Outcome, Output};
use crate::{
    mail::{Letter, LetterState, MailChange, MailError, MailOutcome, PendingLetter},
    mailing::{LetterEvent, Mailing},
    wire::{MAX_PAYLOAD, MessageId},
};

/// Most letters that may wait.
pub const MAX_OUTBOX_LETTERS: u64 = 16 * 1024;
/// Most payload bytes that may wait.
pub const MAX_OUTBOX_BYTES: u64 = 256 * 1024 * 1024;
/// Commands on their way to the task.
const MAX_COMMANDS: usize = 1024;
/// Letters settled that one commit records.
const MAX_RECORDS: usize = 256;
/// How long after a failure the store is asked for letters again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// Sends letters.
pub trait Courier: Send + Sync + fmt::Debug + 'static {
    /// Sends letters to their one recipient, in order, and tells what became of each. It ends by
    /// itself when the recipient cannot be reached.
    fn carry(&self, to: AgentId, letters: Vec<Letter>) -> BoxFuture<'static, Vec<(u64, Outcome)>>;
}

/// A letter was not posted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostError {
    /// The caller's payload is over the limit.
    #[error("payload of {0} bytes exceeds the limit of {MAX_PAYLOAD}")]
    TooLarge(usize),
    /// Too much waits already.
    #[error("limit reached: letters that wait to be sent")]
    Full,
    /// The caller used the id for another letter.
    #[error("a letter with this id was posted before")]
    Duplicate,
    /// The store did not take it.
    #[error(transparent)]
    Store(#[from] MailError),
}

/// A letter was not taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is no such letter.
    #[error("letter not found")]
    NotFound,
    /// It is too late.
    #[error("letter is {}", .0.as_str())]
    Settled(LetterState),
    /// The store cannot be asked.
    #[error(transparent)]
    Store(#[from] MailError),
}

#[derive(Debug)]
enum Command {
    Posted(PendingLetter),
    Cancelled(AgentId, u64),
    Forbidden(AgentId),
    IsSending(AgentId, u64, oneshot::Sender<bool>),
    Pending(AgentId, oneshot::Sender<Vec<PendingLetter>>),
}

/// Letters and payload bytes that wait.
#[derive(Debug, Default)]
struct Waiting {
    letters: AtomicU64,
    bytes: AtomicU64,
}

impl Waiting {
    /// Makes room for a letter, where so many may wait.
    fn take(&self, bytes: u64, most: u64) -> bool {
        let letters = self.letters.fetch_add(1, Ordering::Relaxed);
        let held = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if letters < most && held + bytes <= MAX_OUTBOX_BYTES {
            return true;
        }
        self.give_back(bytes);
        false
    }

    fn give_back(&self, bytes: u64) {
        self.letters.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Letters that wait until their recipient can be reached. Cheap to clone; the task ends with
/// [`close`](Self::close) or the last clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    commands: mpsc::Sender<Command>,
    mailing: Mailing,
    waiting: Arc<Waiting>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl Outbox {
    /// Starts the task with what an earlier run left, on the current tokio runtime.
    pub fn start(
        mailing: Mailing,
        courier: Arc<dyn Courier>,
        pending: Vec<PendingLetter>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let waiting = Arc::new(Waiting::default());
        for letter in &pending {
            waiting.letters.fetch_add(1, Ordering::Relaxed);
            waiting.bytes.fetch_add(letter.bytes, Ordering::Relaxed);
        }
        let stop = CancellationToken::new();
        let driver = Driver {
            machine: OutboxMachine::default(),
            mailing: mailing.clone(),
            courier,
            commands: receiver,
            waiting: Arc::clone(&waiting),
            clock: Arc::clone(&clock),
            batches: FuturesUnordered::new(),
            settled: Vec::new(),
            recording: None,
        };
        tokio::spawn(driver.run(pending, stop.clone()));
        Self { commands, mailing, waiting, clock, stop }
    }

    /// Posts a letter: returns once it is stored. It is sent as soon as its recipient can be
    /// reached, behind those that were posted to the same recipient before.
    ///
    /// A caller that goes away withdraws nothing.
    ///
    /// # Errors
    /// [`PostError`]; nothing is sent then.
    pub async fn post(&self, letter: Letter) -> Result<u64, PostError> {
        // A task of its own: a letter that is stored has to be sent, whoever still waits for it.
        let outbox = self.clone();
        let posting = tokio::spawn(async move { outbox.post_whole(letter).await });
        posting.await.unwrap_or(Err(PostError::Store(MailError::Closed)))
    }

    async fn post_whole(&self, mut letter: Letter) -> Result<u64, PostError> {
        let bytes = letter.payload.len() as u64;
        if letter.payload.len() > MAX_PAYLOAD {
            return Err(PostError::TooLarge(letter.payload.len()));
        }
        // Others cause notes, and must not fill what this agent's own letters need.
        let share = if letter.is_read_note { 4 } else { 1 };
        if !self.waiting.take(bytes, MAX_OUTBOX_LETTERS / share) {
            return Err(PostError::Full);
        }
        (letter.state, letter.changed_at) = (LetterState::Queued, letter.posted_at);
        let mut pending = letter.pending();
        let committed = self.mailing.store.commit(vec![MailChange::Post(letter)]).await;
        let number = match committed.as_deref() {
            Ok([MailOutcome::Stored(number)]) => *number,
            outcome => {
                self.waiting.give_back(bytes);
                return Err(match outcome {
                    Err(error) => error.clone().into(),
                    Ok(_) => PostError::Duplicate,
                });
            }
        };
        pending.number = number;
        let event =
            LetterEvent::new(pending.id, pending.to, LetterState::Queued, self.clock.wall());
        // Nobody may be listening. A task that is gone leaves the letter to the next run.
        let _ = self.mailing.events.send(event);
        let _ = self.commands.send(Command::Posted(pending)).await;
        Ok(number)
    }

    /// Takes a letter back. One that is on its way may arrive all the same.
    ///
    /// # Errors
    /// [`CancelError`].
    pub async fn cancel(&self, id: MessageId) -> Result<(), CancelError> {
        let letter = self.mailing.store.letter(id).await?.ok_or(CancelError::NotFound)?;
        let (state, at) = (LetterState::Cancelled, self.clock.wall());
        let change = MailChange::Advance { id, by: None, state, at };
        match self.mailing.store.commit(vec![change]).await?.first() {
            Some(MailOutcome::Stored(number)) => {
                let _ = self.mailing.events.send(LetterEvent::new(id, letter.to, state, at));
                let _ = self.commands.send(Command::Cancelled(letter.to, *number)).await;
                Ok(())
            }
            _ => {
                let letter = self.mailing.store.letter(id).await?.ok_or(CancelError::NotFound)?;
                Err(CancelError::Settled(letter.state))
            }
        }
    }

    /// Nothing may be sent to an agent any more: what waits for it is settled as
    /// [blocked](LetterState::Blocked), unless it turns out to have been received.
    pub async fn forbid(&self, to: AgentId) {
        // A task that is gone leaves it to the next run, which may not send it either.
        let _ = self.commands.send(Command::Forbidden(to)).await;
    }

    /// A letter as it is now.
    ///
    /// # Errors
    /// [`MailError`]: the store cannot be asked.
    pub async fn letter(&self, id: MessageId) -> Result<Option<Letter>, MailError> {
        let Some(mut letter) = self.mailing.store.letter(id).await? else { return Ok(None) };
        if letter.state == LetterState::Queued {
            let sending = |reply| Command::IsSending(letter.to, letter.number, reply);
            if ask(&self.commands, sending).await.unwrap_or(false) {
                letter.state = LetterState::Sent;
            }
        }
        Ok(Some(letter))
    }

    /// What waits for a recipient or is on its way, in order; nothing once closed.
    pub async fn pending(&self, to: AgentId) -> Vec<PendingLetter> {
        ask(&self.commands, |reply| Command::Pending(to, reply)).await.unwrap_or_default()
    }

    /// Letters that wait or are on their way.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.letters.load(Ordering::Relaxed)
    }

    /// Ends the task; what waits is left to the next run.
    pub fn close(&self) {
        self.stop.cancel();
    }
}

type Batch = BoxFuture<'static, (AgentId, Vec<(u64, Outcome)>)>;
type Recording = BoxFuture<'static, Result<Vec<LetterEvent>, MailError>>;

struct Driver {
    machine: OutboxMachine,
    mailing: Mailing,
    courier: Arc<dyn Courier>,
    commands: mpsc::Receiver<Command>,
    waiting: Arc<Waiting>,
    clock: Arc<dyn Clock>,
    /// One for each recipient at most, and no more than the machine allows.
    batches: FuturesUnordered<Batch>,
    /// Settled and not recorded yet. A letter whose record is lost is sent again after a restart,
    /// and known to the recipient by its id.
    settled: Vec<LetterEvent>,
    recording: Option<Recording>,
}

impl Driver {
    async fn run(mut self, pending: Vec<PendingLetter>, stop: CancellationToken) {
        let mut arrivals = self.mailing.arrivals.subscribe();
        for letter in pending {
            self.post(letter);
        }
        loop {
            self.poll_outputs();
            let now = self.clock.now();
            let wait = self.machine.poll_timeout().map(|at| at.since(now));
            let timer = pin!(sleep_for(wait));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                command = self.commands.recv() => match command {
                    None => return,
                    Some(command) => self.command(command),
                },
                Some((to, outcomes)) = self.batches.next() => {
                    self.machine.handle(self.clock.now(), Input::Done { to, outcomes });
                }
                // Who arrived unheard is tried again in its turn.
                Ok(agent) = arrivals.recv() => {
                    self.machine.handle(self.clock.now(), Input::Reachable(agent));
                }
                recorded = recorded(&mut self.recording) => self.tell(recorded),
                () = timer => self.machine.handle_timeout(self.clock.now()),
            }
        }
    }

    fn command(&mut self, command: Command) {
        let now = self.clock.now();
        match command {
            Command::Posted(letter) => self.post(letter),
            Command::Cancelled(to, number) => {
                self.machine.handle(now, Input::Cancel { to, number });
            }
            Command::Forbidden(to) => self.machine.handle(now, Input::Forbid(to)),
            Command::Pending(to, reply) => {
                let wall = self.clock.wall();
                let pending = self.machine.pending(&to).map(|entry| PendingLetter {
                    number: entry.number,
                    id: entry.id,
                    to,
                    bytes: entry.bytes,
                    expires_at: wall + entry.expires.since(now),
                });
                // Who asked may be gone.
                let _ = reply.send(pending.collect());
            }
            Command::IsSending(to, number, reply) => {
                // Who asked may be gone.
                let _ = reply.send(self.machine.is_sending(&to, number));
            }
        }
    }

    fn post(&mut self, letter: PendingLetter) {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        let PendingLetter { number, id, to, bytes, expires_at } = letter;
        let expires = now + until(wall, expires_at);
        let entry = Entry { number, id, to, bytes, expires };
        self.machine.handle(now, Input::Post(entry));
    }

    fn poll_outputs(&mut self) {
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Send { to, numbers } => self.batches.push(self.batch(to, numbers)),
                Output::Cancelled(entry) => self.waiting.give_back(entry.bytes),
                Output::Settled { entry, outcome } => {
                    self.waiting.give_back(entry.bytes);
                    let state = match outcome {
                        Some(Outcome::Received) => LetterState::Received,
                        Some(Outcome::Forbidden) => LetterState::Blocked,
                        Some(_) => LetterState::Failed,
                        None => LetterState::Expired,
                    };
                    let at = self.clock.wall();
                    self.settled.push(LetterEvent::new(entry.id, entry.to, state, at));
                }
            }
        }
        if self.recording.is_none() && !self.settled.is_empty() {
            let most = self.settled.len().min(MAX_RECORDS);
            let events: Vec<LetterEvent> = self.settled.drain(..most).collect();
            let store = Arc::clone(&self.mailing.store);
            self.recording = Some(Box::pin(async move {
                let change = |event: &LetterEvent| {
                    let LetterEvent { id, state, at, .. } = *event;
                    MailChange::Advance { id, by: None, state, at }
                };
                let outcomes = store.commit(events.iter().map(change).collect()).await?;
                // One that was taken back meanwhile stays so.
                let changed = |outcome: &MailOutcome| matches!(outcome, MailOutcome::Stored(_));
                let pairs = events.into_iter().zip(outcomes);
                Ok(pairs.filter(|(_, outcome)| changed(outcome)).map(|(event, _)| event).collect())
            }));
        }
    }

    fn batch(&self, to: AgentId, numbers: Vec<u64>) -> Batch {
        let (store, courier) = (Arc::clone(&self.mailing.store), Arc::clone(&self.courier));
        async move {
            match store.letters(numbers.clone()).await {
                Ok(letters) => {
                    let gone: Vec<u64> = numbers
                        .into_iter()
                        .filter(|number| letters.iter().all(|letter| letter.number != *number))
                        .collect();
                    let mut outcomes = courier.carry(to, letters).await;
                    // What the store lost, nobody can send.
                    outcomes.extend(gone.into_iter().map(|number| (number, Outcome::Never)));
                    (to, outcomes)
                }
                Err(error) => {
                    tracing::debug!(%error, "letters cannot be read");
                    sleep(STORE_PAUSE).await;
                    (to, Vec::new())
                }
            }
        }
        .boxed()
    }

    fn tell(&self, recorded: Result<Vec<LetterEvent>, MailError>) {
        match recorded {
            Ok(events) => {
                for event in events {
                    // Nobody may be listening.
                    let _ = self.mailing.events.send(event);
                }
            }
            Err(error) => tracing::debug!(%error, "what became of letters is not recorded"),
        }
    }
}

fn until(now: WallTime, then: WallTime) -> Duration {
    Duration::from_millis(then.as_millis().saturating_sub(now.as_millis()))
}

async fn sleep_for(wait: Option<Duration>) {
    match wait {
        Some(wait) => sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// The commit that is on its way; never, when there is none.
async fn recorded(recording: &mut Option<Recording>) -> Result<Vec<LetterEvent>, MailError> {
    match recording {
        Some(commit) => {
            let outcome = commit.await;
            *recording = None;
            outcome
        }
        None => std::future::pending().await,
    }
}
