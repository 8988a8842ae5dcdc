//! Who is where: connecting to agents, and the agents seen.

use std::{net::SocketAddr, pin::pin, time::Duration};

use x0x_core::{AgentId, MachineId, PeerAddr};
use x0x_rendezvous::{AnnounceError, DiscoveredAgent, FindError};
use x0x_transport::{PathKind, SessionInfo, Transport};
use x0x_trust::{Action, Policy};

use crate::Agent;

/// How long an agent that is not where it is known to be is looked for.
const SEEK: Duration = Duration::from_secs(4);
/// How long those places may take to answer before it is looked for beside them.
const HEAD_START: Duration = Duration::from_secs(2);

/// What an attempt to connect to an agent came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectKind {
    /// A direct connection was made, if need be with the help of a common peer.
    Direct,
    /// A connection was made by way of a common peer, which relays it.
    Coordinated,
    /// There was a session already.
    AlreadyConnected,
    /// The agent's machine is known and did not answer, or did not prove that agent.
    Unreachable,
    /// Nothing is known about the agent.
    NotFound,
}

/// The outcome of [`Agent::connect`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectOutcome {
    /// What it came to.
    pub kind: ConnectKind,
    /// Where the peer's packets come from, when there is a session.
    pub addr: Option<SocketAddr>,
    /// Why not, for people; empty on success.
    pub reason: String,
}

impl ConnectOutcome {
    /// There was a session already.
    const fn found(session: &SessionInfo) -> Self {
        Self::over(ConnectKind::AlreadyConnected, session)
    }

    /// One was made.
    fn made(session: &SessionInfo) -> Self {
        let is_direct = !matches!(session.path, PathKind::Relayed { .. });
        Self::over(if is_direct { ConnectKind::Direct } else { ConnectKind::Coordinated }, session)
    }

    const fn over(kind: ConnectKind, session: &SessionInfo) -> Self {
        Self { kind, addr: Some(session.remote_address), reason: String::new() }
    }

    fn failed(kind: ConnectKind, reason: impl Into<String>) -> Self {
        Self { kind, addr: None, reason: reason.into() }
    }

    /// Whether there is a session.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        use ConnectKind::{AlreadyConnected, Coordinated, Direct};
        matches!(self.kind, Direct | Coordinated | AlreadyConnected)
    }
}

impl Agent {
    /// Connects to an agent's machine: where a session, an announcement or a card says that it is, and where
    /// nobody answers there, or nothing is known, where a search finds it. Whoever is told of a session sees
    /// the agent online.
    pub async fn connect(&self, agent: AgentId) -> ConnectOutcome {
        let decision = self.trust().decide(&agent, None, Action::DirectSend);
        if agent != self.agent_id() && !decision.allowed() {
            let reason = format!("agent is {}", decision.reason);
            return ConnectOutcome::failed(ConnectKind::Unreachable, reason);
        }
        let outcome = match self.session_of(agent) {
            Some(session) => ConnectOutcome::found(&session),
            None => self.locate(agent).await,
        };
        if outcome.is_connected() {
            self.inner.sought.reached(&agent);
            self.until_seen(agent).await;
        }
        outcome
    }

    async fn locate(&self, agent: AgentId) -> ConnectOutcome {
        let known = self.discovered_agent(&agent).await;
        let known = known.map(|record| PeerAddr::known(record.machine, record.addresses));
        let Some(target) = known.or_else(|| self.hint(&agent)) else {
            return match self.seek(agent, None).await {
                Some(found) => self.dial(agent, found).await,
                None => ConnectOutcome::failed(ConnectKind::NotFound, "agent is not known"),
            };
        };
        let mut dialled = pin!(self.dial(agent, target.clone()));
        let mut failed = None;
        tokio::select! {
            biased;
            outcome = &mut dialled => failed = Some(outcome),
            () = tokio::time::sleep(HEAD_START) => {}
        }
        if let Some(outcome) = failed.take_if(|outcome| outcome.is_connected()) {
            return outcome;
        }
        let mut sought = pin!(self.seek(agent, Some(&target)));
        let found = loop {
            tokio::select! {
                biased;
                outcome = &mut dialled, if failed.is_none() => {
                    if outcome.is_connected() {
                        return outcome;
                    }
                    failed = Some(outcome);
                }
                found = &mut sought => break found,
            }
        };
        match (found, failed) {
            (Some(found), _) => self.dial(agent, found).await,
            (None, Some(failed)) => failed,
            (None, None) => dialled.await,
        }
    }

    async fn dial(&self, agent: AgentId, target: PeerAddr) -> ConnectOutcome {
        match self.inner.node.connect(target).await {
            Ok(session) if session.agents.contains(&agent) => ConnectOutcome::made(&session),
            Ok(_) => ConnectOutcome::failed(
                ConnectKind::Unreachable,
                "the machine answered but no longer runs this agent",
            ),
            Err(error) => ConnectOutcome::failed(ConnectKind::Unreachable, error.to_string()),
        }
    }

    /// Looks for an agent that is not where it was thought to be; nothing when it is found nowhere else, or
    /// was looked for a moment ago.
    async fn seek(&self, agent: AgentId, tried: Option<&PeerAddr>) -> Option<PeerAddr> {
        if !self.inner.sought.take(self.inner.clock.now(), agent) {
            return None;
        }
        // One that is refused for want of room takes place at a later attempt.
        let found = self.inner.discovery.seek(agent, SEEK).await.ok().flatten()?;
        if !self.believes(agent, found.machine) {
            return None;
        }
        // Without an address it is reached with the help of a common peer, or not at all.
        let found = PeerAddr::known(found.machine, found.addresses);
        let is_new = |tried: &PeerAddr| {
            let untried = |address| !tried.addresses.contains(address);
            tried.id != found.id || found.addresses.iter().any(untried)
        };
        tried.is_none_or(is_new).then_some(found)
    }

    /// Connects to a machine: where a session or the discovery cache says that it is, else with the help of
    /// a peer that has a session with it.
    pub async fn connect_machine(&self, machine: MachineId) -> ConnectOutcome {
        if let Some(session) = self.inner.node.session(machine) {
            return ConnectOutcome::found(&session);
        }
        let known = self.discovered(true).await.into_iter().find(|agent| agent.machine == machine);
        let is_known = known.is_some();
        let addresses = known.map(|known| known.addresses).unwrap_or_default();
        match self.inner.node.connect(PeerAddr::known(machine, addresses)).await {
            Ok(session) => ConnectOutcome::made(&session),
            Err(error) if is_known => {
                ConnectOutcome::failed(ConnectKind::Unreachable, error.to_string())
            }
            Err(_) => ConnectOutcome::failed(
                ConnectKind::NotFound,
                "machine is not known, and no peer has a session with it",
            ),
        }
    }

    /// The session whose peer proved this agent.
    #[must_use]
    pub fn session_of(&self, agent: AgentId) -> Option<SessionInfo> {
        let proved = |session: &SessionInfo| {
            session.agents.contains(&agent) && self.believes(agent, session.peer)
        };
        let indexed = self.inner.direct.machine_of(agent);
        let indexed = indexed.and_then(|machine| self.inner.node.session(machine));
        // The index is a moment behind the sessions; what it misses is looked for in all of them.
        indexed.filter(proved).or_else(|| self.sessions().into_iter().find(proved))
    }

    /// Agents with a live session, and their machines.
    #[must_use]
    pub fn connected_agents(&self) -> Vec<(AgentId, MachineId)> {
        self.sessions()
            .iter()
            .flat_map(|session| session.agents.iter().map(|agent| (*agent, session.peer)))
            .filter(|(agent, machine)| self.believes(*agent, *machine))
            .collect()
    }

    /// Whether this agent believes that another one is on a machine. What it refuses, nobody is shown.
    fn believes(&self, agent: AgentId, machine: MachineId) -> bool {
        self.gate().believes(&agent, &machine)
    }

    /// Agents seen lately, by id; with `unfiltered` also those whose announcement is stale.
    pub async fn discovered(&self, unfiltered: bool) -> Vec<DiscoveredAgent> {
        self.observe_sessions().await;
        let mut agents = self.inner.discovery.agents(unfiltered).await;
        agents.retain(|found| self.believes(found.agent, found.machine));
        agents
    }

    /// One agent of the discovery cache.
    pub async fn discovered_agent(&self, agent: &AgentId) -> Option<DiscoveredAgent> {
        self.observe_sessions().await;
        let found = self.inner.discovery.agent(agent).await;
        found.filter(|found| self.believes(found.agent, found.machine))
    }

    /// Looks for an agent: in the sessions and the discovery cache, then among neighbours, holders of
    /// records and friends of friends, for up to `patience`.
    ///
    /// # Errors
    /// [`FindError`] when nothing is known of the agent, and too many searches go on to look for it.
    pub async fn find(
        &self,
        agent: AgentId,
        patience: Duration,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        let search = self.inner.discovery.find(agent, patience);
        self.believed(agent, search).await
    }

    /// Like [`find`](Self::find), and when nobody knows the agent waits for its announcement until the
    /// patience is over.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn wait_for(
        &self,
        agent: AgentId,
        patience: Duration,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        let search = self.inner.discovery.wait_for(agent, patience);
        self.believed(agent, search).await
    }

    /// What a search finds that is believed; whoever is refused wherever it is need not be looked for.
    async fn believed(
        &self,
        agent: AgentId,
        search: impl Future<Output = Result<Option<DiscoveredAgent>, FindError>>,
    ) -> Result<Option<DiscoveredAgent>, FindError> {
        self.observe_sessions().await;
        if !self.gate().allows(&agent, None, Action::AnnounceAccept) {
            return Ok(None);
        }
        let found = search.await?;
        Ok(found.filter(|found| self.believes(found.agent, found.machine)))
    }

    /// Announces this agent now, beside the periodic announcements.
    ///
    /// # Errors
    /// The gossip layer is busy or closed.
    pub async fn announce(&self) -> Result<(), AnnounceError> {
        self.inner.discovery.announce().await
    }

    /// What a session hello proves is better than an announcement; note it in the cache.
    async fn observe_sessions(&self) {
        let discovery = &self.inner.discovery;
        for SessionInfo { peer, mut agents, listen_addresses, .. } in self.sessions() {
            agents.retain(|agent| self.believes(*agent, peer));
            discovery.observe_session(agents, peer, listen_addresses).await;
        }
    }
}

#[cfg(test)]
mod tests;
