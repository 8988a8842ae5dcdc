//! What every request sees.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use x0x_agent::{Agent, Role};
use x0x_core::{Clock, SystemClock, Tick};

use crate::{
    events::EventBus,
    http::{
        auth::Guard,
        feeds::Feeds,
        metrics::{ApiMetrics, Now},
        sse,
        ws::Sessions,
    },
    subscriptions::Subscriptions,
    webhook,
};

/// Shared by all requests.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) agent: Agent,
    pub(crate) api_address: SocketAddr,
    pub(crate) guard: Guard,
    pub(crate) metrics: ApiMetrics,
    pub(crate) bus: EventBus,
    pub(crate) feeds: Feeds,
    pub(crate) subscriptions: Subscriptions,
    pub(crate) sessions: Sessions,
    pub(crate) webhook: webhook::Stuck,
    /// Room for SSE streams.
    pub(crate) streams: Arc<Semaphore>,
    /// Cancelled when the daemon is to stop.
    pub(crate) stop: CancellationToken,
    /// Everything that must have ended before the daemon has stopped.
    pub(crate) tasks: TaskTracker,
    clock: SystemClock,
}

impl App {
    pub(crate) fn new(
        agent: Agent,
        api_address: SocketAddr,
        guard: Guard,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let clock = SystemClock::new();
        // Ids rise across runs, with room for a million events a second; below 2^53, which
        // JavaScript can count to.
        let event_base = clock.wall().as_secs() << 20;
        Arc::new(Self {
            agent,
            api_address,
            guard,
            metrics: ApiMetrics::default(),
            bus: EventBus::new(event_base),
            feeds: Feeds::new(event_base),
            subscriptions: Subscriptions::default(),
            sessions: Sessions::default(),
            webhook: webhook::Stuck::default(),
            streams: Arc::new(Semaphore::new(sse::MAX_STREAMS)),
            stop,
            tasks: TaskTracker::new(),
            clock,
        })
    }

    /// Now.
    pub(crate) fn now(&self) -> Tick {
        self.clock.now()
    }

    /// Time since the API was set up.
    pub(crate) fn uptime(&self) -> Duration {
        Duration::from_micros(self.clock.now().as_micros())
    }

    /// Whether this node is a first contact of others.
    pub(crate) fn is_bootstrap(&self) -> bool {
        self.agent.role() == Role::Bootstrap
    }

    /// Live QUIC sessions.
    pub(crate) fn peers(&self) -> u64 {
        self.agent.sessions().len() as u64
    }

    pub(crate) fn gauges(&self) -> Now {
        Now {
            ws_sessions: self.sessions.len(),
            sse_clients: sse::MAX_STREAMS - self.streams.available_permits(),
            sse_missed: self.bus.missed() + self.feeds.missed(),
            subscriptions: self.subscriptions.len(),
            uptime_secs: self.uptime().as_secs(),
        }
    }
}
