//! What was received and sent, a page at a time.

use std::{fmt, str::FromStr};

use bytes::Bytes;
use x0x_core::{AgentId, WallTime};

use super::store::Letter;
use crate::inbox::DirectMessage;

/// What is looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "every part of a query has a default")]
pub struct HistoryQuery {
    /// Words that all must be in the text.
    pub words: Vec<String>,
    /// Only with this agent, as sender or recipient.
    pub agent: Option<AgentId>,
    /// Only from before this time.
    pub before: Option<WallTime>,
    /// Only what comes after the page that ended here.
    pub from: Option<HistoryPlace>,
    /// At most so many.
    pub limit: usize,
}

/// Something that was received or sent.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "there are two directions")]
pub enum HistoryEntry {
    /// It came.
    Received(DirectMessage),
    /// It was posted.
    Sent(Letter),
}

impl HistoryEntry {
    /// Its number in its list.
    #[must_use]
    pub const fn number(&self) -> u64 {
        match self {
            Self::Received(message) => message.number,
            Self::Sent(letter) => letter.number,
        }
    }

    /// When.
    #[must_use]
    pub const fn time(&self) -> WallTime {
        match self {
            Self::Received(message) => message.received_at,
            Self::Sent(letter) => letter.posted_at,
        }
    }

    /// What it says.
    #[must_use]
    pub const fn payload(&self) -> &Bytes {
        match self {
            Self::Received(message) => &message.payload,
            Self::Sent(letter) => &letter.payload,
        }
    }
}

/// Where a page ends: the next one has mail and letters with lesser numbers. Times would not do, since several
/// messages have the same, and clocks are set back. As text: both numbers with a dot between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there are two lists")]
pub struct HistoryPlace {
    /// Of mail.
    pub mail: u64,
    /// Of letters.
    pub letter: u64,
}

impl HistoryPlace {
    /// Before the newest of both lists.
    pub const START: Self = Self { mail: i64::MAX as u64, letter: i64::MAX as u64 };
}

impl fmt::Display for HistoryPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.mail, self.letter)
    }
}

/// A text that is no place in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a place that an earlier page ended at")]
#[non_exhaustive]
pub struct InvalidPlace;

impl FromStr for HistoryPlace {
    type Err = InvalidPlace;

    fn from_str(text: &str) -> Result<Self, InvalidPlace> {
        let number = |text: &str| -> Result<u64, InvalidPlace> {
            let number: u64 = text.parse().map_err(|_| InvalidPlace)?;
            if number > Self::START.mail { Err(InvalidPlace) } else { Ok(number) }
        };
        let (mail, letter) = text.split_once('.').ok_or(InvalidPlace)?;
        Ok(Self { mail: number(mail)?, letter: number(letter)? })
    }
}

/// Some of what matches, the newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct HistoryPage {
    /// What was found.
    pub entries: Vec<HistoryEntry>,
    /// Where it goes on, if there may be more.
    pub next: Option<HistoryPlace>,
}

/// What one list has for a page: entries with falling numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "stores make them")]
pub struct HistoryList {
    /// What was found.
    pub entries: Vec<HistoryEntry>,
    /// Where the list was left with entries still to come; `None` at its end.
    pub left_at: Option<u64>,
}

impl HistoryPage {
    /// Merges what both lists have from a place on, at most `limit` entries. Each list keeps its order; between
    /// the two, the later time comes first.
    #[must_use]
    pub fn merge(
        mail: HistoryList,
        letters: HistoryList,
        from: HistoryPlace,
        limit: usize,
    ) -> Self {
        let mut lists = [Merged::new(mail, from.mail), Merged::new(letters, from.letter)];
        let mut entries = Vec::new();
        // A list that was left too early ends the page: what is to come of it may be later than the other's.
        while entries.len() < limit
            && !lists.iter().any(Merged::is_cut)
            && let Some(list) =
                lists.iter_mut().filter(|list| list.time().is_some()).max_by_key(|list| list.time())
        {
            entries.extend(list.pop());
        }
        let [mail, letter] = lists;
        let is_all = mail.is_over() && letter.is_over();
        let next = HistoryPlace { mail: mail.place(), letter: letter.place() };
        Self { entries, next: (!is_all).then_some(next) }
    }
}

/// A list of which some was taken. Its entries are in rising order, so that the next one is the last.
struct Merged {
    entries: Vec<HistoryEntry>,
    left_at: Option<u64>,
    /// Where the next page goes on.
    place: u64,
}

impl Merged {
    fn new(list: HistoryList, place: u64) -> Self {
        let HistoryList { mut entries, left_at } = list;
        entries.reverse();
        Self { entries, left_at, place }
    }

    fn time(&self) -> Option<WallTime> {
        self.entries.last().map(HistoryEntry::time)
    }

    fn pop(&mut self) -> Option<HistoryEntry> {
        let entry = self.entries.pop()?;
        self.place = entry.number();
        Some(entry)
    }

    fn is_cut(&self) -> bool {
        self.entries.is_empty() && self.left_at.is_some()
    }

    fn is_over(&self) -> bool {
        self.entries.is_empty() && self.left_at.is_none()
    }

    fn place(&self) -> u64 {
        match self.left_at {
            Some(left_at) if self.entries.is_empty() => left_at.min(self.place),
            _ => self.place,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use x0x_core::MachineId;

    use super::*;

    fn mail(number: u64, at: u64) -> HistoryEntry {
        HistoryEntry::Received(DirectMessage {
            id: [0; 16],
            from: AgentId::new([1; 32]),
            to: AgentId::new([2; 32]),
            machine: MachineId::new([3; 32]),
            payload: Bytes::new(),
            received_at: WallTime::from_millis(at),
            number,
            reply_to: None,
            wants_read: false,
            from_stranger: false,
        })
    }

    /// A list whose entries have these times, as a store gives it from a place on: at most `most` at once.
    fn list(times: &[u64], from: u64, most: usize) -> HistoryList {
        let last = times.len() as u64;
        let all = times.iter().rev().zip((1..=last).rev()).map(|(at, number)| mail(number, *at));
        let mut below = all.filter(|entry| entry.number() < from).peekable();
        let entries: Vec<HistoryEntry> = below.by_ref().take(most).collect();
        let left_at = below.peek().map(|next| next.number() + 1);
        HistoryList { entries, left_at }
    }

    proptest! {
        /// Page after page gives everything once, whatever the times and the sizes of pages.
        #[test]
        fn pages_leave_nothing_out(
            times in prop::collection::vec(0_u64..4, 0..30),
            others in prop::collection::vec(0_u64..4, 0..30),
            limit in 1_usize..7,
            most in 1_usize..7,
        ) {
            let (mut place, mut numbers) = (Some(HistoryPlace::START), Vec::new());
            while let Some(from) = place {
                let (left, right) = (list(&times, from.mail, most), list(&others, from.letter, most));
                let page = HistoryPage::merge(left, right, from, limit);
                prop_assert!(page.entries.len() <= limit);
                prop_assert!(page.next != place, "it gets on");
                numbers.extend(page.entries.iter().map(HistoryEntry::number));
                place = page.next;
            }
            numbers.sort_unstable();
            let mut expected: Vec<u64> =
                (1..=times.len() as u64).chain(1..=others.len() as u64).collect();
            expected.sort_unstable();
            prop_assert_eq!(numbers, expected);
        }
    }

    #[test]
    fn a_place_is_read_back() {
        let place = HistoryPlace { mail: 7, letter: 9 };
        assert_eq!(place.to_string().parse(), Ok(place));
        for bad in ["", "7", "7.", "7.x", "7.9.1", "-7.9", "18446744073709551615.1"] {
            assert_eq!(bad.parse::<HistoryPlace>(), Err(InvalidPlace), "{bad}");
        }
    }
}
