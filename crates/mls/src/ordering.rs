//! Which commits stand: one answer for every member, in whatever order they arrive.
//!
//! A commit is made in one state of the group (its *parent*) and leads to another. Two members that
//! commit in the same state make a fork. The rule: **of the commits of one state that verify, those
//! that remove somebody come first, then the smaller id stands; and a commit whose author is removed
//! by a rival that stands never takes its place** (`rivals.rs` says it exactly). What was built on
//! another falls with it. The rule looks at nothing but the set of commits, so that all who have the
//! same set have the same chain.
//!
//! A member that stands on a loser goes back, as long as it still has the state of the fork: the last
//! [`MAX_STATES`]. Beyond, it cannot; then the longer chain stands (of two as long, the one whose last
//! commit has the smaller id), and who stands on the other learns from [`Ordering::standing`] that it
//! has to join again.
//!
//! This is a pure machine: it is told of commits ([`offer`](Ordering::offer)) and of what became of
//! those that it asked to be tried ([`try_next`](Ordering::try_next)).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

mod rivals;
#[cfg(test)]
mod tests;

pub use rivals::{Facts, RANK_LAST, RANK_OTHER};
use rivals::{Key, Rival, dispensable, winner};

/// The id of a state: a hash that commits to the group, its epoch, members and history.
pub type StateId = [u8; 32];
/// The id of a commit: the hash of its message.
pub type CommitId = [u8; 32];

/// States of the chain: the current one and those that it can go back to.
pub const MAX_STATES: usize = 6;
/// Commits that are remembered while their parent is unknown; the oldest epoch goes first.
pub const MAX_WAITING: usize = 256;
/// Commits of a kept state that are remembered untried, and as many that verified; of those the last
/// goes first, of these one that fell.
pub const MAX_RIVALS: usize = 64;
/// States that are remembered as lost, so that what was built on them is known to be lost too; the
/// oldest goes first.
pub const MAX_LOST: usize = 256;

/// A commit as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// The epoch in which it was made.
    pub epoch: u64,
    /// Its rank, as it claims: whoever applies it checks that. See [`RANK_OTHER`].
    pub rank: u32,
    /// The state in which it was made.
    pub parent: StateId,
    /// Its id.
    pub id: CommitId,
    /// The state that it says to lead to. Whoever applies it checks that.
    pub child: StateId,
}

impl Commit {
    /// Where it leads when it does not stand in a state of the chain.
    const fn goes_off(&self) -> Side {
        Side { epoch: self.epoch.saturating_add(1), by: self.id, fork: self.epoch }
    }
}

/// What became of an offered commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Offered {
    /// It may stand: ask for [`Ordering::try_next`].
    Rival,
    /// Its parent is not known here (yet).
    Waiting,
    /// Known already.
    Duplicate,
    /// It can never stand: another of the same state comes before it.
    Lost,
}

/// How this member stands to the others, once it has what the log has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// Nothing is known that would stand instead.
    Current,
    /// Others went on from a state that is not known here. Join again.
    Behind,
}

#[derive(Debug, Clone)]
struct State {
    id: StateId,
    epoch: u64,
    /// The commit that led here; none where this member began.
    by: Option<CommitId>,
    /// In order; with the state that each says to lead to.
    untried: BTreeMap<Key, StateId>,
    verified: BTreeMap<Key, Rival>,
    /// Tried and refused.
    done: BTreeSet<CommitId>,
}

/// A state that lost.
#[derive(Debug, Clone, Copy)]
struct Lost {
    id: StateId,
    side: Side,
}

/// A state off the chain, as far as its commits' headers tell.
#[derive(Debug, Clone, Copy)]
struct Side {
    /// Its epoch.
    epoch: u64,
    /// The commit that led to it.
    by: CommitId,
    /// The epoch of the state of the chain from which its side went off.
    fork: u64,
}

impl Side {
    const fn next(self, by: CommitId) -> Self {
        Self { epoch: self.epoch.saturating_add(1), by, fork: self.fork }
    }

    /// Whether who stands there has gone too far to come back to the fork.
    const fn is_for_good(&self) -> bool {
        self.epoch >= self.fork + MAX_STATES as u64
    }
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Ordering {
    /// Oldest first; the last is the current one.
    chain: VecDeque<State>,
    waiting: BTreeMap<(u64, StateId), BTreeMap<Key, StateId>>,
    waiting_len: usize,
    lost: VecDeque<Lost>,
}

/// A kept state, for who stores the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The state.
    pub state: StateId,
    /// Its epoch.
    pub epoch: u64,
    /// The commit that led to it.
    pub by: Option<CommitId>,
    /// That commit's rank, and what it does. Of every link but the first.
    pub facts: Option<(u32, Facts)>,
}

impl Link {
    /// Where a member begins.
    #[must_use]
    pub const fn start(state: StateId, epoch: u64, by: Option<CommitId>) -> Self {
        Self { state, epoch, by, facts: None }
    }
}

impl State {
    const fn new(id: StateId, epoch: u64, by: Option<CommitId>) -> Self {
        Self {
            id,
            epoch,
            by,
            untried: BTreeMap::new(),
            verified: BTreeMap::new(),
            done: BTreeSet::new(),
        }
    }

    /// Whether a commit can never stand, whatever comes. One that removes somebody may yet bring down
    /// what comes before it; any other cannot, and where one that removes somebody verified, such a
    /// one stands.
    fn beaten(&self, key: &Key) -> bool {
        key.0 >= RANK_OTHER && self.verified.first_key_value().is_some_and(|(first, _)| first < key)
    }

    fn commit(&self, key: &Key, child: StateId) -> Commit {
        Commit { epoch: self.epoch, rank: key.0, parent: self.id, id: key.1, child }
    }

    fn next(&self, stands: Option<CommitId>) -> Option<Commit> {
        let untried = self.untried.first_key_value().filter(|(key, _)| !self.beaten(key));
        if let Some((key, child)) = untried {
            return Some(self.commit(key, *child));
        }
        let key = winner(&self.verified).filter(|key| Some(key.1) != stands)?;
        self.verified.get(&key).map(|rival| self.commit(&key, rival.child))
    }

    fn drop_commit(&mut self, commit: &Commit) {
        let key = (commit.rank, commit.id);
        self.untried.remove(&key);
        self.verified.remove(&key);
    }

    /// All that is known to be made in it.
    fn children(&self) -> impl Iterator<Item = (Key, StateId)> + '_ {
        let verified = self.verified.iter().map(|(key, rival)| (*key, rival.child));
        verified.chain(self.untried.iter().map(|(key, child)| (*key, *child)))
    }
}

impl Ordering {
    /// Begins in a state; `by` is the commit that led there, if it is known.
    #[must_use]
    pub fn new(start: &Link) -> Self {
        Self {
            chain: VecDeque::from([State::new(start.state, start.epoch, start.by)]),
            waiting: BTreeMap::new(),
            waiting_len: 0,
            lost: VecDeque::new(),
        }
    }

    /// Goes on from a stored chain, oldest first. `None` when it is empty or a link lacks its commit.
    #[must_use]
    pub fn resume(links: &[Link]) -> Option<Self> {
        let (first, rest) = links.split_first()?;
        let mut ordering = Self::new(first);
        for link in rest {
            let (rank, facts) = link.facts.clone()?;
            let rival = Rival { child: link.state, facts };
            ordering.chain.back_mut()?.verified.insert((rank, link.by?), rival);
            ordering.chain.push_back(State::new(link.state, link.epoch, link.by));
        }
        Some(ordering)
    }

    fn link(&self, place: usize) -> Link {
        let state = &self.chain[place];
        let parent = place.checked_sub(1).map(|place| &self.chain[place].verified);
        let mut rivals = parent.into_iter().flatten();
        let by = rivals.find(|(key, _)| Some(key.1) == state.by);
        let facts = by.map(|(key, rival)| (key.0, rival.facts.clone()));
        Link { state: state.id, epoch: state.epoch, by: state.by, facts }
    }

    /// The kept states, oldest first.
    pub fn links(&self) -> impl Iterator<Item = Link> + '_ {
        (0..self.chain.len()).map(|place| self.link(place))
    }

    /// The current state.
    #[must_use]
    pub fn tip(&self) -> Link {
        self.link(self.chain.len() - 1)
    }

    /// Whether the state is kept.
    #[must_use]
    pub fn knows(&self, state: &StateId) -> bool {
        self.position(state).is_some()
    }

    /// The epoch of the oldest kept state.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.chain.front().map_or(0, |state| state.epoch)
    }

    /// Whether the state is known to have lost.
    #[must_use]
    pub fn is_lost(&self, state: &StateId) -> bool {
        self.lost.iter().any(|lost| lost.id == *state)
    }

    /// States that fell and are remembered, at most [`MAX_LOST`].
    pub fn lost(&self) -> impl Iterator<Item = StateId> + '_ {
        self.lost.iter().map(|lost| lost.id)
    }

    fn position(&self, state: &StateId) -> Option<usize> {
        self.chain.iter().position(|kept| kept.id == *state)
    }

    /// The commit that stands in the state at this place of the chain.
    fn standing_at(&self, place: usize) -> Option<CommitId> {
        self.chain.get(place + 1).and_then(|next| next.by)
    }

    /// Tells of a commit of the log.
    pub fn offer(&mut self, commit: Commit) -> Offered {
        let Some(place) = self.position(&commit.parent) else { return self.wait_for(commit) };
        let stands = self.standing_at(place);
        let state = &mut self.chain[place];
        let key = (commit.rank, commit.id);
        if stands == Some(commit.id)
            || state.done.contains(&commit.id)
            || state.untried.contains_key(&key)
            || state.verified.contains_key(&key)
        {
            return Offered::Duplicate;
        }
        if state.beaten(&key) {
            self.lose(commit.child, commit.goes_off());
            return Offered::Lost;
        }
        state.untried.insert(key, commit.child);
        if state.untried.len() > MAX_RIVALS {
            state.untried.pop_last();
        }
        Offered::Rival
    }

    fn wait_for(&mut self, commit: Commit) -> Offered {
        let fell = self.lost.iter().find(|lost| lost.id == commit.parent);
        if let Some(Lost { side, .. }) = fell.copied() {
            // Another epoch than that of the state it was made in is a lie.
            if side.epoch == commit.epoch {
                self.lose(commit.child, side.next(commit.id));
            }
            return Offered::Lost;
        }
        if self.chain.front().is_some_and(|oldest| commit.epoch < oldest.epoch) {
            return Offered::Lost;
        }
        let (of, key) = ((commit.epoch, commit.parent), (commit.rank, commit.id));
        if self.remember(of, key, commit.child) { Offered::Waiting } else { Offered::Duplicate }
    }

    /// Keeps a commit until its parent is known. Whether it was not kept before.
    fn remember(&mut self, of: (u64, StateId), key: Key, child: StateId) -> bool {
        if self.waiting.entry(of).or_default().insert(key, child).is_some() {
            return false;
        }
        self.waiting_len += 1;
        while self.waiting_len > MAX_WAITING {
            let Some((_, dropped)) = self.waiting.pop_first() else { break };
            self.waiting_len -= dropped.len();
        }
        true
    }

    /// A state lost, and with it whatever is known to be built on it.
    fn lose(&mut self, state: StateId, side: Side) {
        let mut falling = vec![Lost { id: state, side }];
        while let Some(lost) = falling.pop() {
            // A claim about a state that stands is a lie, and remembering it would hide the rest.
            if self.knows(&lost.id) || self.is_lost(&lost.id) {
                continue;
            }
            self.lost.push_back(lost);
            if self.lost.len() > MAX_LOST {
                self.lost.pop_front();
            }
            let built = self.waiting.remove(&(lost.side.epoch, lost.id)).unwrap_or_default();
            self.waiting_len -= built.len();
            let next = |((_, by), id): (Key, StateId)| Lost { id, side: lost.side.next(by) };
            falling.extend(built.into_iter().map(next));
        }
    }

    /// The next commit to try: at the oldest state where one might replace what stands, the first in
    /// order. It may have been tried before, and stand only now. The outcome is told by
    /// [`verified`](Self::verified) or [`refused`](Self::refused).
    #[must_use]
    pub fn try_next(&self) -> Option<Commit> {
        let mut states = self.chain.iter().enumerate();
        states.find_map(|(place, state)| state.next(self.standing_at(place)))
    }

    /// The commit does not verify in its parent: it never will.
    pub fn refused(&mut self, commit: &Commit) {
        if let Some(place) = self.position(&commit.parent) {
            let state = &mut self.chain[place];
            state.drop_commit(commit);
            if state.done.len() < MAX_RIVALS {
                state.done.insert(commit.id);
            }
        }
    }

    /// The commit cannot be tried, because it is not at hand any more. It may be offered again.
    pub fn forget(&mut self, commit: &Commit) {
        if let Some(place) = self.position(&commit.parent) {
            self.chain[place].drop_commit(commit);
        }
    }

    /// The commit verified, does what it claims and led to the state that it said. When it stands:
    /// the states that fell, and those that are kept no longer because they are too old.
    pub fn verified(&mut self, commit: &Commit, facts: Facts) -> Option<Fallen> {
        let place = self.position(&commit.parent)?;
        let (stands, key) = (self.standing_at(place), (commit.rank, commit.id));
        let state = &mut self.chain[place];
        state.untried.remove(&key);
        state.verified.insert(key, Rival { child: commit.child, facts });
        if state.verified.len() > MAX_RIVALS
            && let Some(last) = dispensable(&state.verified, stands)
        {
            state.verified.remove(&last);
        }
        if winner(&state.verified) != Some(key) || stands == Some(commit.id) {
            return None;
        }
        Some(self.go_to(place, commit))
    }

    fn go_to(&mut self, place: usize, commit: &Commit) -> Fallen {
        let links: Vec<Link> = (place + 1..self.chain.len()).map(|n| self.link(n)).collect();
        let fallen: Vec<State> = self.chain.drain(place + 1..).collect();
        // What was built on a commit that fell is built on again should it come back.
        for state in &fallen {
            for (key, child) in state.children() {
                self.remember((state.epoch, state.id), key, child);
            }
        }
        let state = &mut self.chain[place];
        let of_parent: Vec<_> = state.children().collect();
        let beaten: Vec<_> = of_parent.into_iter().filter(|(key, _)| state.beaten(key)).collect();
        for (key, _) in &beaten {
            state.untried.remove(key);
            state.verified.remove(key);
        }
        let epoch = commit.epoch + 1;
        let mut next = State::new(commit.child, epoch, Some(commit.id));
        if let Some(waited) = self.waiting.remove(&(epoch, commit.child)) {
            self.waiting_len -= waited.len();
            next.untried = waited;
            while next.untried.len() > MAX_RIVALS {
                next.untried.pop_last();
            }
        }
        self.lost.retain(|lost| lost.id != commit.child);
        self.chain.push_back(next);
        for ((_, by), child) in beaten {
            self.lose(child, Side { epoch, by, fork: commit.epoch });
        }
        let mut expired = Vec::new();
        while self.chain.len() > MAX_STATES {
            expired.extend(self.chain.pop_front().map(|s| (s.id, s.epoch)));
        }
        let oldest = self.chain[0].epoch;
        self.waiting = self.waiting.split_off(&(oldest, [0; 32]));
        self.waiting_len = self.waiting.values().map(BTreeMap::len).sum();
        Fallen { fallen: links, expired }
    }

    /// How this member stands, given that the log has nothing more to tell it.
    ///
    /// What fell is no reason to be behind, unless it has gone on so far that who stands there cannot come
    /// back to the fork: to them this member's side is one that they never heard of.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let tip = self.tip();
        let mut off = self.off();
        let mut ahead = Vec::new();
        for ((epoch, parent), commits) in &self.waiting {
            match off.get(parent).copied() {
                Some(side) => {
                    let built = commits.iter().filter(|(_, child)| !self.knows(child));
                    off.extend(built.map(|((_, by), child)| (*child, side.next(*by))));
                }
                None => ahead.extend(commits.keys().map(|(_, by)| (epoch.saturating_add(1), *by))),
            }
        }
        let gone = off.values().filter(|side| side.is_for_good());
        ahead.extend(gone.map(|side| (side.epoch, side.by)));
        let behind = ahead.into_iter().any(|(epoch, by)| {
            epoch > tip.epoch || (epoch == tip.epoch && tip.by.is_none_or(|mine| by < mine))
        });
        if behind { Standing::Behind } else { Standing::Current }
    }

    /// States that do not stand, as far as they are known without what waits.
    fn off(&self) -> BTreeMap<StateId, Side> {
        let mut off: BTreeMap<StateId, Side> =
            self.lost.iter().map(|lost| (lost.id, lost.side)).collect();
        for State { epoch, verified, .. } in &self.chain {
            let fell = verified.iter().filter(|(_, rival)| !self.knows(&rival.child));
            let side = |by| Side { epoch: epoch + 1, by, fork: *epoch };
            off.extend(fell.map(|((_, by), rival)| (rival.child, side(*by))));
        }
        off
    }
}

/// What a commit that stands brought down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fallen {
    /// States of the chain that lost.
    pub fallen: Vec<Link>,
    /// States that are too old to go back to, with their epochs.
    pub expired: Vec<(StateId, u64)>,
}
