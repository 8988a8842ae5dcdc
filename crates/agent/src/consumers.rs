//! Named readers of the mail, each with a place of its own that survives a restart.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Mutex, Notify},
    time::{Instant, sleep_until},
};
use x0x_core::{Clock, WallTime};
use x0x_direct::mail::{Consumer, MailChange, MailError, Owner, is_consumer_name};

mod types;

use self::types::owner;
pub use self::types::{Ack, Begin, ConsumerStatus, InboxError, Lease, Taken};
use crate::{
    Agent,
    letters::ReadNotes,
    mailbox::{Mailbox, counted},
    trust::Gate,
};

/// Most consumers; the caller drops one to make another.
pub const MAX_CONSUMERS: usize = 64;
/// Most messages that one call hands out.
pub const MAX_TAKEN: usize = 256;
/// Payload bytes after which one call hands out no more.
const MAX_TAKEN_BYTES: u64 = 8 * 1024 * 1024;
/// Messages that are read from the store at once.
const PAGE: usize = 256;
/// Claims of a consumer that are told.
const MAX_TOLD_CLAIMS: usize = 64;
/// Pages that one call looks through for messages that are not claimed.
const MAX_PAGES: usize = 16;
/// The shortest and the longest time for which messages are claimed.
const LEASES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// All consumers.
#[derive(Debug)]
pub(crate) struct Consumers {
    known: Mutex<BTreeMap<String, Consumer>>,
    /// What was with somebody waits again. Other changes give no message to those who wait.
    freed: Notify,
    mailbox: Mailbox,
    /// Nothing up to this number was kept at the start.
    floor: u64,
    /// The highest number that was handed out, which the mailbox may not have been told of yet.
    handed: AtomicU64,
    clock: Arc<dyn Clock>,
}

impl Consumers {
    /// Those of an earlier run; one whose record is damaged begins anew when it is next used.
    pub(crate) fn new(
        mailbox: Mailbox,
        records: Vec<(String, Bytes)>,
        floor: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let known = records.into_iter().filter_map(|(name, record)| {
            let consumer = Consumer::decode(record);
            if consumer.is_none() {
                tracing::warn!(name, "the record of a consumer is damaged");
            }
            Some((name, consumer?))
        });
        let known = Mutex::new(known.take(MAX_CONSUMERS).collect());
        Self { known, freed: Notify::new(), mailbox, floor, handed: AtomicU64::new(0), clock }
    }

    fn begin(&self, begin: Begin) -> u64 {
        match begin {
            Begin::Oldest => 0,
            Begin::Unread => self.mailbox.seen(),
            Begin::Latest => self.mailbox.last(),
            Begin::After(number) => number.min(self.mailbox.last()),
        }
    }

    /// Makes a consumer, unless there is one. One that only looks need not be stored while there is no
    /// room for it: it is once it changes.
    async fn create(&self, name: &str, begin: Begin, only_looks: bool) -> Result<(), InboxError> {
        if !is_consumer_name(name) {
            return Err(InboxError::Name);
        }
        let mut known = self.known.lock().await;
        if known.contains_key(name) {
            return Ok(());
        }
        if known.len() >= MAX_CONSUMERS {
            return Err(InboxError::TooManyConsumers);
        }
        let consumer = Consumer::new(self.begin(begin), self.clock.wall());
        self.keep(name, &consumer, only_looks).await?;
        known.insert(name.to_owned(), consumer);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), InboxError> {
        let mut known = self.known.lock().await;
        if !known.contains_key(name) {
            return Err(InboxError::NotFound);
        }
        self.mailbox.store().commit(vec![MailChange::DropConsumer(name.to_owned())]).await?;
        known.remove(name);
        Ok(())
    }

    async fn list(&self) -> Vec<ConsumerStatus> {
        let (known, now, last) = (self.known.lock().await, self.clock.wall(), self.mailbox.last());
        let status = |(name, consumer): (&String, &Consumer)| ConsumerStatus {
            name: name.clone(),
            cursor: consumer.cursor(),
            claimed: consumer.claimed(now),
            claims: consumer.claims(now).take(MAX_TOLD_CLAIMS).collect(),
            waiting: last
                .saturating_sub(consumer.cursor().max(self.floor))
                .saturating_sub(consumer.acked_beyond() as u64),
            created_at: consumer.created_at(),
        };
        known.iter().map(status).collect()
    }

    async fn store(&self, name: &str, consumer: &Consumer) -> Result<(), MailError> {
        let change = MailChange::Consumer { name: name.to_owned(), record: consumer.encode() };
        self.mailbox.store().commit(vec![change]).await.map(|_| ())
    }

    /// The same; one that only looks is content with memory while the disk is full.
    async fn keep(
        &self,
        name: &str,
        consumer: &Consumer,
        only_looks: bool,
    ) -> Result<(), MailError> {
        match self.store(name, consumer).await {
            Err(MailError::Full) if only_looks => Ok(()),
            result => result,
        }
    }

    /// Changes a consumer: stored first, so that what is told holds.
    async fn change<T>(
        &self,
        name: &str,
        change: impl FnOnce(&mut Consumer) -> Result<T, InboxError>,
    ) -> Result<T, InboxError> {
        let mut known = self.known.lock().await;
        let consumer = known.get_mut(name).ok_or(InboxError::NotFound)?;
        let mut changed = consumer.clone();
        let result = change(&mut changed)?;
        if changed != *consumer {
            self.store(name, &changed).await?;
            *consumer = changed;
        }
        Ok(result)
    }

    /// How long it is from now until the first claim of a consumer runs out.
    async fn first_claim(&self, name: &str, now: WallTime) -> Option<Duration> {
        let ends = self.known.lock().await.get(name)?.first_claim(now)?;
        Some(Duration::from_millis(ends.as_millis().saturating_sub(now.as_millis()).max(1)))
    }

    /// What waits for a consumer, claimed for a while if a lease is given.
    async fn take(
        &self,
        name: &str,
        limit: usize,
        lease: Option<&Lease>,
        gate: &Gate,
    ) -> Result<Taken, InboxError> {
        let mut known = self.known.lock().await;
        let consumer = known.get_mut(name).ok_or(InboxError::NotFound)?;
        let (mut changed, now) = (consumer.clone(), self.clock.wall());
        let mut taken = self.look(&mut changed, limit, lease, gate).await?;
        if let Some(Lease { time, owner, .. }) = lease {
            let time = (*time).clamp(*LEASES.start(), *LEASES.end());
            let numbers: Vec<u64> = taken.messages.iter().map(|message| message.number).collect();
            let claimed = changed.claim(&numbers, owner, now, time)?;
            taken.until = claimed.first().map(|claimed| claimed.until);
        }
        let begin = consumer.cursor();
        if changed != *consumer {
            self.keep(name, &changed, lease.is_none()).await?;
            *consumer = changed;
        }
        self.note_handed(begin, &taken);
        Ok(taken)
    }

    /// What waits for a consumer, which is not made by that.
    async fn peek(&self, name: &str, limit: usize, gate: &Gate) -> Result<Taken, InboxError> {
        if !is_consumer_name(name) {
            return Err(InboxError::Name);
        }
        if self.known.lock().await.contains_key(name) {
            return self.take(name, limit, None, gate).await;
        }
        let mut passing = Consumer::new(self.begin(Begin::Oldest), self.clock.wall());
        let taken = self.look(&mut passing, limit, None, gate).await?;
        self.note_handed(0, &taken);
        Ok(taken)
    }

    /// What lies between was handed out by this consumer before, or is not kept. What is before its beginning
    /// is not its own to tell of.
    fn note_handed(&self, begin: u64, taken: &Taken) {
        if let Some(last) = taken.messages.last() {
            self.mailbox.note_seen(begin, last.number);
            self.handed.fetch_max(last.number, Ordering::Relaxed);
        }
    }

    /// Looks for what a consumer wants, and notes for it what is not kept, and what it may not read.
    async fn look(
        &self,
        consumer: &mut Consumer,
        limit: usize,
        lease: Option<&Lease>,
        gate: &Gate,
    ) -> Result<Taken, InboxError> {
        let (limit, now) = (limit.clamp(1, MAX_TAKEN), self.clock.wall());
        let in_order = lease.is_some_and(|lease| lease.in_order);
        let (mut taken, mut bytes) = (Taken::default(), 0);
        let mut after = consumer.cursor();
        'pages: for page in 0..=MAX_PAGES {
            let full = taken.messages.len() >= limit || bytes >= MAX_TAKEN_BYTES;
            if full || page == MAX_PAGES {
                taken.more = after < self.mailbox.last();
                break;
            }
            let page = self.mailbox.store().mail(after, PAGE, MAX_TAKEN_BYTES).await?;
            let Some(last) = page.last().map(|message| message.number) else { break };
            for message in page {
                // What is behind the cursor and not kept any more.
                if consumer.cursor() == after && message.number > after + 1 {
                    taken.missed += counted(consumer.skip_to(message.number - 1));
                }
                after = message.number;
                if in_order && consumer.is_claimed(message.number, now) {
                    break 'pages;
                }
                if !consumer.wants(message.number, now) {
                    continue;
                }
                if taken.messages.len() >= limit || bytes >= MAX_TAKEN_BYTES {
                    taken.more = true;
                    break 'pages;
                }
                if gate.lets_read(&message) {
                    bytes += message.payload.len() as u64;
                    taken.messages.push(message);
                } else {
                    // Whoever was blocked since is not heard, and not waited for. Without
                    // room to note it, it is passed over again.
                    let _ = consumer.ack(&[message.number], &None, last);
                }
            }
        }
        taken.cursor = consumer.cursor();
        Ok(taken)
    }

    /// Moves a consumer's cursor; returns where it was and is. What it leaves behind is done with, read or not, and
    /// counts against its senders no more.
    async fn go_to(
        &self,
        name: &str,
        go: impl FnOnce(&mut Consumer),
    ) -> Result<(u64, u64), InboxError> {
        let moved = self.change(name, |consumer| {
            let before = consumer.cursor();
            go(consumer);
            Ok((before, consumer.cursor()))
        });
        let (before, after) = moved.await?;
        self.mailbox.note_seen(before, after);
        Ok((before, after))
    }

    /// Acknowledges; returns the numbers for which that is news to every consumer.
    async fn ack(&self, name: &str, ack: &Ack, owner: &Owner) -> Result<Vec<u64>, InboxError> {
        // What was handed out may be ahead of what the mailbox was told of.
        let last = self.mailbox.last().max(self.handed.load(Ordering::Relaxed));
        let fresh = match ack {
            Ack::Numbers(numbers) => {
                self.change(name, |consumer| Ok(consumer.ack(numbers, owner, last)?)).await?
            }
            Ack::Through(number) => {
                let (before, newest) = self
                    .go_to(name, |consumer| {
                        consumer.ack_through(*number, last);
                    })
                    .await?;
                // Who sent what longer ago than this is not told.
                (before.max(newest.saturating_sub(PAGE as u64)) + 1..=newest).collect()
            }
        };
        let (known, now) = (self.known.lock().await, self.clock.wall());
        let others: Vec<&Consumer> =
            known.iter().filter(|(other, _)| *other != name).map(|(_, other)| other).collect();
        let is_news = |number: &u64| {
            // A claim of another one does not count as read.
            others
                .iter()
                .all(|other| other.cursor() < *number && other.wants(*number, now + *LEASES.end()))
        };
        Ok(fresh.into_iter().filter(is_news).collect())
    }
}

impl Agent {
    /// The consumers of this agent's mail, by name.
    pub async fn consumers(&self) -> Vec<ConsumerStatus> {
        self.inner.mail.consumers.list().await
    }

    /// Makes a consumer, unless there is one of this name.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn create_consumer(&self, name: &str, begin: Begin) -> Result<(), InboxError> {
        self.inner.mail.consumers.create(name, begin, false).await
    }

    /// Forgets a consumer and its place.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn remove_consumer(&self, name: &str) -> Result<(), InboxError> {
        self.inner.mail.consumers.remove(name).await
    }

    /// Mail that a consumer has not acknowledged and nobody works on, up to `limit` messages, as it is. For a consumer
    /// that is not there, all mail; it is not made by that.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn peek_mail(&self, name: &str, limit: usize) -> Result<Taken, InboxError> {
        self.inner.mail.consumers.peek(name, limit, &self.gate()).await
    }

    /// Mail that a consumer has not acknowledged and nobody works on, up to `limit` messages, as soon
    /// as there is some, or none after `patience`. With a lease it is claimed: nobody else gets it
    /// before that is over. A consumer that is not there is made, and begins with the oldest mail.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn take_mail(
        &self,
        name: &str,
        limit: usize,
        patience: Duration,
        lease: Option<Lease>,
    ) -> Result<Taken, InboxError> {
        let (consumers, gate) = (&self.inner.mail.consumers, self.gate());
        owner(lease.as_ref().and_then(|lease| lease.owner.as_deref()))?;
        consumers.create(name, Begin::Oldest, lease.is_none()).await?;
        let mailbox = &self.inner.mail.mailbox;
        let deadline = Instant::now() + patience;
        loop {
            let last = mailbox.last();
            let freed = consumers.freed.notified();
            tokio::pin!(freed);
            // Registered before looking, so that nothing that is freed between is missed.
            freed.as_mut().enable();
            let now = consumers.clock.wall();
            let taken = consumers.take(name, limit, lease.as_ref(), &gate).await?;
            if !taken.messages.is_empty() || taken.missed > 0 {
                return Ok(taken);
            }
            // One that ran out since then is looked for at once.
            let claim = consumers.first_claim(name, now).await.map(|wait| Instant::now() + wait);
            let until = claim.map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                open = mailbox.arrival_after(last) => if !open {
                    return Ok(taken);
                },
                () = freed => {}
                () = sleep_until(until) => if Instant::now() >= deadline {
                    return Ok(taken);
                },
            }
        }
    }

    /// Acknowledges mail for a consumer; senders who want to know are told that it was read.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn ack_mail(&self, name: &str, ack: Ack) -> Result<(), InboxError> {
        self.ack_mail_of(name, ack, None).await
    }

    /// The same by one of several workers, which a [`Lease`] names: single messages are acknowledged only as long
    /// as they were not given back or claimed by another one, all of them or none.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn ack_mail_of(
        &self,
        name: &str,
        ack: Ack,
        by: Option<&str>,
    ) -> Result<(), InboxError> {
        let news = self.inner.mail.consumers.ack(name, &ack, &owner(by)?).await?;
        if !news.is_empty() {
            let read = self.inner.mail.mailbox.store().mail_by_number(news).await?;
            ReadNotes::of(read).post(self).await;
        }
        Ok(())
    }

    /// Holds claimed mail for another while from now on: all of it, or none. Returns the consumer's cursor.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn renew_mail(
        &self,
        name: &str,
        numbers: &[u64],
        lease: &Lease,
    ) -> Result<u64, InboxError> {
        let (consumers, owner) = (&self.inner.mail.consumers, owner(lease.owner.as_deref())?);
        let (now, time) =
            (consumers.clock.wall(), lease.time.clamp(*LEASES.start(), *LEASES.end()));
        let renewed =
            consumers.change(name, |consumer| match consumer.renew(numbers, &owner, now, time) {
                true => Ok(consumer.cursor()),
                false => Err(InboxError::NotClaimed),
            });
        renewed.await
    }

    /// Gives claimed mail back; what another owner has claimed stays with it.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn release_mail(
        &self,
        name: &str,
        numbers: &[u64],
        by: Option<&str>,
    ) -> Result<(), InboxError> {
        let owner = owner(by)?;
        let released = self.inner.mail.consumers.change(name, |consumer| {
            consumer.release(numbers, &owner);
            Ok(())
        });
        released.await?;
        self.inner.mail.consumers.freed.notify_waiters();
        Ok(())
    }

    /// Puts a consumer to another place, so that mail is handed out again, or skipped.
    ///
    /// # Errors
    /// [`InboxError`].
    pub async fn seek_mail(&self, name: &str, begin: Begin) -> Result<(), InboxError> {
        let consumers = &self.inner.mail.consumers;
        let (to, last) = (consumers.begin(begin), self.inner.mail.mailbox.last());
        consumers.go_to(name, |consumer| consumer.seek(to, last)).await?;
        consumers.freed.notify_waiters();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
