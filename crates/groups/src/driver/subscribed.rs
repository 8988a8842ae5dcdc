//! Which shards of cards are read, as it is stored beside the groups: an entry each.

use x0x_core::WallTime;
use x0x_mls::{Change, Entry, Space};
use zeroize::Zeroizing;

use crate::directory::{SHARDS, ShardKind, Subscribed};

/// Begins the keys of these entries; those of groups are longer.
const MARK: &[u8] = b"cards";

const fn number(kind: ShardKind) -> u8 {
    match kind {
        ShardKind::Tag => 1,
        ShardKind::Name => 2,
        ShardKind::Id => 3,
    }
}

fn key(kind: ShardKind, shard: u32) -> Vec<u8> {
    [MARK, &[number(kind)], &shard.to_be_bytes()].concat()
}

pub(crate) fn put(subscribed: &Subscribed) -> Change {
    let since = subscribed.since.as_millis().to_be_bytes();
    let looked_for = subscribed.key.as_deref().unwrap_or_default();
    let value = Zeroizing::new([&since, looked_for.as_bytes()].concat());
    let key = key(subscribed.kind, subscribed.shard);
    Change::Put(Space::Named, Entry { key, chunk: 0, value })
}

pub(crate) fn cut(kind: ShardKind, shard: u32) -> Change {
    Change::Cut(Space::Named, key(kind, shard), 0)
}

/// What an entry says; none when it is another one, or no good.
pub(super) fn read(entry: &Entry) -> Option<Subscribed> {
    let (kind, shard) = entry.key.strip_prefix(MARK)?.split_first()?;
    let kinds = [ShardKind::Tag, ShardKind::Name, ShardKind::Id];
    let kind = kinds.into_iter().find(|known| number(*known) == *kind)?;
    let shard = u32::from_be_bytes(shard.try_into().ok()?);
    let (since, looked_for) = entry.value.split_first_chunk()?;
    let looked_for = std::str::from_utf8(looked_for).ok()?;
    (shard < SHARDS).then(|| Subscribed {
        kind,
        shard,
        key: (!looked_for.is_empty()).then(|| looked_for.to_owned()),
        since: WallTime::from_millis(u64::from_be_bytes(*since)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_read_as_it_was_written() {
        let since = WallTime::from_millis(1_700_000_000_000);
        for (kind, key) in
            [(ShardKind::Tag, Some("birds")), (ShardKind::Name, None), (ShardKind::Id, Some("ü"))]
        {
            let shard = kind.shard(key.unwrap_or("x"));
            let subscribed = Subscribed { kind, shard, key: key.map(str::to_owned), since };
            let Change::Put(Space::Named, entry) = put(&subscribed) else { panic!("a put") };
            assert_eq!(read(&entry), Some(subscribed));
            assert_eq!(cut(kind, shard), Change::Cut(Space::Named, entry.key.clone(), 0));
        }
    }

    #[test]
    fn other_entries_are_no_subscriptions() {
        let entry = |key: &[u8], value: &[u8]| Entry {
            key: key.to_vec(),
            chunk: 0,
            value: Zeroizing::new(value.to_vec()),
        };
        let since = [0; 8];
        for bad in [
            entry(&[7; 36], &since),
            entry(b"cards", &since),
            entry(b"cards\x04\0\0\0\0", &since),
            entry(b"cards\x01\0\0\0", &since),
            entry(b"cards\x01\0\x01\0\0", &since),
            entry(b"cards\x01\0\0\0\0", &since[1..]),
            entry(b"cards\x01\0\0\0\0", b"\0\0\0\0\0\0\0\0\xff"),
        ] {
            assert_eq!(read(&bad), None, "{bad:?}");
        }
    }
}
