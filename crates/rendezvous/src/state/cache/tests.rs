//! The cache keeps the newest of each agent, and no more than it may.

use proptest::prelude::*;

use super::*;

const TTL: Duration = Duration::from_secs(900);
const START: u64 = 1_800_000_000_000;

fn wall(secs: u64) -> WallTime {
    WallTime::from_millis(START + secs * 1000)
}

fn tick(secs: u64) -> Tick {
    Tick::from_millis(secs * 1000)
}

fn agent(n: u8) -> AgentId {
    AgentId::new([n; 32])
}

fn machine(n: u8) -> MachineId {
    MachineId::new([n; 32])
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

fn news(n: u8, on: u8, announced_at: WallTime, counter: u64) -> Announcement {
    Announcement {
        agent: agent(n),
        machine: machine(on),
        user: None,
        addresses: vec![address(1)],
        stamp: Stamp { announced_at, counter },
    }
}

#[test]
fn stamps_only_move_forward() {
    let mut cache = DiscoveryCache::new(TTL);
    let mut take =
        |secs, counter| cache.announced(tick(50), wall(50), news(1, 1, wall(secs), counter));
    assert_eq!(take(10, 5), Outcome::Kept);
    assert_eq!(take(10, 5), Outcome::Replay, "the same again");
    assert_eq!(take(10, 4), Outcome::Replay, "an older counter");
    assert_eq!(take(10, 6), Outcome::Kept, "the next of the same time");
    assert_eq!(take(20, 1), Outcome::Kept, "after a restart");
    assert_eq!(take(10, 7), Outcome::Replay, "from before the restart");
    assert!(!cache.is_news(&agent(1), Stamp { announced_at: wall(20), counter: 1 }));
    assert!(cache.is_news(&agent(2), Stamp::default()));
}

#[test]
fn whoever_is_forgotten_leaves_no_trace() {
    let mut cache = DiscoveryCache::with_capacity(TTL, 4);
    cache.announced(tick(0), wall(0), news(1, 1, wall(0), 1));
    cache.met(tick(0), wall(0), agent(2), machine(2), vec![]);
    for n in [1, 2, 3] {
        cache.forget(&agent(n));
    }
    assert!(cache.is_empty() && cache.agent(&agent(1)).is_none());
    assert_eq!((cache.by_rank.len(), cache.proven), (0, 0));
    assert_eq!(cache.announced(tick(9), wall(9), news(1, 2, wall(9), 2)), Outcome::Kept);
}

#[test]
fn presence_ends_and_knowledge_stays() {
    let mut cache = DiscoveryCache::new(TTL);
    cache.announced(tick(0), wall(0), news(2, 1, wall(0), 1));
    cache.announced(tick(0), wall(0), news(1, 1, wall(0), 1));
    let ids = |list: Vec<DiscoveredAgent>| list.iter().map(|a| a.agent).collect::<Vec<_>>();
    assert_eq!(ids(cache.agents(tick(899), false)), [agent(1), agent(2)]);
    cache.announced(tick(899), wall(899), news(2, 1, wall(899), 2));
    assert_eq!(ids(cache.agents(tick(900), false)), [agent(2)]);
    assert_eq!(ids(cache.agents(tick(9000), true)), [agent(1), agent(2)]);
    assert_eq!(cache.agent(&agent(1)).expect("known").last_seen, wall(0));
}

#[test]
fn an_announcement_counts_from_when_it_was_made() {
    let mut cache = DiscoveryCache::new(TTL);
    // Retained for an hour, retained for ten minutes, and from a clock ahead of ours.
    cache.announced(tick(0), wall(3600), news(1, 1, wall(0), 1));
    cache.announced(tick(0), wall(3600), news(2, 1, wall(3000), 1));
    cache.announced(tick(0), wall(3600), news(3, 1, wall(3800), 1));
    let present = |secs| cache.agents(tick(secs), false).len();
    assert_eq!(
        (present(0), present(299), present(300), present(899), present(900)),
        (2, 2, 1, 1, 0)
    );
    assert_eq!(
        cache.agent(&agent(3)).expect("known").last_seen,
        wall(3600),
        "never later than now"
    );
}

#[test]
fn a_session_proves_presence() {
    let mut cache = DiscoveryCache::new(TTL);
    cache.met(tick(0), wall(100), agent(1), machine(1), vec![address(1)]);
    let known = cache.agent(&agent(1)).expect("known").clone();
    assert_eq!(
        (known.machine, known.announced_at, known.last_seen),
        (machine(1), wall(100), wall(100))
    );

    // Met on another machine since: an announcement from before does not move it back.
    cache.met(tick(10), wall(110), agent(1), machine(2), vec![]);
    assert!(cache.agent(&agent(1)).expect("known").addresses.is_empty(), "it moved");
    assert_eq!(cache.announced(tick(11), wall(111), news(1, 1, wall(105), 1)), Outcome::Kept);
    let known = cache.agent(&agent(1)).expect("known").clone();
    assert_eq!((known.machine, known.announced_at), (machine(2), wall(105)));
    assert!(known.addresses.is_empty());

    // A later one does.
    cache.announced(tick(20), wall(120), news(1, 3, wall(115), 2));
    assert_eq!(cache.agent(&agent(1)).expect("known").machine, machine(3));
    assert_eq!(cache.agents(tick(909), false).len(), 1);

    // Neither a session nor an announcement without addresses forgets those of the same machine.
    cache.met(tick(30), wall(130), agent(1), machine(3), vec![]);
    let silent = Announcement { addresses: vec![], ..news(1, 3, wall(140), 3) };
    cache.announced(tick(40), wall(140), silent);
    assert_eq!(cache.agent(&agent(1)).expect("known").addresses, [address(1)]);
}

#[test]
fn a_full_cache_forgets_who_was_seen_longest_ago() {
    let mut cache = DiscoveryCache::with_capacity(TTL, 3);
    for n in 1..=3 {
        cache.announced(tick(0), wall(10), news(n, 1, wall(u64::from(n)), 1));
    }
    cache.met(tick(5), wall(15), agent(1), machine(1), vec![]);
    assert_eq!(cache.announced(tick(6), wall(16), news(4, 1, wall(16), 1)), Outcome::Kept);
    assert!(cache.agent(&agent(2)).is_none() && cache.agent(&agent(1)).is_some());
    assert_eq!((cache.len(), cache.evicted()), (3, 1));
    assert_eq!(cache.announced(tick(7), wall(17), news(5, 1, wall(2), 1)), Outcome::Full);
    assert_eq!((cache.len(), cache.evicted(), cache.is_empty()), (3, 1, false));
}

#[test]
fn a_flood_of_announcements_displaces_nobody_who_was_met() {
    let mut cache = DiscoveryCache::with_capacity(TTL, 8);
    for n in 1..=4 {
        cache.met(tick(0), wall(0), agent(n), machine(1), vec![address(1)]);
    }
    for n in 100..200 {
        let later = 10 + u64::from(n);
        let outcome = cache.announced(tick(later), wall(later), news(n, 1, wall(later), 1));
        assert_eq!(outcome, Outcome::Kept);
    }
    assert!((1..=4).all(|n| cache.agent(&agent(n)).is_some()));
    assert_eq!((cache.len(), cache.evicted()), (8, 96));
}

#[test]
fn a_flood_of_sessions_leaves_room_for_announcements() {
    let mut cache = DiscoveryCache::with_capacity(TTL, 8);
    for n in 100..200 {
        cache.met(tick(0), wall(u64::from(n)), agent(n), machine(1), vec![]);
    }
    for n in 1..=2 {
        assert_eq!(cache.announced(tick(0), wall(300), news(n, 1, wall(300), 1)), Outcome::Kept);
    }
    let met = (100..200).filter(|n| cache.agent(&agent(*n)).is_some()).collect::<Vec<_>>();
    assert_eq!(met, [194, 195, 196, 197, 198, 199], "those met last");
    assert_eq!(cache.len(), 8);
}

proptest! {
    #[test]
    fn indexes_agree_and_bounds_hold(
        steps in prop::collection::vec((0_u8..12, 0_u8..3, 0_u64..2000, 0_u64..4, any::<bool>()), 1..200),
    ) {
        let mut cache = DiscoveryCache::with_capacity(TTL, 5);
        let mut stamps = BTreeMap::new();
        let mut now = 2000;
        for (n, on, ago, counter, session) in steps {
            now += 1;
            let before = cache.agent(&agent(n)).cloned();
            if session {
                cache.met(tick(now), wall(now), agent(n), machine(on), vec![]);
            } else {
                let news = news(n, on, wall(now - ago), counter);
                let stamp = news.stamp;
                if cache.announced(tick(now), wall(now), news) == Outcome::Kept && before.is_some() {
                    let last = stamps.insert(n, stamp);
                    prop_assert!(last.is_none_or(|last| stamp > last));
                }
            }
            if cache.agent(&agent(n)).is_none() {
                stamps.remove(&n);
            }
            stamps.retain(|n, _| cache.agent(&agent(*n)).is_some());
            if let (Some(before), Some(after)) = (before, cache.agent(&agent(n))) {
                prop_assert!(after.last_seen >= before.last_seen);
            }
            prop_assert!(cache.len() <= 5);
            let ranks: BTreeSet<_> = cache.entries.values().map(Entry::rank).collect();
            prop_assert_eq!(&cache.by_rank, &ranks);
            prop_assert_eq!(cache.proven, ranks.iter().filter(|rank| rank.0).count());
            prop_assert!(cache.proven <= 3);
        }
    }
}
