//! How far one named reader of the inbox has come.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{WallTime, decode_bounded};

/// Most messages beyond a consumer's cursor that are claimed or acknowledged.
pub const MAX_CLAIMS: usize = 1024;
/// Longest name in bytes.
pub const MAX_CONSUMER_NAME: usize = 64;
/// Longest record in bytes: as many claims as there may be, each with the name of its owner.
const MAX_RECORD: usize = 128 * 1024;

/// Whether this may name a consumer: 1 to [`MAX_CONSUMER_NAME`] letters, digits, `-`, `_` and `.`.
#[must_use]
pub fn is_consumer_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_CONSUMER_NAME).contains(&name.len()) && name.bytes().all(allowed)
}

/// A consumer was asked for what it cannot do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsumerError {
    /// The caller should acknowledge what it claimed first.
    #[error("limit reached: messages that are claimed and not acknowledged (at most {MAX_CLAIMS})")]
    TooManyClaims,
    /// The caller's claim is over, and the message was given back or is with somebody else.
    #[error("the message is not claimed any more")]
    NotClaimed,
}

/// Who works on claimed messages: a name that a worker gives itself, as a consumer's. Workers without one are
/// taken for each other.
pub type Owner = Option<Arc<str>>;

/// What is known of a message beyond the cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    /// Somebody works on it until then.
    Claimed(WallTime, Owner),
    Acked,
}

/// A message that was claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a number, a time and a name")]
pub struct Claimed {
    /// Its number.
    pub number: u64,
    /// Until when nobody else gets it.
    pub until: WallTime,
    /// Who works on it.
    pub owner: Owner,
}

/// How far a consumer has come: a cursor up to which everything is acknowledged, and marks beyond it.
/// A pure machine; who holds it stores its [record](Self::encode).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    cursor: u64,
    marks: BTreeMap<u64, Mark>,
    created_at: WallTime,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    cursor: u64,
    #[prost(uint64, tag = "2")]
    created_ms: u64,
    #[prost(uint64, repeated, tag = "3")]
    acked: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    claims: Vec<Claim>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Claim {
    #[prost(uint64, tag = "1")]
    number: u64,
    #[prost(uint64, tag = "2")]
    until_ms: u64,
    #[prost(string, tag = "3")]
    owner: String,
}

impl Consumer {
    /// A consumer that gets what comes after this number.
    #[must_use]
    pub const fn new(cursor: u64, now: WallTime) -> Self {
        Self { cursor, marks: BTreeMap::new(), created_at: now }
    }

    /// Everything up to this number is acknowledged.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// When it was made.
    #[must_use]
    pub const fn created_at(&self) -> WallTime {
        self.created_at
    }

    /// Messages that somebody works on now.
    #[must_use]
    pub fn claimed(&self, now: WallTime) -> usize {
        self.marks.values().filter(|mark| matches!(mark, Mark::Claimed(at, _) if *at > now)).count()
    }

    /// When the first of them is handed out again.
    #[must_use]
    pub fn first_claim(&self, now: WallTime) -> Option<WallTime> {
        self.claims(now).map(|claimed| claimed.until).min()
    }

    /// What somebody works on now, by number.
    pub fn claims(&self, now: WallTime) -> impl Iterator<Item = Claimed> + '_ {
        self.marks.iter().filter_map(move |(number, mark)| match mark {
            Mark::Claimed(until, owner) if *until > now => {
                Some(Claimed { number: *number, until: *until, owner: owner.clone() })
            }
            _ => None,
        })
    }

    /// Messages beyond the cursor that are acknowledged.
    #[must_use]
    pub fn acked_beyond(&self) -> usize {
        self.marks.values().filter(|mark| matches!(mark, Mark::Acked)).count()
    }

    /// Whether a message waits for this consumer: neither acknowledged nor with somebody.
    #[must_use]
    pub fn wants(&self, number: u64, now: WallTime) -> bool {
        number > self.cursor
            && match self.marks.get(&number) {
                None => true,
                Some(Mark::Claimed(until, _)) => *until <= now,
                Some(Mark::Acked) => false,
            }
    }

    /// Whether somebody works on a message now.
    #[must_use]
    pub fn is_claimed(&self, number: u64, now: WallTime) -> bool {
        matches!(self.marks.get(&number), Some(Mark::Claimed(until, _)) if *until > now)
    }

    /// Whether a message may be said to be an owner's: nobody else has claimed it, and it was not given back. Who
    /// names no owner speaks for all of them. What is acknowledged is over for everybody.
    fn belongs(&self, number: u64, owner: &Owner) -> bool {
        match self.marks.get(&number) {
            Some(Mark::Claimed(_, by)) => owner.is_none() || by == owner,
            Some(Mark::Acked) => true,
            None => owner.is_none() || number <= self.cursor,
        }
    }

    /// Holds claims for another while. False, and nothing is changed, when one of them is no claim of this owner:
    /// its message is acknowledged, was given back, or is with somebody else.
    pub fn renew(
        &mut self,
        numbers: &[u64],
        owner: &Owner,
        now: WallTime,
        lease: Duration,
    ) -> bool {
        let claimed = |number: &u64| {
            matches!(self.marks.get(number), Some(Mark::Claimed(..)))
                && self.belongs(*number, owner)
        };
        if !numbers.iter().all(claimed) {
            return false;
        }
        let until = now + lease;
        for number in numbers {
            if let Some(Mark::Claimed(at, _)) = self.marks.get_mut(number) {
                *at = until;
            }
        }
        true
    }

    /// Claims messages for a while, so that nobody else gets them. Those that are not wanted are left
    /// out.
    ///
    /// # Errors
    /// [`ConsumerError::TooManyClaims`]; nothing is claimed then.
    pub fn claim(
        &mut self,
        numbers: &[u64],
        owner: &Owner,
        now: WallTime,
        lease: Duration,
    ) -> Result<Vec<Claimed>, ConsumerError> {
        let wanted: Vec<u64> =
            numbers.iter().copied().filter(|number| self.wants(*number, now)).collect();
        let new = wanted.iter().filter(|number| !self.marks.contains_key(number)).count();
        if self.marks.len() + new > MAX_CLAIMS {
            return Err(ConsumerError::TooManyClaims);
        }
        let until = now + lease;
        let mark = |number: &u64| (*number, Mark::Claimed(until, owner.clone()));
        self.marks.extend(wanted.iter().map(mark));
        let claimed = |number| Claimed { number, until, owner: owner.clone() };
        Ok(wanted.into_iter().map(claimed).collect())
    }

    /// Acknowledges single messages; returns those for which that is news.
    ///
    /// # Errors
    /// [`ConsumerError::TooManyClaims`]: too many are acknowledged ahead of one that is not.
    /// [`ConsumerError::NotClaimed`]: one of them is not this owner's any more. Nothing is acknowledged then.
    pub fn ack(
        &mut self,
        numbers: &[u64],
        owner: &Owner,
        last: u64,
    ) -> Result<Vec<u64>, ConsumerError> {
        if !numbers.iter().all(|number| self.belongs(*number, owner)) {
            return Err(ConsumerError::NotClaimed);
        }
        let news = |number: &u64| {
            (self.cursor + 1..=last).contains(number)
                && self.marks.get(number) != Some(&Mark::Acked)
        };
        let mut fresh: Vec<u64> = numbers.iter().copied().filter(news).collect();
        fresh.sort_unstable();
        fresh.dedup();
        let mut marks = self.marks.clone();
        marks.extend(fresh.iter().map(|number| (*number, Mark::Acked)));
        let mut cursor = self.cursor;
        while marks.get(&(cursor + 1)) == Some(&Mark::Acked) {
            cursor += 1;
            marks.remove(&cursor);
        }
        if marks.len() > MAX_CLAIMS {
            return Err(ConsumerError::TooManyClaims);
        }
        (self.cursor, self.marks) = (cursor, marks);
        Ok(fresh)
    }

    /// Acknowledges everything up to a number; returns the cursor that was.
    pub fn ack_through(&mut self, number: u64, last: u64) -> u64 {
        let before = self.cursor;
        self.cursor = self.cursor.max(number.min(last));
        self.settle();
        before
    }

    /// Gives messages that an owner claimed back, so that they are handed out again at once. What is not its own
    /// stays where it is.
    pub fn release(&mut self, numbers: &[u64], owner: &Owner) {
        for number in numbers {
            let is_claimed = matches!(self.marks.get(number), Some(Mark::Claimed(..)));
            if is_claimed && self.belongs(*number, owner) {
                self.marks.remove(number);
            }
        }
    }

    /// Goes to a place: what comes after this number is handed out, again if need be.
    pub fn seek(&mut self, number: u64, last: u64) {
        self.cursor = number.min(last);
        self.marks.clear();
    }

    /// What is not kept any more cannot be waited for. Returns how many messages were missed.
    pub fn skip_to(&mut self, floor: u64) -> u64 {
        if floor <= self.cursor {
            return 0;
        }
        let acked = self.marks.range(..=floor).filter(|(_, mark)| **mark == Mark::Acked).count();
        let missed = (floor - self.cursor).saturating_sub(acked as u64);
        self.cursor = floor;
        self.settle();
        missed
    }

    /// Up to which number every one of the consumers of these records has acknowledged everything; `None` when there is none
    /// that can be read.
    pub fn acked_by_all(records: impl IntoIterator<Item = Bytes>) -> Option<u64> {
        records.into_iter().filter_map(Self::decode).map(|consumer| consumer.cursor).min()
    }

    fn settle(&mut self) {
        self.marks = self.marks.split_off(&(self.cursor + 1));
        while self.marks.get(&(self.cursor + 1)) == Some(&Mark::Acked) {
            self.cursor += 1;
            self.marks.remove(&self.cursor);
        }
    }

    /// The record to be stored.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut record = Record {
            cursor: self.cursor,
            created_ms: self.created_at.as_millis(),
            ..Record::default()
        };
        for (number, mark) in &self.marks {
            match mark {
                Mark::Acked => record.acked.push(*number),
                Mark::Claimed(until, owner) => {
                    let owner = owner.as_deref().unwrap_or_default().to_owned();
                    let until_ms = until.as_millis();
                    record.claims.push(Claim { number: *number, until_ms, owner });
                }
            }
        }
        record.encode_to_vec().into()
    }

    /// Reads a record; `None` when it is damaged.
    #[must_use]
    pub fn decode(record: Bytes) -> Option<Self> {
        let record: Record = decode_bounded(record, MAX_RECORD).ok()?;
        if record.acked.len() + record.claims.len() > MAX_CLAIMS {
            return None;
        }
        if !record
            .claims
            .iter()
            .all(|claim| claim.owner.is_empty() || is_consumer_name(&claim.owner))
        {
            return None;
        }
        let claims = record.claims.iter().map(|claim| {
            let owner = (!claim.owner.is_empty()).then(|| Arc::from(claim.owner.as_str()));
            (claim.number, Mark::Claimed(WallTime::from_millis(claim.until_ms), owner))
        });
        let acked = record.acked.iter().map(|number| (*number, Mark::Acked));
        let marks: BTreeMap<u64, Mark> = claims.chain(acked).collect();
        let mut consumer = Self {
            cursor: record.cursor,
            marks,
            created_at: WallTime::from_millis(record.created_ms),
        };
        consumer.settle();
        Some(consumer)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(secs: u64) -> WallTime {
        WallTime::from_millis(secs * 1000)
    }

    #[test]
    fn claims_are_handed_out_once_until_they_run_out() {
        let mut consumer = Consumer::new(0, at(0));
        let claimed = consumer.claim(&[1, 2, 3], &None, at(0), LEASE).expect("few");
        assert_eq!(claimed.len(), 3);
        assert!(consumer.claim(&[1, 2, 3], &None, at(29), LEASE).expect("few").is_empty());
        assert_eq!(consumer.ack(&[2], &None, 3), Ok(vec![2]));
        assert_eq!(consumer.cursor(), 0, "the first is not acknowledged");
        let again = consumer.claim(&[1, 2, 3], &None, at(30), LEASE).expect("few");
        assert_eq!(again.iter().map(|claim| claim.number).collect::<Vec<_>>(), [1, 3]);
        consumer.release(&[3], &None);
        assert!(consumer.wants(3, at(31)) && !consumer.wants(1, at(31)));
        assert_eq!(consumer.ack(&[1, 1, 2, 99], &None, 3), Ok(vec![1]));
        assert_eq!((consumer.cursor(), consumer.claimed(at(31))), (2, 0));
    }

    #[test]
    fn a_claim_is_renewed_while_it_is_one() {
        let mut consumer = Consumer::new(0, at(0));
        assert_eq!(
            consumer.claim(&[1, 2], &None, at(0), LEASE).map(|claimed| claimed.len()),
            Ok(2)
        );
        assert!(consumer.renew(&[1], &None, at(20), LEASE));
        assert!(consumer.is_claimed(1, at(40)) && !consumer.is_claimed(2, at(40)));
        consumer.release(&[2], &None);
        assert!(!consumer.renew(&[1, 2], &None, at(45), LEASE), "all or none");
        assert!(!consumer.is_claimed(1, at(50)));
        assert_eq!(consumer.ack(&[1], &None, 2), Ok(vec![1]));
        assert!(
            !consumer.renew(&[1], &None, at(50), LEASE)
                && !consumer.renew(&[7], &None, at(50), LEASE)
        );
    }

    #[test]
    fn a_claim_is_its_owners_until_somebody_else_has_it() {
        let [ann, ben]: [Owner; 2] = [Some("ann".into()), Some("ben".into())];
        let mut consumer = Consumer::new(0, at(0));
        assert_eq!(consumer.claim(&[1, 2], &ann, at(0), LEASE).map(|claimed| claimed.len()), Ok(2));
        assert!(
            !consumer.renew(&[1], &ben, at(1), LEASE) && consumer.renew(&[1], &ann, at(1), LEASE)
        );
        consumer.release(&[1, 2], &ben);
        assert_eq!(consumer.claimed(at(2)), 2, "only its owner gives it back");
        assert_eq!(consumer.ack(&[1], &ben, 9), Err(ConsumerError::NotClaimed));
        // It ran out, and nobody took it: what was done is done.
        assert_eq!(consumer.ack(&[2], &ann, 9), Ok(vec![2]));
        assert_eq!(consumer.ack(&[2], &ben, 9), Ok(vec![]), "it is over for everybody");
        // It ran out, and somebody took it.
        let again = consumer.claim(&[1], &ben, at(40), LEASE).expect("few");
        assert_eq!((again[0].number, &again[0].owner), (1, &ben));
        assert_eq!(consumer.ack(&[1], &ann, 9), Err(ConsumerError::NotClaimed));
        assert!(!consumer.renew(&[1], &ann, at(41), LEASE));
        let claims: Vec<_> = consumer.claims(at(41)).map(|claimed| claimed.owner).collect();
        assert_eq!(claims, std::slice::from_ref(&ben));
        assert_eq!(Consumer::decode(consumer.encode()).as_ref(), Some(&consumer));
        assert!(consumer.renew(&[1], &None, at(41), LEASE), "without a name, for all of them");
        consumer.release(&[1], &ben);
        assert_eq!(
            consumer.ack(&[1], &ben, 9),
            Err(ConsumerError::NotClaimed),
            "it was given back"
        );
        assert_eq!(consumer.ack(&[1], &None, 9), Ok(vec![1]));
        assert_eq!(consumer.ack(&[1, 2], &ann, 9), Ok(vec![]), "behind the cursor");
    }

    #[test]
    fn as_many_claims_as_there_may_be_fit_a_record() {
        let owner: Owner = Some("o".repeat(MAX_CONSUMER_NAME).into());
        let mut consumer = Consumer::new(u64::MAX - 2000, at(0));
        let numbers: Vec<u64> = (u64::MAX - 1999..).take(MAX_CLAIMS).collect();
        consumer.claim(&numbers, &owner, WallTime::from_millis(u64::MAX / 2), LEASE).expect("few");
        assert!(consumer.encode().len() < MAX_RECORD);
        assert_eq!(Consumer::decode(consumer.encode()), Some(consumer));
    }

    #[test]
    fn what_is_pruned_is_skipped_and_counted() {
        let mut consumer = Consumer::new(2, at(0));
        assert_eq!(consumer.ack(&[5, 8], &None, 20), Ok(vec![5, 8]));
        assert_eq!(consumer.skip_to(7), 4, "3, 4, 6 and 7");
        assert_eq!(consumer.cursor(), 8);
        assert_eq!(consumer.skip_to(7), 0);
        consumer.seek(1, 20);
        assert!(consumer.wants(2, at(0)), "a replay");
        assert_eq!(consumer.ack_through(9, 20), 1);
        assert_eq!(consumer.cursor(), 9);
    }

    #[test]
    fn marks_are_bounded() {
        let mut consumer = Consumer::new(0, at(0));
        let last = MAX_CLAIMS as u64 + 2;
        let numbers: Vec<u64> = (2..=last).collect();
        assert_eq!(
            consumer.claim(&numbers, &None, at(0), LEASE),
            Err(ConsumerError::TooManyClaims)
        );
        assert_eq!(consumer.ack(&numbers, &None, last), Err(ConsumerError::TooManyClaims));
        assert_eq!(consumer.acked_beyond(), 0);
        let all: Vec<u64> = (1..=last).collect();
        assert_eq!(consumer.ack(&all, &None, last).map(|acked| acked.len() as u64), Ok(last));
        assert_eq!(consumer.cursor(), last);
    }

    proptest! {
        #[test]
        fn each_message_is_acknowledged_once_and_records_come_back(
            ops in prop::collection::vec((0_u8..5, 1_u64..40), 1..200)
        ) {
            let mut consumer = Consumer::new(0, at(0));
            let mut acked = std::collections::BTreeSet::new();
            for (now, (op, number)) in (0..).zip(ops) {
                match op {
                    0 => {
                        for claim in consumer.claim(&[number], &None, at(now), LEASE).expect("few") {
                            prop_assert!(!acked.contains(&claim.number));
                        }
                    }
                    1 => {
                        for number in consumer.ack(&[number], &None, 40).expect("few") {
                            prop_assert!(acked.insert(number));
                        }
                    }
                    2 => consumer.release(&[number], &None),
                    3 => {
                        let before = consumer.ack_through(number.min(10), 40);
                        acked.extend(before + 1..=number.min(10));
                    }
                    _ => {
                        let copy = Consumer::decode(consumer.encode());
                        prop_assert_eq!(copy.as_ref(), Some(&consumer));
                    }
                }
                for number in 1..=40 {
                    prop_assert!(!(acked.contains(&number) && consumer.wants(number, at(9999))));
                    prop_assert!(acked.contains(&number) || consumer.wants(number, at(9999)));
                }
            }
        }
    }
}
