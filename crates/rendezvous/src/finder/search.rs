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
    wire::Stamp,
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
/// Machines named by one peer that a path turns to before one of them was reached, and of which so many must
/// not fail unless half as many can be reached: whoever invents machines must not keep a search busy.
const PER_NAMER: usize = 2;
/// Peers remembered that named a candidate.
const MAX_NAMERS: usize = 4;

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
    /// Who named it in this search, the first few; nobody if this node knew it.
    by: Vec<MachineId>,
    /// Where it may be; when it was dialled, so many of these were tried.
    addresses: Vec<SocketAddr>,
    tried: Option<usize>,
}

impl Candidate {
    /// The networks of all its addresses: one of them may answer while another is invented.
    fn sites(&self) -> BTreeSet<Site> {
        self.addresses.iter().copied().filter_map(site_of).collect()
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
            let untried = self.tried.is_some_and(|tried| tried < self.addresses.len());
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
    /// Links that were asked to ask on, with how many answers each may still bring.
    pub(super) walked: BTreeMap<MachineId, u8>,
    /// When it is to be looked at again.
    pub(super) next: Tick,
    /// It would dial, and all dials are taken.
    pub(super) starved: bool,
    candidates: BTreeMap<Distance, Candidate>,
}

/// A caller that waits for the searches of its subject, one for each day.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) subject: Subject,
    /// Records no newer do not count.
    pub(super) after: Option<Stamp>,
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
        let (walked, candidates) = (BTreeMap::new(), BTreeMap::new());
        let (next, starved) = (begun, false);
        Self { subject, day, key, purpose, begun, until, walked, next, starved, candidates }
    }

    /// Those that this node knows, nearest first.
    pub(super) fn seed(&mut self, seeds: impl Iterator<Item = (MachineId, Vec<SocketAddr>)>) {
        for (n, (peer, addresses)) in seeds.enumerate() {
            self.add(peer, n % PATHS, Vec::new(), addresses);
        }
    }

    /// One that a candidate names.
    pub(super) fn named(&mut self, peer: MachineId, by: MachineId, addresses: Vec<SocketAddr>) {
        let Some(path) = self.get(by).map(|namer| namer.path) else { return };
        match self.candidates.get_mut(&self.key.distance(&peer)) {
            Some(known) => {
                known.learn(&addresses);
                let known_here = known.by.is_empty();
                if !known_here && known.by.len() < MAX_NAMERS && !known.by.contains(&by) {
                    known.by.push(by);
                    // It is believed as long as one of those who named it is.
                    if known.progress == Progress::Disbelieved {
                        known.progress = Progress::New;
                    }
                }
            }
            None => self.add(peer, path, vec![by], addresses),
        }
    }

    fn add(
        &mut self,
        peer: MachineId,
        path: usize,
        by: Vec<MachineId>,
        addresses: Vec<SocketAddr>,
    ) {
        let fresh = Candidate { peer, path, progress: Progress::New, by, addresses, tried: None };
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
        known.progress = Progress::Dialling(until);
        known.tried = Some(known.addresses.len());
        Some(&known.addresses)
    }

    /// Waits for a dial that another search began, at these addresses.
    pub(super) fn join(&mut self, peer: MachineId, until: Tick, dialled: &[SocketAddr]) {
        if let Some(known) = self.candidates.get_mut(&self.key.distance(&peer)) {
            known.addresses.sort_by_key(|address| !dialled.contains(address));
            let tried = known.addresses.iter().filter(|address| dialled.contains(address)).count();
            (known.progress, known.tried) = (Progress::Dialling(until), Some(tried));
        }
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
            for by in &candidate.by {
                let (failed, reached) = tried.entry(*by).or_default();
                match candidate.progress {
                    Progress::Failed | Progress::Disbelieved => *failed += 1,
                    Progress::Answered { .. } | Progress::Asked(_) => *reached += 1,
                    _ => {}
                }
            }
        }
        tried.retain(|_, (failed, reached)| *failed >= PER_NAMER && *failed > *reached * 2);
        for candidate in self.candidates.values_mut() {
            let blamed =
                !candidate.by.is_empty() && candidate.by.iter().all(|by| tried.contains_key(by));
            if blamed && candidate.progress == Progress::New {
                candidate.progress = Progress::Disbelieved;
            }
        }
    }

    /// How many more machines that were not reached yet each namer may put before others: a few, and one
    /// more for each that was reached. So what a liar invents does not fill the places of what there is.
    fn credit(&self) -> BTreeMap<MachineId, usize> {
        let mut credit: BTreeMap<MachineId, (usize, usize)> = BTreeMap::new();
        for candidate in self.candidates.values() {
            for by in &candidate.by {
                let (open, reached) = credit.entry(*by).or_default();
                match candidate.progress {
                    Progress::Dialling(_) => *open += 1,
                    Progress::Answered { .. } | Progress::Asked(_) => *reached += 1,
                    _ => {}
                }
            }
        }
        let left = |(open, reached): (usize, usize)| (PER_NAMER + reached).saturating_sub(open);
        credit.into_iter().map(|(by, counts)| (by, left(counts))).collect()
    }

    /// Whom to turn to now: the nearest of the path on which the fewest are waited for.
    pub(super) fn fresh(&self, now: Tick, config: &FinderConfig) -> Option<MachineId> {
        let mut busy = [0; PATHS];
        for candidate in self.candidates.values() {
            if candidate.progress.holds_up(now, config).is_some() {
                busy[candidate.path] += 1;
            }
        }
        if busy.iter().sum::<usize>() >= PARALLEL {
            return None;
        }
        let mut credit = self.credit();
        let mut next = |path| {
            let front = self.front(path, &mut credit);
            front.into_iter().find(|known| known.progress == Progress::New)
        };
        let nexts: Vec<_> = (0..PATHS).filter_map(|path| Some((path, next(path)?))).collect();
        let least = nexts.into_iter().min_by_key(|(path, _)| busy[*path]);
        least.map(|(_, known)| known.peer)
    }

    /// The nearest candidates of a path that may still matter.
    fn front(&self, path: usize, credit: &mut BTreeMap<MachineId, usize>) -> Vec<&Candidate> {
        let file = !self.is_find();
        let mut credited = |known: &Candidate| {
            let namer = known.by.iter().find(|by| credit.get(by).is_some_and(|left| *left > 0));
            let left = namer.and_then(|by| credit.get_mut(by));
            left.map(|left| *left -= 1).is_some() || known.by.is_empty()
        };
        let matters = |known: &&Candidate| match known.progress {
            Progress::Failed | Progress::Disbelieved | Progress::Silent => false,
            Progress::Answered { holds, .. } => holds || !file,
            Progress::New => credited(known),
            Progress::Dialling(_) | Progress::Asked(_) => true,
        };
        let of_path = self.candidates.values().filter(|known| known.path == path);
        spread_out(of_path.filter(matters), if file { FILE_FRONT } else { FRONT })
    }

    pub(super) const fn is_find(&self) -> bool {
        matches!(self.purpose, Purpose::Find(_))
    }

    /// How many machines it waits for that are being dialled.
    pub(super) fn dialling(&self) -> usize {
        let dials = |known: &&Candidate| matches!(known.progress, Progress::Dialling(_));
        self.candidates.values().filter(dials).count()
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
        let mut credit = self.credit();
        let open = |known: &Candidate| {
            matches!(known.progress, Progress::New | Progress::Dialling(_) | Progress::Asked(_))
        };
        !(0..PATHS).any(|path| self.front(path, &mut credit).into_iter().any(open))
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
        let of_known = known.sites();
        if of_known.iter().any(|site| sites.get(site) >= Some(&PER_SITE)) {
            crowded.push(known);
        } else {
            of_known.into_iter().for_each(|site| *sites.entry(site).or_default() += 1);
            chosen.push(known);
        }
    }
    let room = count - chosen.len();
    chosen.extend(crowded.into_iter().take(room));
    chosen
}
