//! Stores that fail when they are told to, and holders that lie.

mod hostile;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use bytes::Bytes;
use x0x_core::MachineId;
use x0x_direct::{
    DirectMessage, MessageId,
    letters::{Digest, LetterChange, LetterStore, MemoryLetterStore, StoredLetters},
    mail::{
        HistoryPage, HistoryQuery, Letter, MailChange, MailError, MailOutcome, MailStore,
        MemoryMailStore, StoredMail,
    },
};
use x0x_identity::Tag;
use x0x_transport::BoxFuture;

pub(crate) use self::hostile::{Hostile, Way};

/// Mail that cannot be read again while it fails.
#[derive(Debug, Default)]
pub(crate) struct FaultyMail {
    mail: Arc<MemoryMailStore>,
    pub(crate) fails: AtomicBool,
    pub(crate) failures: AtomicU64,
}

impl MailStore for FaultyMail {
    fn load(&self) -> BoxFuture<'_, Result<StoredMail, MailError>> {
        self.mail.load()
    }

    fn commit(
        &self,
        changes: Vec<MailChange>,
    ) -> BoxFuture<'_, Result<Vec<MailOutcome>, MailError>> {
        self.mail.commit(changes)
    }

    fn mail(
        &self,
        after: u64,
        limit: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        self.mail.mail(after, limit, bytes)
    }

    fn mail_by_number(
        &self,
        numbers: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        self.mail.mail_by_number(numbers)
    }

    fn letters(&self, numbers: Vec<u64>) -> BoxFuture<'_, Result<Vec<Letter>, MailError>> {
        if self.fails.load(Ordering::Relaxed) {
            self.failures.fetch_add(1, Ordering::Relaxed);
            return Box::pin(std::future::ready(Err(MailError::Failed("it is told to".into()))));
        }
        self.mail.letters(numbers)
    }

    fn letter(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Letter>, MailError>> {
        self.mail.letter(id)
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, MailError>> {
        self.mail.history(query)
    }
}

/// Letters of which none can be deleted while it fails.
#[derive(Debug)]
pub(crate) struct FaultyLetters {
    letters: MemoryLetterStore,
    pub(crate) fails: AtomicBool,
}

impl FaultyLetters {
    pub(crate) fn beside(mail: &FaultyMail) -> Self {
        let letters = MemoryLetterStore::new(Arc::clone(&mail.mail));
        Self { letters, fails: AtomicBool::new(false) }
    }
}

impl LetterStore for FaultyLetters {
    fn load(&self) -> BoxFuture<'_, Result<StoredLetters, MailError>> {
        self.letters.load()
    }

    fn commit(&self, changes: Vec<LetterChange>) -> BoxFuture<'_, Result<(), MailError>> {
        let removes = changes.iter().any(|change| matches!(change, LetterChange::Remove { .. }));
        if removes && self.fails.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(MailError::Failed("it is told to".into()))));
        }
        self.letters.commit(changes)
    }

    fn sealed(&self, tag: Tag, digest: Digest) -> BoxFuture<'_, Result<Option<Bytes>, MailError>> {
        self.letters.sealed(tag, digest)
    }

    fn has_mail(
        &self,
        machine: MachineId,
        id: MessageId,
    ) -> BoxFuture<'_, Result<bool, MailError>> {
        self.letters.has_mail(machine, id)
    }
}
