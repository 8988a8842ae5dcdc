//! Memory for large messages that arrive piece by piece: bounded for all peers together.
//!
//! The first [`FREE_ASSEMBLY`](crate::frame::FREE_ASSEMBLY) bytes of a message are each stream's own.
//! Before a reader takes more of one, it claims the message's whole length from its class's budget,
//! once and in the order of asking: no reader holds a part while it waits for the rest, so none waits
//! for another that waits. Meanwhile it reads nothing, and flow control stops the sender.
//!
//! Whoever holds a claim has to make progress, and while others wait, to be done within
//! [`CONTESTED`]. Strangers, who are neither held by a layer nor preferred by the policy, have half of the budget, and those of
//! one network one claim: who waits behind them does not hold the others up.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use x0x_core::{Clock, Scope, StreamClass, Tick};

use crate::{config::SessionConfig, frame::Assembling, prefix::Prefix};

/// Bytes of a claimed message that must arrive in each [`PATIENCE`]: 140 kbit/s.
const MIN_PROGRESS: usize = 512 * 1024;
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest time for a message while others wait: 16 MiB at 2.2 Mbit/s.
const CONTESTED: Duration = Duration::from_secs(60);
/// Longest wait for a claim: all that are held, and those that follow them, are over by then unless many
/// wait.
const MAX_WAIT: Duration = Duration::from_secs(120);

/// On whose behalf memory is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claimant {
    /// A peer that a layer holds, or one of whose agents is preferred.
    Needed,
    /// Any other, with its network unless it is on this machine.
    Stranger(Option<Prefix>),
}

impl Claimant {
    pub(super) fn stranger(ip: IpAddr) -> Self {
        Self::Stranger(match Scope::of_path(ip) {
            Scope::Loopback => None,
            Scope::Link | Scope::Site => Some(Prefix::host(ip)),
            _ => Some(Prefix::site(ip).unwrap_or(Prefix::of(ip))),
        })
    }
}

/// The budgets of all classes.
#[derive(Debug)]
pub(crate) struct Assembly([Arc<Budget>; 4]);

impl Assembly {
    /// Each class's largest message fits, whatever the settings say.
    pub(crate) fn new(config: &SessionConfig, clock: &Arc<dyn Clock>) -> Self {
        Self(StreamClass::ALL.map(|class| {
            let largest = class.max_message();
            let all = config.assembly(class).max(largest);
            let ledger = Ledger { all, strangers: (all / 2).max(largest), ..Ledger::default() };
            Arc::new(Budget { ledger: Mutex::new(ledger), clock: clock.clone() })
        }))
    }

    /// Asks for the memory of a message.
    pub(super) fn ask(&self, class: StreamClass, message: Assembling, claimant: Claimant) -> Place {
        let budget = self.0[class as usize % self.0.len()].clone();
        let now = budget.clock.now();
        let (sender, granted) = oneshot::channel();
        let id = budget.lock().ask(now, message.len, claimant, sender);
        Place { granted, give_up: now + MAX_WAIT, entry: Entry { budget, id } }
    }
}

#[derive(Debug)]
struct Budget {
    ledger: Mutex<Ledger>,
    clock: Arc<dyn Clock>,
}

impl Budget {
    fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has and who waits for a budget; one entry for each reader at most.
#[derive(Debug, Default)]
struct Ledger {
    /// Bytes left, and how many of them for strangers.
    all: usize,
    strangers: usize,
    /// In the order of asking.
    waiting: VecDeque<Waiting>,
    claims: BTreeMap<u64, Granted>,
    next_id: u64,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    bytes: usize,
    claimant: Claimant,
    granted: oneshot::Sender<CancellationToken>,
}

#[derive(Debug)]
struct Granted {
    bytes: usize,
    claimant: Claimant,
    since: Tick,
    revoked: CancellationToken,
}

impl Ledger {
    fn ask(
        &mut self,
        now: Tick,
        bytes: usize,
        claimant: Claimant,
        granted: oneshot::Sender<CancellationToken>,
    ) -> u64 {
        self.next_id += 1;
        self.waiting.push_back(Waiting { id: self.next_id, bytes, claimant, granted });
        self.grant(now);
        self.next_id
    }

    /// Serves whoever can be served, in turn. A stranger that has to wait holds only strangers up, and
    /// those not when it waits for its own network.
    fn grant(&mut self, now: Tick) {
        let (mut index, mut strangers_wait) = (0, false);
        while let Some(waiting) = self.waiting.get(index) {
            let (bytes, claimant) = (waiting.bytes, waiting.claimant);
            let stranger = claimant != Claimant::Needed;
            let one_each = matches!(claimant, Claimant::Stranger(Some(_)));
            if stranger && strangers_wait
                || one_each && self.claims.values().any(|claim| claim.claimant == claimant)
            {
                index += 1;
                continue;
            }
            if bytes > self.all || stranger && bytes > self.strangers {
                if !stranger {
                    return;
                }
                strangers_wait = true;
                index += 1;
                continue;
            }
            let Some(waiting) = self.waiting.remove(index) else { return };
            let revoked = CancellationToken::new();
            // Whoever is gone meanwhile gives it back when its entry is dropped.
            let _ = waiting.granted.send(revoked.clone());
            self.all -= bytes;
            self.strangers -= if stranger { bytes } else { 0 };
            self.claims.insert(waiting.id, Granted { bytes, claimant, since: now, revoked });
        }
    }

    fn leave(&mut self, now: Tick, id: u64) {
        self.waiting.retain(|waiting| waiting.id != id);
        if let Some(claim) = self.claims.remove(&id) {
            self.all += claim.bytes;
            self.strangers += if claim.claimant == Claimant::Needed { 0 } else { claim.bytes };
        }
        self.grant(now);
    }

    /// Revokes the claims that are overdue since somebody waits; when the next one will be.
    fn hurry(&mut self, now: Tick) -> Option<Tick> {
        let claims = self.claims.values().filter(|claim| !claim.revoked.is_cancelled());
        let (due, rest): (Vec<_>, Vec<_>) =
            claims.partition(|claim| claim.since + CONTESTED <= now);
        due.iter().for_each(|claim| claim.revoked.cancel());
        rest.iter().map(|claim| claim.since + CONTESTED).min()
    }
}

/// A place in a budget's ledger until it is dropped.
#[derive(Debug)]
struct Entry {
    budget: Arc<Budget>,
    id: u64,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let now = self.budget.clock.now();
        self.budget.lock().leave(now, self.id);
    }
}

/// A reader that waits for memory.
#[derive(Debug)]
pub(super) struct Place {
    granted: oneshot::Receiver<CancellationToken>,
    give_up: Tick,
    entry: Entry,
}

impl Place {
    /// Waits for the turn; `None` when it took too long. Dropping the future loses nothing.
    pub(super) async fn granted(&mut self) -> Option<CancellationToken> {
        loop {
            let budget = &self.entry.budget;
            let now = budget.clock.now();
            let next = budget.lock().hurry(now);
            let until = next.map_or(self.give_up, |next| next.min(self.give_up));
            tokio::select! {
                biased;
                granted = &mut self.granted => return granted.ok(),
                () = tokio::time::sleep(until.since(now)) => {}
            }
            if self.entry.budget.clock.now() >= self.give_up {
                return None;
            }
        }
    }

    /// The memory, once it is granted.
    pub(super) fn into_claim(self, revoked: CancellationToken) -> Claim {
        Claim { _entry: self.entry, revoked, target: 0, until: Tick::ZERO }
    }
}

/// The memory of one message.
#[derive(Debug)]
pub(super) struct Claim {
    _entry: Entry,
    /// Fires when the message took too long and others wait.
    pub(super) revoked: CancellationToken,
    /// Bytes that must have arrived by `until`.
    target: usize,
    until: Tick,
}

impl Claim {
    /// Notes how much arrived.
    pub(super) fn progress(&mut self, now: Tick, message: Assembling) {
        if message.arrived >= self.target {
            self.target = message.arrived + MIN_PROGRESS;
            self.until = now + PATIENCE;
        }
    }

    /// The reader itself was busy for a while, which does not count.
    pub(super) fn excuse(&mut self, time: Duration) {
        self.until = self.until + time;
    }

    /// When the peer has taken too long.
    pub(super) const fn until(&self) -> Tick {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::FREE_ASSEMBLY, testing::TokioClock};

    const DIRECT: StreamClass = StreamClass::Direct;
    const MIB: usize = 1 << 20;

    fn assembly(bytes: usize) -> Assembly {
        let config = SessionConfig { direct_assembly_bytes: bytes, ..SessionConfig::default() };
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new());
        Assembly::new(&config, &clock)
    }

    fn of(len: usize) -> Assembling {
        Assembling { len, arrived: FREE_ASSEMBLY }
    }

    fn stranger(network: u8) -> Claimant {
        Claimant::stranger(IpAddr::from([198, 51, network, 1]))
    }

    async fn claimed(mut place: Place) -> Option<Claim> {
        let revoked = place.granted().await?;
        Some(place.into_claim(revoked))
    }

    async fn soon(place: &mut Place) -> bool {
        tokio::time::timeout(Duration::from_secs(1), place.granted()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_claimed_whole_and_in_turn() {
        let assembly = assembly(0);
        let largest = of(DIRECT.max_message());
        let first = claimed(assembly.ask(DIRECT, largest, Claimant::Needed)).await;
        let mut second = assembly.ask(DIRECT, of(300_000), stranger(1));
        assert!(!soon(&mut second).await, "nothing is left");
        let gossip = assembly.ask(StreamClass::Gossip, of(MIB), stranger(1));
        assert!(claimed(gossip).await.is_some(), "a budget of its own");
        let mut third = assembly.ask(DIRECT, largest, Claimant::Needed);
        drop(first);
        assert!(soon(&mut second).await && !soon(&mut third).await);
        drop(second);
        assert!(soon(&mut third).await);
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_half_and_a_network_one_claim() {
        let assembly = assembly(64 * MIB);
        let ask = |claimant| assembly.ask(DIRECT, of(16 * MIB), claimant);
        let first = claimed(ask(stranger(1))).await;
        let mut same = ask(stranger(1));
        assert!(!soon(&mut same).await);
        let second = claimed(ask(stranger(2))).await;
        let mut other = ask(stranger(3));
        assert!(!soon(&mut other).await, "half is taken");
        let held = [claimed(ask(Claimant::Needed)).await, claimed(ask(Claimant::Needed)).await];
        assert!(first.is_some() && held.iter().all(Option::is_some), "the rest is not theirs");
        drop(second);
        assert!(soon(&mut other).await && !soon(&mut same).await);
        drop(first);
        assert!(soon(&mut same).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_claim_is_revoked_while_others_wait() {
        let assembly = assembly(0);
        let largest = of(DIRECT.max_message());
        let slow = claimed(assembly.ask(DIRECT, largest, Claimant::Needed)).await.expect("room");
        tokio::time::sleep(2 * CONTESTED).await;
        assert!(!slow.revoked.is_cancelled(), "nobody waits");
        let mut place = assembly.ask(DIRECT, largest, stranger(1));
        assert!(!soon(&mut place).await);
        assert!(slow.revoked.is_cancelled());
        drop(slow);
        let claim = claimed(place).await.expect("its turn");
        let asked = tokio::time::Instant::now();
        let mut place = assembly.ask(DIRECT, largest, Claimant::Needed);
        assert!(!soon(&mut place).await && !claim.revoked.is_cancelled());
        assert!(place.granted().await.is_none(), "nobody waits for ever");
        assert!(claim.revoked.is_cancelled() && asked.elapsed() >= MAX_WAIT);
    }

    #[tokio::test]
    async fn progress_moves_the_deadline() {
        let at = |arrived| Assembling { len: 8 << 20, arrived };
        let place = assembly(0).ask(DIRECT, at(0), Claimant::Needed);
        let mut claim = claimed(place).await.expect("room");
        claim.progress(Tick::from_millis(5), at(300_000));
        assert_eq!(claim.until(), Tick::from_millis(30_005));
        claim.progress(Tick::from_millis(9), at(300_000 + MIN_PROGRESS - 1));
        assert_eq!(claim.until(), Tick::from_millis(30_005));
        claim.excuse(Duration::from_millis(10));
        assert_eq!(claim.until(), Tick::from_millis(30_015));
        claim.progress(Tick::from_millis(20), at(300_000 + MIN_PROGRESS));
        assert_eq!(claim.until(), Tick::from_millis(30_020));
    }
}
