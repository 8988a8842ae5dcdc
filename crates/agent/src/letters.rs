//! Letters: messages that are stored here and sent as soon as their recipient can be reached.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::{
    sync::{Notify, broadcast, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use x0x_core::AgentId;
use x0x_direct::{
    DirectError, DirectMessage, Kind, Lane, LetterEvent, MessageId, RefuseReason, Terms,
    mail::{HistoryPage, HistoryQuery, Letter, LetterState, MailChange, MailError, MailStore},
    outbox::{CancelError, Courier, Outcome, PostError},
};
use x0x_transport::BoxFuture;
use x0x_trust::Action;

use crate::{Agent, SendDirectError, agent::Inner};

/// How long a letter is tried unless its sender says otherwise.
pub const LETTER_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest time for which a letter is tried.
pub const MAX_LETTER_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Ids that one note of what was read names.
const NOTE_IDS: usize = x0x_direct::wire::MAX_READ_IDS;

/// How a letter is to be treated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LetterOptions {
    /// Names the letter, so that posting it again does nothing; a fresh id unless given.
    pub id: Option<MessageId>,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// Whether the recipient should tell when it was read.
    pub wants_read: bool,
    /// How long it is tried; [`LETTER_LIFETIME`] unless given.
    pub lifetime: Option<Duration>,
}

/// A request was not answered.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not taken by the recipient.
    #[error(transparent)]
    Send(#[from] SendDirectError),
    /// It was taken, and no answer came in time.
    #[error("no answer in time")]
    Timeout,
    /// Too many answers are waited for.
    #[error("limit reached: requests that wait for an answer")]
    TooMany,
}

impl Agent {
    /// Posts a letter: returns its id once it is stored. It is sent as soon as its recipient can be
    /// reached, also after a restart, and in the order of posting.
    ///
    /// # Errors
    /// [`SendDirectError::Forbidden`] and [`SendDirectError::Post`]; nothing is sent then.
    pub async fn post_letter(
        &self,
        to: AgentId,
        payload: Bytes,
        options: LetterOptions,
    ) -> Result<MessageId, SendDirectError> {
        self.check_recipient(to)?;
        let id = options.id.unwrap_or_else(|| self.inner.direct.new_id());
        let letter = self.letter(id, to, payload, &options);
        self.inner.mail.outbox.post(letter).await?;
        self.inner.mail.recorder.posted();
        self.inner.letters.posted(to);
        Ok(id)
    }

    pub(crate) fn letter(
        &self,
        id: MessageId,
        to: AgentId,
        payload: Bytes,
        options: &LetterOptions,
    ) -> Letter {
        let now = self.inner.clock.wall();
        let lifetime = options.lifetime.unwrap_or(LETTER_LIFETIME).min(MAX_LETTER_LIFETIME);
        Letter {
            number: 0,
            id,
            from: self.agent_id(),
            to,
            payload,
            reply_to: options.reply_to,
            wants_read: options.wants_read,
            is_read_note: false,
            posted_at: now,
            expires_at: now + lifetime,
            state: LetterState::Queued,
            changed_at: now,
        }
    }

    /// A letter as it is now.
    ///
    /// # Errors
    /// [`MailError`]: the store cannot be asked.
    pub async fn letter_status(&self, id: MessageId) -> Result<Option<Letter>, MailError> {
        self.inner.mail.outbox.letter(id).await
    }

    /// Takes a letter back. One that is on its way may arrive all the same.
    ///
    /// # Errors
    /// [`CancelError`].
    pub async fn cancel_letter(&self, id: MessageId) -> Result<(), CancelError> {
        self.inner.mail.outbox.cancel(id).await
    }

    /// How letters come further from now on.
    #[must_use]
    pub fn letter_events(&self) -> broadcast::Receiver<LetterEvent> {
        self.inner.mail.mailing.letter_events()
    }

    /// Letters that wait for their recipients.
    #[must_use]
    pub fn letters_waiting(&self) -> u64 {
        self.inner.mail.outbox.waiting()
    }

    /// Sends a message and waits for the one that answers it.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request(
        &self,
        to: AgentId,
        payload: Bytes,
        patience: Duration,
    ) -> Result<DirectMessage, RequestError> {
        self.request_as(self.new_message_id(), to, payload, patience).await
    }

    /// The same with a message of this id. Asked again with the same id the recipient gets it once; an answer
    /// that came before is mail like any other.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request_as(
        &self,
        id: MessageId,
        to: AgentId,
        payload: Bytes,
        patience: Duration,
    ) -> Result<DirectMessage, RequestError> {
        let answer = self.inner.mail.mailbox.answer_to(id, to).ok_or(RequestError::TooMany)?;
        let exchange = async {
            let terms = Terms::default();
            self.queue_direct_as(id, to, payload, terms).await?.acknowledged().await?;
            Ok(answer.await)
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(Ok(Ok(message))) => Ok(message),
            Ok(Ok(Err(_))) | Err(_) => Err(RequestError::Timeout),
            Ok(Err(error)) => Err(RequestError::Send(error)),
        }
    }

    /// A page of the mail and the letters that match, the newest first.
    ///
    /// # Errors
    /// [`MailError`]: the store cannot be asked.
    pub async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, MailError> {
        self.inner.mail.mailbox.store().history(query).await
    }
}

/// Most messages whose record waits; those beyond it are not in the history.
const MAX_RECORDS: usize = 4096;
/// Messages that one commit records.
const RECORD_BATCH: usize = 256;

/// Records messages that were sent at once, beside the sending: nobody waits for it, and what a crash
/// takes from it is only missing in the history.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    letters: mpsc::Sender<Letter>,
    /// Tells whoever prunes that there is more.
    stirred: Arc<Notify>,
}

impl Recorder {
    /// Ends when it is stopped, with what was handed to it recorded.
    pub(crate) fn start(
        store: Arc<dyn MailStore>,
        stirred: Arc<Notify>,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (sender, mut receiver) = mpsc::channel(MAX_RECORDS);
        let task = tokio::spawn(async move {
            let mut batch = Vec::with_capacity(RECORD_BATCH);
            loop {
                tokio::select! {
                    biased;
                    taken = receiver.recv_many(&mut batch, RECORD_BATCH) => {
                        if taken == 0 {
                            return;
                        }
                    }
                    () = stop.cancelled(), if !receiver.is_closed() => {
                        receiver.close();
                        continue;
                    }
                }
                let changes = batch.drain(..).map(MailChange::Post).collect();
                if let Err(error) = store.commit(changes).await {
                    tracing::debug!(%error, "the history lacks messages that were sent");
                }
            }
        });
        (Self { letters: sender, stirred }, task)
    }

    /// The recipient's machine has the message.
    pub(crate) fn record(&self, mut letter: Letter) {
        letter.state = LetterState::Received;
        // A history that cannot keep up must not slow the sending down.
        let _ = self.letters.try_send(letter);
        self.stirred.notify_one();
    }

    /// A letter was posted.
    fn posted(&self) {
        self.stirred.notify_one();
    }
}

/// Carries letters over sessions; knows the agent once that is built.
#[derive(Debug, Default)]
pub(crate) struct Carrier(pub(crate) Arc<OnceLock<Weak<Inner>>>);

impl Courier for Carrier {
    fn carry(&self, to: AgentId, letters: Vec<Letter>) -> BoxFuture<'static, Vec<(u64, Outcome)>> {
        let agent = self.0.get().and_then(Weak::upgrade).map(|inner| Agent { inner });
        Box::pin(async move {
            match agent {
                Some(agent) => agent.carry(to, letters).await,
                None => Vec::new(),
            }
        })
    }
}

impl Agent {
    async fn carry(&self, to: AgentId, letters: Vec<Letter>) -> Vec<(u64, Outcome)> {
        if to != self.agent_id() && self.inner.direct.machine_of(to).is_none() {
            // Others may keep the letters meanwhile, unless a session comes about soon.
            self.inner.letters.unreachable(to);
        }
        let machine = match self.machine_for(to).await {
            Ok(machine) => machine,
            Err(error) => {
                tracing::debug!(agent = %to.short(), %error, "letters wait");
                // A machine that is refused may not be the agent's only one.
                let forbidden = self.check_recipient(to).is_err();
                let outcome = if forbidden { Outcome::Forbidden } else { Outcome::Again };
                return letters.iter().map(|letter| (letter.number, outcome)).collect();
            }
        };
        let mut sent = Vec::with_capacity(letters.len());
        for letter in letters {
            let lane = if sent.is_empty() { Lane::First } else { Lane::Next };
            let kind = if letter.is_read_note { Kind::Read } else { Kind::Mail };
            let Letter { number, id, from, to, payload, reply_to, wants_read, .. } = letter;
            let terms = Terms { kind, lane, reply_to, wants_read };
            let direct = &self.inner.direct;
            match direct.queue_as(id, machine, (from, to), payload, terms).await {
                Ok(sending) => {
                    self.inner.mail.mailing.note_sent(id, to, self.inner.clock.wall());
                    sent.push(async move { (number, sending.await.map(|_| ())) });
                }
                // Those behind it must not overtake it.
                Err(_) => break,
            }
        }
        join_all(sent).await.into_iter().map(|(number, result)| (number, outcome(result))).collect()
    }
}

/// What the answer to a letter means for it.
const fn outcome(result: Result<(), DirectError>) -> Outcome {
    match result {
        Ok(()) => Outcome::Received,
        Err(DirectError::TooLarge { .. } | DirectError::Refused(RefuseReason::TooLarge)) => {
            Outcome::Never
        }
        // An agent that is not there now may be on its way to another machine.
        Err(_) => Outcome::Again,
    }
}

/// Whom to tell what was read.
#[derive(Debug, Default)]
pub(crate) struct ReadNotes(BTreeMap<AgentId, Vec<MessageId>>);

impl ReadNotes {
    /// For the senders of these who want to know.
    pub(crate) fn of(read: Vec<DirectMessage>) -> Self {
        let mut notes = Self::default();
        for message in read.into_iter().filter(|message| message.wants_read) {
            notes.0.entry(message.from).or_default().push(message.id);
        }
        notes
    }

    /// Posts the notes. One that cannot be posted is left: a sender that is not told only knows less.
    pub(crate) async fn post(self, agent: &Agent) {
        for (to, ids) in self.0 {
            for ids in ids.chunks(NOTE_IDS) {
                let id = agent.inner.direct.new_id();
                let mut letter =
                    agent.letter(id, to, ids.concat().into(), &LetterOptions::default());
                letter.is_read_note = true;
                let may =
                    to == agent.agent_id() || agent.gate().allows(&to, None, Action::DirectSend);
                if !may {
                    continue;
                }
                if let Err(error) = agent.inner.mail.outbox.post(letter).await {
                    let error: PostError = error;
                    tracing::debug!(agent = %to.short(), %error, "a sender is not told of its mail");
                }
            }
        }
    }
}
