//! Which commits stand: one answer for every member, in whatever order they arrive.
//!
//! A commit is made in one state of the group (its *parent*) and leads to another. Two members that
//! commit in the same state make a fork. The rule: **of the commits of one state that verify, the
//! one with the smallest id stands**, and what was built on another falls with it. The rule looks at
//! nothing but the set of commits, so that all who have the same set have the same chain.
//!
//! A member that stands on a loser goes back, as long as it still has the state of the fork: the last
//! [`MAX_STATES`]. Beyond, it cannot; then the longer chain stands (of two as long, the one whose last
//! commit has the smaller id), and who stands on the other learns from [`Ordering::standing`] that it
//! has to join again.
//!
//! This is a pure machine: it is told of commits ([`offer`](Ordering::offer)) and of what became of
//! those that it asked to be tried ([`try_next`](Ordering::try_next)).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[cfg(test)]
mod tests;

/// The id of a state: a hash that commits to the group, its epoch, members and history.
pub type StateId = [u8; 32];
/// The id of a commit: the hash of its message.
pub type CommitId = [u8; 32];

/// States that are kept: the current one and those that it can go back to.
pub const MAX_STATES: usize = 6;
/// Commits that are remembered while their parent is unknown; the oldest epoch goes first.
pub const MAX_WAITING: usize = 256;
/// Commits of a kept state that are remembered; the greatest id goes first, which would stand last.
pub const MAX_RIVALS: usize = 64;
/// States that are remembered as lost, so that what was built on them is known to be lost too; the
/// oldest goes first.
pub const MAX_LOST: usize = 256;

/// A commit as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Commit {
    /// The epoch in which it was made.
    pub epoch: u64,
    /// The state in which it was made.
    pub parent: StateId,
    /// Its id.
    pub id: CommitId,
    /// The state that it says to lead to. Whoever applies it checks that.
    pub child: StateId,
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
    /// A smaller one of the same state stands.
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
    /// By id; with the state that each says to lead to.
    untried: BTreeMap<CommitId, StateId>,
    /// Tried and refused.
    done: BTreeSet<CommitId>,
}

/// The machine.
#[derive(Debug, Clone)]
pub struct Ordering {
    /// Oldest first; the last is the current one.
    chain: VecDeque<State>,
    waiting: BTreeMap<(u64, StateId), BTreeMap<CommitId, StateId>>,
    waiting_len: usize,
    lost: VecDeque<StateId>,
}

/// A kept state, for who stores the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The state.
    pub state: StateId,
    /// Its epoch.
    pub epoch: u64,
    /// The commit that led to it.
    pub by: Option<CommitId>,
}

impl State {
    const fn new(link: Link) -> Self {
        Self {
            id: link.state,
            epoch: link.epoch,
            by: link.by,
            untried: BTreeMap::new(),
            done: BTreeSet::new(),
        }
    }
}

impl Ordering {
    /// Begins in a state; `by` is the commit that led there, if it is known.
    #[must_use]
    pub fn new(start: Link) -> Self {
        Self {
            chain: VecDeque::from([State::new(start)]),
            waiting: BTreeMap::new(),
            waiting_len: 0,
            lost: VecDeque::new(),
        }
    }

    /// Goes on from a stored chain, oldest first. `None` when it is empty.
    #[must_use]
    pub fn resume(links: &[Link]) -> Option<Self> {
        let (first, rest) = links.split_first()?;
        let mut ordering = Self::new(*first);
        ordering.chain.extend(rest.iter().map(|link| State::new(*link)));
        Some(ordering)
    }

    /// The kept states, oldest first.
    pub fn links(&self) -> impl Iterator<Item = Link> + '_ {
        self.chain.iter().map(|s| Link { state: s.id, epoch: s.epoch, by: s.by })
    }

    /// The current state.
    #[must_use]
    pub fn tip(&self) -> Link {
        let tip = &self.chain[self.chain.len() - 1];
        Link { state: tip.id, epoch: tip.epoch, by: tip.by }
    }

    /// Whether the state is kept.
    #[must_use]
    pub fn knows(&self, state: &StateId) -> bool {
        self.position(state).is_some()
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
        if stands == Some(commit.id)
            || state.done.contains(&commit.id)
            || state.untried.contains_key(&commit.id)
        {
            return Offered::Duplicate;
        }
        if stands.is_some_and(|stands| stands < commit.id) {
            self.lose(commit.child);
            return Offered::Lost;
        }
        state.untried.insert(commit.id, commit.child);
        if state.untried.len() > MAX_RIVALS {
            state.untried.pop_last();
        }
        Offered::Rival
    }

    fn wait_for(&mut self, commit: Commit) -> Offered {
        if self.lost.contains(&commit.parent) {
            self.lose(commit.child);
            return Offered::Lost;
        }
        if self.chain.front().is_some_and(|oldest| commit.epoch < oldest.epoch) {
            return Offered::Lost;
        }
        let of_parent = self.waiting.entry((commit.epoch, commit.parent)).or_default();
        if of_parent.insert(commit.id, commit.child).is_some() {
            return Offered::Duplicate;
        }
        self.waiting_len += 1;
        while self.waiting_len > MAX_WAITING {
            let Some((_, dropped)) = self.waiting.pop_first() else { break };
            self.waiting_len -= dropped.len();
        }
        Offered::Waiting
    }

    /// A state lost, and with it whatever is known to be built on it.
    fn lose(&mut self, state: StateId) {
        let mut falling = vec![state];
        while let Some(state) = falling.pop() {
            // A claim about a state that stands is a lie, and remembering it would hide the rest.
            if self.knows(&state) || self.lost.contains(&state) {
                continue;
            }
            self.lost.push_back(state);
            if self.lost.len() > MAX_LOST {
                self.lost.pop_front();
            }
            let built: Vec<_> =
                self.waiting.keys().filter(|(_, parent)| *parent == state).copied().collect();
            for key in built {
                let children = self.waiting.remove(&key).unwrap_or_default();
                self.waiting_len -= children.len();
                falling.extend(children.into_values());
            }
        }
    }

    /// The next commit to try: at the oldest state where one might replace what stands, the smallest.
    /// Its outcome is told by [`stands`](Self::stands) or [`refused`](Self::refused).
    #[must_use]
    pub fn try_next(&self) -> Option<Commit> {
        self.chain.iter().enumerate().find_map(|(place, state)| {
            let (id, child) = state.untried.first_key_value()?;
            let better = self.standing_at(place).is_none_or(|stands| *id < stands);
            let (epoch, parent) = (state.epoch, state.id);
            better.then_some(Commit { epoch, parent, id: *id, child: *child })
        })
    }

    /// The commit does not verify in its parent: it never will.
    pub fn refused(&mut self, commit: &Commit) {
        if let Some(place) = self.position(&commit.parent) {
            let state = &mut self.chain[place];
            state.untried.remove(&commit.id);
            if state.done.len() < MAX_RIVALS {
                state.done.insert(commit.id);
            }
        }
    }

    /// The commit cannot be tried, because it is not at hand any more. It may be offered again.
    pub fn forget(&mut self, commit: &Commit) {
        if let Some(place) = self.position(&commit.parent) {
            self.chain[place].untried.remove(&commit.id);
        }
    }

    /// The commit verified and led to the state that it said. Returns the states that fell, and those
    /// that are kept no longer because they are too old.
    pub fn stands(&mut self, commit: &Commit) -> Fallen {
        let Some(place) = self.position(&commit.parent) else { return Fallen::default() };
        let fallen: Vec<State> = self.chain.drain(place + 1..).collect();
        let losers = std::mem::take(&mut self.chain[place].untried);
        let epoch = commit.epoch + 1;
        let next = Link { state: commit.child, epoch, by: Some(commit.id) };
        let mut next = State::new(next);
        if let Some(waited) = self.waiting.remove(&(epoch, commit.child)) {
            self.waiting_len -= waited.len();
            next.untried = waited;
            while next.untried.len() > MAX_RIVALS {
                next.untried.pop_last();
            }
        }
        self.chain.push_back(next);
        for child in losers.into_iter().filter(|(id, _)| *id != commit.id).map(|(_, child)| child) {
            self.lose(child);
        }
        for state in &fallen {
            self.lose(state.id);
            state.untried.values().for_each(|child| self.lose(*child));
        }
        let mut expired = Vec::new();
        while self.chain.len() > MAX_STATES {
            expired.extend(self.chain.pop_front().map(|s| s.id));
        }
        let oldest = self.chain[0].epoch;
        self.waiting = self.waiting.split_off(&(oldest, [0; 32]));
        self.waiting_len = self.waiting.values().map(BTreeMap::len).sum();
        let fallen =
            fallen.iter().map(|s| Link { state: s.id, epoch: s.epoch, by: s.by }).collect();
        Fallen { fallen, expired }
    }

    /// How this member stands, given that the log has nothing more to tell it.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let tip = self.tip();
        let Some(((epoch, _), ids)) = self.waiting.last_key_value() else {
            return Standing::Current;
        };
        let theirs = epoch + 1;
        let smaller =
            tip.by.is_none_or(|mine| ids.first_key_value().is_some_and(|(first, _)| *first < mine));
        if theirs > tip.epoch || (theirs == tip.epoch && smaller) {
            Standing::Behind
        } else {
            Standing::Current
        }
    }
}

/// What a commit that stands brought down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fallen {
    /// States of the chain that lost.
    pub fallen: Vec<Link>,
    /// States of the chain that are too old to go back to.
    pub expired: Vec<StateId>,
}
