//! Mail of agents that do not outlive their process.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, WallTime};
use x0x_transport::BoxFuture;

use super::{
    consumer::Consumer,
    history::{HistoryEntry, HistoryList, HistoryPage, HistoryPlace, HistoryQuery},
    store::{Letter, MailChange, MailError, MailOutcome, MailStore, Retention, StoredMail},
};
use crate::{admission::Unread, inbox::DirectMessage, wire::MessageId};

/// Payload bytes of each list kept in memory; the oldest mail goes.
pub const MAX_MEMORY_BYTES: u64 = 32 * 1024 * 1024;
/// Messages of each list kept in memory.
const MAX_MEMORY_MESSAGES: usize = 16 * 1024;

/// A [`MailStore`] that ends with its process.
#[derive(Debug, Default)]
pub struct MemoryMailStore(Mutex<State>);

#[derive(Debug, Default, Clone)]
struct State {
    mail: BTreeMap<u64, DirectMessage>,
    mail_bytes: u64,
    /// Strangers' mail, and its payload bytes.
    strangers: BTreeSet<u64>,
    stranger_bytes: u64,
    ids: HashMap<(MachineId, MessageId), u64>,
    last: u64,
    floor: u64,
    seen: u64,
    letters: BTreeMap<u64, Letter>,
    letter_bytes: u64,
    letter_ids: HashMap<MessageId, u64>,
    last_letter: u64,
    consumers: BTreeMap<String, Bytes>,
}

impl MemoryMailStore {
    /// What is kept at most, whatever the retention.
    pub const RETENTION: Retention = Retention {
        messages: MAX_MEMORY_MESSAGES as u64,
        bytes: MAX_MEMORY_BYTES,
        age: Duration::MAX,
    };

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a message of a machine is or was here.
    pub(crate) fn has(&self, machine: MachineId, id: MessageId) -> bool {
        self.lock().ids.contains_key(&(machine, id))
    }

    /// What [`MailStore::commit`] does, at once.
    pub(crate) fn apply(&self, changes: Vec<MailChange>) -> Result<Vec<MailOutcome>, MailError> {
        let mut state = self.lock();
        let outcomes = changes.into_iter().map(|change| state.apply(change)).collect();
        Ok(outcomes)
    }
}

impl State {
    fn apply(&mut self, change: MailChange) -> MailOutcome {
        match change {
            MailChange::Receive(message) => self.receive(message),
            MailChange::Seen(number) => {
                self.seen = self.seen.max(number.min(self.last));
                MailOutcome::Done
            }
            MailChange::Post(letter) => self.post(letter),
            MailChange::Advance { id, by, state, at } => {
                let number = self.letter_ids.get(&id).copied();
                let letter = number.and_then(|number| self.letters.get_mut(&number));
                match letter {
                    Some(letter)
                        if by.is_none_or(|by| by == letter.to)
                            && state.may_follow(letter.state) =>
                    {
                        (letter.state, letter.changed_at) = (state, at);
                        MailOutcome::Stored(letter.number)
                    }
                    _ => MailOutcome::Missing,
                }
            }
            MailChange::Consumer { name, record } => {
                self.consumers.insert(name, record);
                MailOutcome::Done
            }
            MailChange::DropConsumer(name) => match self.consumers.remove(&name) {
                Some(_) => MailOutcome::Done,
                None => MailOutcome::Missing,
            },
            MailChange::Prune { retention, now } => {
                let age = u64::try_from(retention.age.as_millis()).unwrap_or(u64::MAX);
                let cutoff = WallTime::from_millis(now.as_millis().saturating_sub(age));
                self.shrink(retention);
                while let Some((_, first)) = self.mail.first_key_value()
                    && first.received_at < cutoff
                {
                    let first = first.number;
                    self.forget(first);
                }
                MailOutcome::Done
            }
        }
    }

    fn receive(&mut self, mut message: DirectMessage) -> MailOutcome {
        let key = (message.machine, message.id);
        if self.ids.contains_key(&key) {
            return MailOutcome::Duplicate;
        }
        self.last += 1;
        message.number = self.last;
        self.mail_bytes += message.payload.len() as u64;
        self.ids.insert(key, self.last);
        if message.from_stranger {
            self.strangers.insert(self.last);
            self.stranger_bytes += message.payload.len() as u64;
        }
        self.mail.insert(self.last, message);
        self.shrink(Retention::default());
        MailOutcome::Stored(self.last)
    }

    fn post(&mut self, mut letter: Letter) -> MailOutcome {
        if self.letter_ids.contains_key(&letter.id) {
            return MailOutcome::Duplicate;
        }
        self.last_letter += 1;
        letter.number = self.last_letter;
        self.letter_bytes += letter.payload.len() as u64;
        self.letter_ids.insert(letter.id, letter.number);
        self.letters.insert(letter.number, letter);
        MailOutcome::Stored(self.last_letter)
    }

    fn shrink(&mut self, retention: Retention) {
        let messages = usize::try_from(retention.messages).unwrap_or(usize::MAX);
        let (messages, bytes) =
            (messages.min(MAX_MEMORY_MESSAGES), retention.bytes.min(MAX_MEMORY_BYTES));
        let strangers = Retention { messages: messages as u64, bytes, ..retention }.of_strangers();
        while self.strangers.len() as u64 > strangers.messages
            || (self.stranger_bytes > strangers.bytes && self.strangers.len() > 1)
        {
            let Some(first) = self.strangers.first().copied() else { break };
            self.forget(first);
        }
        while self.mail.len() > messages || (self.mail_bytes > bytes && self.mail.len() > 1) {
            let Some(first) = self.first_to_go() else { break };
            self.forget(first);
        }
        while self.letters.len() > messages || self.letter_bytes > bytes {
            let settled = self.letters.iter().find(|(_, letter)| !letter.state.is_pending());
            let Some((&number, _)) = settled else { return };
            if let Some(letter) = self.letters.remove(&number) {
                self.letter_bytes -= letter.payload.len() as u64;
                self.letter_ids.remove(&letter.id);
            }
        }
    }

    /// What goes when there is too much: what was read, then what strangers left and the oldest, as far as
    /// somebody was handed it, and then the rest.
    fn first_to_go(&self) -> Option<u64> {
        let first = *self.mail.first_key_value()?.0;
        let read = Consumer::acked_by_all(self.consumers.values().cloned()).unwrap_or(self.seen);
        let stranger = self.strangers.first().copied();
        if first <= read {
            return Some(first);
        }
        let seen = stranger.filter(|number| *number <= self.seen);
        seen.or_else(|| (first <= self.seen).then_some(first)).or(stranger).or(Some(first))
    }

    fn forget(&mut self, number: u64) {
        let Some(message) = self.mail.remove(&number) else { return };
        self.mail_bytes -= message.payload.len() as u64;
        if self.strangers.remove(&number) {
            self.stranger_bytes -= message.payload.len() as u64;
        }
        self.ids.remove(&(message.machine, message.id));
        self.floor = self.mail.first_key_value().map_or(self.last, |(first, _)| first - 1);
    }

    fn load(&self) -> StoredMail {
        let above = self.mail.range(self.seen + 1..);
        let pending = self.letters.values().filter(|letter| letter.state.is_pending());
        StoredMail {
            last: self.last,
            floor: self.floor,
            seen: self.seen,
            unread: above.map(|(number, message)| unread(*number, message)).collect(),
            pending: pending.map(Letter::pending).collect(),
            consumers: self.consumers.clone().into_iter().collect(),
        }
    }

    fn history(&self, query: &HistoryQuery) -> HistoryPage {
        let words: Vec<String> = query.words.iter().map(|word| word.to_lowercase()).collect();
        let with = |from: AgentId, to: AgentId| {
            query.agent.is_none_or(|agent| agent == from || agent == to)
        };
        let says = |payload: &[u8]| {
            words.is_empty()
                || std::str::from_utf8(payload).is_ok_and(|text| {
                    let text = text.to_lowercase();
                    words.iter().all(|word| text.contains(word))
                })
        };
        let place = query.from.unwrap_or(HistoryPlace::START);
        let is_before = |entry: &HistoryEntry| query.before.is_none_or(|at| entry.time() < at);
        let mail = self.mail.range(..place.mail).rev().map(|(_, mail)| mail);
        let mail = mail.filter(|mail| with(mail.from, mail.to) && says(&mail.payload));
        let mail = mail.cloned().map(HistoryEntry::Received).filter(is_before);
        let letters = self.letters.range(..place.letter).rev().map(|(_, letter)| letter);
        let letters = letters.filter(|letter| {
            with(letter.from, letter.to) && !letter.is_read_note && says(&letter.payload)
        });
        let letters = letters.cloned().map(HistoryEntry::Sent).filter(is_before);
        let [mail, letters]: [Vec<HistoryEntry>; 2] = [mail.collect(), letters.collect()];
        let whole = |entries| HistoryList { entries, left_at: None };
        HistoryPage::merge(whole(mail), whole(letters), place, query.limit)
    }
}

impl MailStore for MemoryMailStore {
    fn load(&self) -> BoxFuture<'_, Result<StoredMail, MailError>> {
        ready(Ok(self.lock().load()))
    }

    fn commit(
        &self,
        changes: Vec<MailChange>,
    ) -> BoxFuture<'_, Result<Vec<MailOutcome>, MailError>> {
        ready(self.apply(changes))
    }

    fn mail(
        &self,
        after: u64,
        limit: usize,
        bytes: u64,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        let state = self.lock();
        let mut held = 0;
        let mut found = Vec::new();
        for message in state.mail.range(after.saturating_add(1)..).map(|(_, message)| message) {
            if found.len() >= limit || held >= bytes {
                break;
            }
            held += message.payload.len() as u64;
            found.push(message.clone());
        }
        ready(Ok(found))
    }

    fn mail_by_number(
        &self,
        numbers: Vec<u64>,
    ) -> BoxFuture<'_, Result<Vec<DirectMessage>, MailError>> {
        let state = self.lock();
        ready(Ok(numbers.iter().filter_map(|number| state.mail.get(number).cloned()).collect()))
    }

    fn letters(&self, numbers: Vec<u64>) -> BoxFuture<'_, Result<Vec<Letter>, MailError>> {
        let state = self.lock();
        ready(Ok(numbers.iter().filter_map(|number| state.letters.get(number).cloned()).collect()))
    }

    fn letter(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Letter>, MailError>> {
        let state = self.lock();
        let number = state.letter_ids.get(&id);
        ready(Ok(number.and_then(|number| state.letters.get(number)).cloned()))
    }

    fn history(&self, query: HistoryQuery) -> BoxFuture<'_, Result<HistoryPage, MailError>> {
        ready(Ok(self.lock().history(&query)))
    }
}

const fn unread(number: u64, message: &DirectMessage) -> Unread {
    let DirectMessage { from, machine, payload, .. } = message;
    Unread { number, from: *from, machine: *machine, bytes: payload.len() as u64 }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, T> {
    Box::pin(std::future::ready(value))
}

#[cfg(test)]
mod tests {
    use super::super::store::LetterState;

    #[test]
    fn a_letters_state_never_goes_back() {
        let states = (0..=7).filter_map(LetterState::from_number);
        for state in states.clone() {
            for other in states.clone() {
                assert!(!(state.may_follow(other) && other.may_follow(state)));
            }
            assert!(!state.may_follow(state));
        }
        assert!(LetterState::Read.may_follow(LetterState::Cancelled), "it was too late");
    }
}
