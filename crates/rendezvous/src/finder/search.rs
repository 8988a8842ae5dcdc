//! One climb towards those who suit a key: who was named, what became of them, and who is next.
//!
//! The candidates that a search begins with are dealt out to a few paths, and whoever is named belongs to
//! the path of its first namer. So a machine that answers with lies steers the path that it is on, and no
//! other (I. Baumgart, S. Mies, *S/Kademlia*, ICPADS 2007, §4.4: lookups over disjoint paths).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, Tick};

use super::volunteers::{MAX_KEPT, Site, site_of};
use crate::{
    config::{COPIES, FinderConfig},
    frame::Referral,
    key::{Distance, LookupKey, Subject},
};

/// Paths of a search.
const PATHS: usize = 3;
/// Holders asked or dialled at once, on all paths together.
pub(super) const PARALLEL: usize = 6;
/// The nearest candidates of a path that a search asks; it is over when all of them have answered.
const FRONT: usize = 8;
/// The same when holders for a record are looked for, which is done often and without hurry.
const FILE_FRONT: usize = 5;
/// Candidates of a path remembered, the nearest ones.
const MAX_CANDIDATES: usize = 48;
/// Candidates that a search begins with.
pub(super) const SEEDS: usize = 24;
/// Candidates of one public network that a path turns to as long as there are others: its owner can have
/// any number of ids.
const PER_SITE: usize = 2;
/// Candidates named by one peer that are dialled at once, and of which so many must not fail unless half
/// as many can be reached:
/// whoever invents machines must not keep a search busy.
const PER_NAMER: usize = 2;

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    New,
    Dialling(Tick),
    Asked(Tick),
    /// It did not answer in time; it may still.
    Silent,
    Answered {
        holds: bool,
        /// It had the record that is about to be replaced.
        had: bool,
    },
    /// It could not be reached, or its session ended.
    Failed,
    /// Not tried, for whoever named it is not believed.
    Disbelieved,
}

impl Progress {
    /// How much longer others wait for this candidate: for the first half of the time that it has. Many
    /// are gone wherever machines come and go, and a search must not stand still for each.
    pub(super) fn holds_up(self, now: Tick, config: &FinderConfig) -> Option<Duration> {
        let (until, time) = match self {
            Self::Dialling(until) => (until, config.dial_timeout),
            Self::Asked(until) => (until, config.ask_timeout),
            _ => return None,
        };
        until.since(now).checked_sub(time / 2).filter(|left| !left.is_zero())
    }

    const fn deadline(self) -> Option<Tick> {
        match self {
            Self::Dialling(until) | Self::Asked(until) => Some(until),
            _ => None,
        }
    }
}

/// A machine that may hold the record.
#[derive(Debug)]
struct Candidate {
    peer: MachineId,
    path: usize,
    progress: Progress,
    /// Who named it in this search; none if this node knew it.
    by: Option<MachineId>,
    /// Where it may be; of these so many were tried.
    addresses: Vec<SocketAddr>,
    tried: usize,
}

impl Candidate {
    fn site(&self) -> Option<Site> {
        self.addresses.first().copied().and_then(site_of)
    }

    /// Adds addresses that somebody else names; a failure with others says nothing of them.
    fn learn(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            if self.addresses.len() < MAX_KEPT && !self.addresses.contains(address) {
                self.addresses.push(*address);
            }
        }
        self.fail_if(self.progress == Progress::Failed);
    }

    fn fail_if(&mut self, failed: bool) {
        if failed {
            let untried = self.tried > 0 && self.tried < self.addresses.len();
            self.progress = if untried { Progress::New } else { Progress::Failed };
        }
    }
}

/// What a search is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A record, for a caller with this ticket.
    Find(u64),
    /// Those who shall hold one.
    File,
    /// To know those near the local id, and to be known to them.
    Settle,
}

/// What a peer answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) sealed: Vec<Bytes>,
    pub(super) referrals: Vec<Referral>,
    pub(super) holds: bool,
}

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Search {
    pub(super) subject: Subject,
    pub(super) day: u64,
    pub(super) key: LookupKey,
    pub(super) purpose: Purpose,
    pub(super) begun: Tick,
    pub(super) until: Tick,
    /// Links that were asked to ask on.
    pub(super) walked: Vec<MachineId>,
    /// When it is to be looked at again.
    pub(super) next: Tick,
    candidates: BTreeMap<Distance, Candidate>,
}

/// A caller that waits for the searches of its subject, one for each day.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) subject: Subject,
    pub(super) searches: BTreeSet<u64>,
    pub(super) found: BTreeSet<(AgentId, MachineId)>,
}

impl Search {
    pub(super) fn new(
        subject: Subject,
        day: u64,
        key: LookupKey,
        purpose: Purpose,
        begun: Tick,
        until: Tick,
    ) -> Self {
        let (walked, candidates) = (Vec::new(), BTreeMap::new());
        Self { subject, day, key, purpose, begun, until, walked, next: begun, candidates }
    }

    /// Those that this node knows, nearest first.
    pub(super) fn seed(&mut self, seeds: impl Iterator<Item = (MachineId, Vec<SocketAddr>)>) {
        for (n, (peer, addresses)) in seeds.enumerate() {
            self.add(peer, n % PATHS, None, addresses);
        }
    }

    /// One that a candidate names.
    pub(super) fn named(&mut self, peer: MachineId, by: MachineId, addresses: Vec<SocketAddr>) {
        let Some(path) = self.get(by).map(|namer| namer.path) else { return };
        match self.candidates.get_mut(&self.key.distance(&peer)) {
            Some(known) => {
                known.learn(&addresses);
                // Two say so: neither is to blame.
                if known.by != Some(by) {
                    known.by = None;
                }
            }
            None => self.add(peer, path, Some(by), addresses),
        }
    }

    fn add(
        &mut self,
        peer: MachineId,
        path: usize,
        by: Option<MachineId>,
        addresses: Vec<SocketAddr>,
    ) {
        let fresh = Candidate { peer, path, progress: Progress::New, by, addresses, tried: 0 };
        self.candidates.insert(self.key.distance(&peer), fresh);
        let of_path = |(_, known): &(&Distance, &Candidate)| known.path == path;
        if self.candidates.iter().filter(of_path).count() > MAX_CANDIDATES
            && let Some(last) = self.candidates.iter().rfind(of_path).map(|(at, _)| *at)
        {
            self.candidates.remove(&last);
        }
    }

    fn get(&self, peer: MachineId) -> Option<&Candidate> {
        self.candidates.get(&self.key.distance(&peer))
    }

    pub(super) fn progress(&self, peer: MachineId) -> Option<Progress> {
        self.get(peer).map(|candidate| candidate.progress)
    }

    pub(super) fn set(&mut self, peer: MachineId, progress: Progress) {
        if let Some(known) = self.candidates.get_mut(&self.key.distance(&peer)) {
            known.progress = progress;
        }
    }

    /// It cannot be reached where it was looked for.
    pub(super) fn failed(&mut self, peer: MachineId) {
        if let Some(known) = self.candidates.get_mut(&self.key.distance(&peer)) {
            known.fail_if(true);
        }
    }

    /// Where to dial a candidate, from now until then.
    pub(super) fn dial(&mut self, peer: MachineId, until: Tick) -> Option<&[SocketAddr]> {
        let known = self.candidates.get_mut(&self.key.distance(&peer))?;
        if known.addresses.is_empty() {
            known.progress = Progress::Failed;
            return None;
        }
        (known.progress, known.tried) = (Progress::Dialling(until), known.addresses.len());
        Some(&known.addresses)
    }

    pub(super) fn expire(&mut self, now: Tick) {
        for candidate in self.candidates.values_mut() {
            match candidate.progress {
                Progress::Dialling(until) if until <= now => candidate.fail_if(true),
                Progress::Asked(until) if until <= now => candidate.progress = Progress::Silent,
                _ => {}
            }
        }
        // Who named several that cannot be reached, and few that can, is not believed further. Machines
        // come and go, so that everybody names some that are gone.
        let mut tried: BTreeMap<MachineId, (usize, usize)> = BTreeMap::new();
        for candidate in self.candidates.values() {
            let Some(by) = candidate.by else { continue };
            let (failed, reached) = tried.entry(by).or_default();
            match candidate.progress {
                Progress::Failed | Progress::Disbelieved => *failed += 1,
                Progress::Answered { .. } | Progress::Asked(_) => *reached += 1,
                _ => {}
            }
        }
        tried.retain(|_, (failed, reached)| *failed >= PER_NAMER && *failed > *reached * 2);
        for candidate in self.candidates.values_mut() {
            let blamed = candidate.by.is_some_and(|by| tried.contains_key(&by));
            if blamed && candidate.progress == Progress::New {
                candidate.progress = Progress::Disbelieved;
            }
        }
    }

    /// Whom to turn to now: the nearest of the path on which the fewest are waited for.
    pub(super) fn fresh(&self, now: Tick, config: &FinderConfig) -> Option<MachineId> {
        let mut busy = [0; PATHS];
        let mut dialled: BTreeMap<MachineId, usize> = BTreeMap::new();
        for candidate in self.candidates.values() {
            if candidate.progress.holds_up(now, config).is_none() {
                continue;
            }
            busy[candidate.path] += 1;
            if let (Progress::Dialling(_), Some(by)) = (candidate.progress, candidate.by) {
                *dialled.entry(by).or_default() += 1;
            }
        }
        if busy.iter().sum::<usize>() >= PARALLEL {
            return None;
        }
        let waits =
            |known: &Candidate| known.by.is_some_and(|by| dialled.get(&by) >= Some(&PER_NAMER));
        let next = |path| {
            let mut front = self.front(path).into_iter();
            front.find(|known| known.progress == Progress::New && !waits(known))
        };
        let nexts = (0..PATHS).filter_map(|path| Some((path, next(path)?)));
        nexts.min_by_key(|(path, _)| busy[*path]).map(|(_, known)| known.peer)
    }

    /// The nearest candidates of a path that may still matter.
    fn front(&self, path: usize) -> Vec<&Candidate> {
        let file = self.purpose == Purpose::File;
        let matters = |known: &&Candidate| match known.progress {
            Progress::Failed | Progress::Disbelieved | Progress::Silent => false,
            Progress::Answered { holds, .. } => holds || !file,
            _ => true,
        };
        let of_path = self.candidates.values().filter(|known| known.path == path);
        let count = if self.file_like() { FILE_FRONT } else { FRONT };
        spread_out(of_path.filter(matters), count)
    }

    const fn file_like(&self) -> bool {
        !matches!(self.purpose, Purpose::Find(_))
    }

    /// The nearest that answered and hold records, of all paths.
    pub(super) fn holders(&self) -> Vec<MachineId> {
        let holds =
            |known: &&Candidate| matches!(known.progress, Progress::Answered { holds: true, .. });
        let holders = spread_out(self.candidates.values().filter(holds), COPIES);
        holders.into_iter().map(|known| known.peer).collect()
    }

    /// How many answered, and how many of them had the record before.
    pub(super) fn answers(&self) -> (usize, usize) {
        self.candidates.values().fold((0, 0), |(all, with), known| match known.progress {
            Progress::Answered { had, .. } => (all + 1, with + usize::from(had)),
            _ => (all, with),
        })
    }

    /// Everybody who matters has been asked, and has answered or been given up.
    pub(super) fn is_exhausted(&self) -> bool {
        let open = |known: &Candidate| {
            matches!(known.progress, Progress::New | Progress::Dialling(_) | Progress::Asked(_))
        };
        !(0..PATHS).any(|path| self.front(path).into_iter().any(open))
    }

    /// When something that a candidate has time for is over, or holds up others no more.
    pub(super) fn next_deadline(&self, now: Tick, config: &FinderConfig) -> Option<Tick> {
        let all = || self.candidates.values().map(|known| known.progress);
        let deadlines = all().filter_map(Progress::deadline);
        let slow = all().filter_map(|progress| progress.holds_up(now, config));
        deadlines.chain(slow.map(|left| now + left)).min()
    }
}

/// The first so many, of one network only a few as long as there are others.
fn spread_out<'a>(
    nearest: impl Iterator<Item = &'a Candidate>,
    count: usize,
) -> Vec<&'a Candidate> {
    let mut sites: BTreeMap<Site, usize> = BTreeMap::new();
    let (mut chosen, mut crowded) = (Vec::with_capacity(count), Vec::new());
    for known in nearest {
        if chosen.len() >= count {
            break;
        }
        let there = known.site().map(|site| sites.entry(site).or_default());
        match there {
            Some(there) if *there >= PER_SITE => crowded.push(known),
            Some(there) => {
                *there += 1;
                chosen.push(known);
            }
            None => chosen.push(known),
        }
    }
    let room = count - chosen.len();
    chosen.extend(crowded.into_iter().take(room));
    chosen
}
