//! What of letters outlives a restart.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_identity::Tag;
use x0x_transport::BoxFuture;

use super::{
    depositor::Deposit,
    holder::Held,
    wire::{Digest, Grant},
};
use crate::{
    mail::{MailError, MemoryMailStore},
    wire::MessageId,
};

/// Keeps letters of others, and what is known of the own ones. `x0x-store` implements it on disk,
/// [`MemoryLetterStore`] in memory.
pub trait LetterStore: Send + Sync + fmt::Debug + 'static {
    /// What an earlier run left.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn load(&self) -> BoxFuture<'_, Result<StoredLetters, MailError>>;

    /// Applies changes in their order, all of them or none. Once this returns, they outlive the end of
    /// the process at any point.
    ///
    /// # Errors
    /// [`MailError`]: none of the changes holds after a restart.
    fn commit(&self, changes: Vec<LetterChange>) -> BoxFuture<'_, Result<(), MailError>>;

    /// The content of a letter of others.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn sealed(&self, tag: Tag, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, MailError>>;

    /// Whether a message of a machine is or was in the inbox, as far as it is remembered.
    ///
    /// # Errors
    /// [`MailError`]: nothing can be read now.
    fn has_mail(&self, machine: MachineId, id: MessageId)
    -> BoxFuture<'_, Result<bool, MailError>>;
}

/// An agent on a machine that was given a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct Met {
    /// The agent.
    pub agent: AgentId,
    /// The machine on which it was met.
    pub machine: MachineId,
    /// When.
    pub at: WallTime,
}

/// A change. Repeating one changes nothing more.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LetterChange {
    /// A letter of others is kept.
    Hold {
        /// Which.
        held: Held,
        /// Its content.
        sealed: Bytes,
    },
    /// It is kept no more.
    Remove {
        /// Under which tag.
        tag: Tag,
        /// Which.
        digest: Digest,
    },
    /// An agent gave a mailbox; the one before is replaced.
    Grant(Grant),
    /// What an agent gave is of no use any more.
    DropGrant(AgentId),
    /// An agent on a machine was given a mailbox; the time before is replaced.
    Met(Met),
    /// That mailbox is looked into no more.
    DropMet {
        /// The agent.
        agent: AgentId,
        /// Its machine.
        machine: MachineId,
    },
    /// A holder has a copy of an own message.
    Deposited(Deposit),
    /// A holder keeps a copy no longer.
    Lapsed {
        /// Of which message.
        id: MessageId,
        /// Who.
        holder: MachineId,
    },
    /// A message is settled: its copies are of no interest any more.
    Settled(MessageId),
}

/// What a store holds for a service that starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredLetters {
    /// Letters of others, without their content.
    pub held: Vec<Held>,
    /// The mailboxes that others gave.
    pub grants: Vec<Grant>,
    /// Who was given a mailbox, and when last.
    pub met: Vec<Met>,
    /// Copies of own messages.
    pub deposits: Vec<Deposit>,
}

impl StoredLetters {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<(Tag, Digest), (Held, Bytes)>,
    grants: BTreeMap<AgentId, Grant>,
    met: BTreeMap<(AgentId, MachineId), Met>,
    deposits: BTreeMap<(MessageId, MachineId), Deposit>,
}

impl State {
    fn apply(&mut self, change: LetterChange) {
        match change {
            LetterChange::Hold { held, sealed } => {
                self.held.insert((held.tag, held.digest), (held, sealed));
            }
            LetterChange::Remove { tag, digest } => drop(self.held.remove(&(tag, digest))),
            LetterChange::Grant(grant) => drop(self.grants.insert(grant.owner, grant)),
            LetterChange::DropGrant(agent) => drop(self.grants.remove(&agent)),
            LetterChange::Met(met) => drop(self.met.insert((met.agent, met.machine), met)),
            LetterChange::DropMet { agent, machine } => drop(self.met.remove(&(agent, machine))),
            LetterChange::Deposited(deposit) => {
                self.deposits.insert((deposit.id, deposit.holder), deposit);
            }
            LetterChange::Lapsed { id, holder } => drop(self.deposits.remove(&(id, holder))),
            LetterChange::Settled(id) => self.deposits.retain(|(of, _), _| *of != id),
        }
    }
}

/// A [`LetterStore`] that ends with its process, beside its mail.
#[derive(Debug, Default)]
pub struct MemoryLetterStore {
    state: Mutex<State>,
    mail: Arc<MemoryMailStore>,
}

impl MemoryLetterStore {
    /// Beside this mail.
    #[must_use]
    pub fn new(mail: Arc<MemoryMailStore>) -> Self {
        Self { state: Mutex::default(), mail }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LetterStore for MemoryLetterStore {
    fn load(&self) -> BoxFuture<'_, Result<StoredLetters, MailError>> {
        let state = self.lock();
        ready(Ok(StoredLetters {
            held: state.held.values().map(|(held, _)| *held).collect(),
            grants: state.grants.values().cloned().collect(),
            met: state.met.values().copied().collect(),
            deposits: state.deposits.values().copied().collect(),
        }))
    }

    fn commit(&self, changes: Vec<LetterChange>) -> BoxFuture<'_, Result<(), MailError>> {
        let mut state = self.lock();
        changes.into_iter().for_each(|change| state.apply(change));
        ready(Ok(()))
    }

    fn sealed(&self, tag: Tag, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, MailError>> {
        ready(Ok(self.lock().held.get(&(tag, digest)).map(|(_, sealed)| sealed.clone())))
    }

    fn has_mail(
        &self,
        machine: MachineId,
        id: MessageId,
    ) -> BoxFuture<'_, Result<bool, MailError>> {
        ready(Ok(self.mail.has(machine, id)))
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}
