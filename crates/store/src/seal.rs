//! A checksum in each row. SQLite has none of its own, and a flipped bit in a head would cost
//! messages that no signature check could miss.

/// Key of the hash, so that a seal is no other hash of this project.
const KEY: [u8; 32] = *b"x0x/store/row/1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// The seal of a row: its table, its numbers and its bytes, the latter of fixed length but the last.
pub(crate) fn seal(table: u8, numbers: &[i64], bytes: &[&[u8]]) -> i64 {
    let mut hasher = blake3::Hasher::new_keyed(&KEY);
    hasher.update(&[table]);
    for number in numbers {
        hasher.update(&number.to_be_bytes());
    }
    for part in bytes {
        hasher.update(part);
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    i64::from_be_bytes(first)
}

/// The seal of a topic's row.
pub(crate) fn topic_seal(topic: &[u8], incarnation: i64, end: i64) -> i64 {
    seal(b't', &[incarnation, end], &[topic])
}

/// The seal of a topic's mark of what went.
pub(crate) fn gone_seal(topic: i64, position: i64) -> i64 {
    seal(b'g', &[topic, position], &[])
}

/// The row of a run, without its data.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunRow {
    pub(crate) position: i64,
    pub(crate) entries: i64,
    pub(crate) missed: i64,
    pub(crate) begins: bool,
    pub(crate) time: i64,
}

impl RunRow {
    pub(crate) fn seal(&self, topic: &[u8], author: &[u8], data: &[u8]) -> i64 {
        let numbers = [self.position, self.entries, self.missed, i64::from(self.begins), self.time];
        seal(b'r', &numbers, &[topic, author, data])
    }
}

/// The row of a chain's head.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChainRow {
    pub(crate) epoch: i64,
    pub(crate) head: i64,
    pub(crate) hash: [u8; 32],
    pub(crate) time: i64,
}

impl ChainRow {
    pub(crate) fn seal(&self, topic: &[u8], author: &[u8]) -> i64 {
        seal(b'c', &[self.epoch, self.head, self.time], &[topic, author, &self.hash])
    }
}
