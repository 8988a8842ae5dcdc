//! Discovery as a pure machine: when to announce, and what is known of others.

mod cache;
#[cfg(test)]
mod tests;

use std::{net::SocketAddr, time::Duration};

use x0x_core::{AgentId, Machine, MachineId, SeededRng, Tick, WallTime};

pub use cache::{DiscoveredAgent, DiscoveryCache, Outcome};

use crate::{
    addresses::{believable_addresses, usable_addresses},
    config::{DiscoveryConfig, MIN_ANNOUNCE_INTERVAL},
    wire::{Announcement, Stamp},
};

/// First pause after an announcement that could not be published; doubles up to [`MAX_RETRY`].
const MIN_RETRY: Duration = Duration::from_secs(1);
/// Longest pause.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What the world tells the machine.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Input {
    /// The owner wants an announcement now, or as soon as [`MIN_ANNOUNCE_INTERVAL`] allows.
    Announce,
    /// The announcement that was asked for is published.
    Published,
    /// It could not be published.
    PublishFailed,
    /// An agent was met in a session with a machine.
    Met {
        /// Wall-clock time of the session.
        wall: WallTime,
        /// The agents that it proved.
        agents: Vec<AgentId>,
        /// The machine.
        machine: MachineId,
        /// Where the machine may be reached.
        addresses: Vec<SocketAddr>,
    },
}

/// What the machine asks of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Output {
    /// Publish an announcement with [`Discoverer::next_stamp`], then report
    /// [`Input::Published`] or [`Input::PublishFailed`].
    Announce,
}

/// When to announce: at the start, again shortly after, then at every heartbeat; and the cache of
/// what others announce.
#[derive(Debug)]
pub struct Discoverer {
    config: DiscoveryConfig,
    rng: SeededRng,
    cache: DiscoveryCache,
    /// When to announce next; none while an announcement is on its way.
    next: Option<Tick>,
    /// When the last one was due.
    attempted: Option<Tick>,
    /// The owner asked while an announcement was on its way.
    again: bool,
    /// The first announcement is yet to be repeated.
    repeat: bool,
    retry: Duration,
    due: bool,
    stamp: Stamp,
}

impl Discoverer {
    /// A machine that announces at `now` for the first time. The seed spreads the nodes' heartbeats.
    #[must_use]
    pub fn new(now: Tick, seed: [u8; 32], config: DiscoveryConfig) -> Self {
        Self {
            rng: SeededRng::from_seed(seed),
            cache: DiscoveryCache::new(config.freshness),
            config,
            next: Some(now),
            attempted: None,
            again: false,
            repeat: true,
            retry: MIN_RETRY,
            due: false,
            stamp: Stamp::default(),
        }
    }

    /// What is known of other agents.
    #[must_use]
    pub const fn cache(&self) -> &DiscoveryCache {
        &self.cache
    }

    /// The stamp of the next announcement. Greater than all before, even when the clock went back.
    pub fn next_stamp(&mut self, wall: WallTime) -> Stamp {
        self.stamp = Stamp {
            announced_at: self.stamp.announced_at.max(wall),
            counter: self.stamp.counter + 1,
        };
        self.stamp
    }

    /// Takes a verified announcement, at a machine that has the `local` addresses; also tells how many
    /// of its addresses were no use.
    pub fn announced(
        &mut self,
        now: Tick,
        wall: WallTime,
        mut news: Announcement,
        local: &[SocketAddr],
    ) -> (Outcome, usize) {
        let count = news.addresses.len();
        news.addresses = believable_addresses(news.addresses, self.config.allow_loopback, local);
        let dropped = count - news.addresses.len();
        (self.cache.announced(now, wall, news), dropped)
    }

    /// An agent is not believed any more, and makes room.
    pub fn forget(&mut self, agent: &AgentId) {
        self.cache.forget(agent);
    }

    fn published(&mut self, now: Tick) {
        self.retry = MIN_RETRY;
        let pause = if self.repeat {
            self.repeat = false;
            self.config.repeat_after + self.up_to(self.config.repeat_after / 3)
        } else {
            let tenth = self.config.heartbeat / 10;
            self.config.heartbeat - tenth + self.up_to(tenth * 2)
        };
        self.schedule(now, pause);
    }

    fn publish_failed(&mut self, now: Tick) {
        let pause = self.retry + self.up_to(self.retry / 2);
        self.retry = (self.retry * 2).min(MAX_RETRY);
        self.schedule(now, pause);
    }

    fn schedule(&mut self, now: Tick, pause: Duration) {
        self.next = Some(now + pause);
        if std::mem::take(&mut self.again) {
            self.announce(now);
        }
    }

    fn announce(&mut self, now: Tick) {
        let Some(next) = self.next else {
            self.again = true;
            return;
        };
        let earliest = self.attempted.map_or(now, |last| last + MIN_ANNOUNCE_INTERVAL);
        self.next = Some(next.min(earliest.max(now)));
        self.handle_timeout(now);
    }

    fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.rng.range(0, micros))
    }
}

impl Machine for Discoverer {
    type Input = Input;
    type Output = Output;

    fn handle(&mut self, now: Tick, input: Input) {
        match input {
            Input::Announce => self.announce(now),
            Input::Published => self.published(now),
            Input::PublishFailed => self.publish_failed(now),
            Input::Met { wall, agents, machine, addresses } => {
                let addresses = usable_addresses(addresses, self.config.allow_loopback);
                for agent in agents {
                    self.cache.met(now, wall, agent, machine, addresses.clone());
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Tick) {
        if self.next.is_some_and(|next| next <= now) {
            self.next = None;
            self.attempted = Some(now);
            self.due = true;
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        std::mem::take(&mut self.due).then_some(Output::Announce)
    }

    fn poll_timeout(&self) -> Option<Tick> {
        self.next
    }
}
