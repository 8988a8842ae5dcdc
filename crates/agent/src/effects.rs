//! What a change of trust leads to, at once: sessions of those who are refused end, and what was learned
//! from them is forgotten.
//!
//! Letters that wait for somebody who is blocked now are settled as blocked, and transfers of files with them
//! fail.
//!
//! A blocked agent keeps its session: it could tell by its end that it is blocked, and it may carry what
//! others say. Nothing that it says itself gets further than the policy.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, MachineId};
use x0x_direct::outbox::Outbox;
use x0x_files::Files;
use x0x_identity::{BindingPolicy, Subject};
use x0x_presence::Presence;
use x0x_rendezvous::Discovery;
use x0x_transport::{Node, SessionInfo, Transport};
use x0x_trust::{Action, TrustEvent, TrustEvents};

use crate::trust::Gate;

/// How often the sessions are looked at without a reason: for one that began in the instant of a change.
const SWEEP: Duration = Duration::from_secs(30);

/// Carries changes of trust to the layers.
#[derive(Debug)]
pub(crate) struct Effects {
    pub(crate) gate: Gate,
    pub(crate) node: Arc<Node>,
    pub(crate) discovery: Discovery,
    pub(crate) presence: Presence,
    pub(crate) outbox: Outbox,
    pub(crate) files: Files,
    pub(crate) events: TrustEvents,
}

impl Effects {
    /// Until it is stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut sweep = tokio::time::interval(SWEEP);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                event = self.events.next() => match event {
                    Some(event) => self.follow(event).await,
                    None => return,
                },
                _ = sweep.tick() => self.expel(None),
            }
        }
    }

    async fn follow(&self, event: TrustEvent) {
        match event {
            TrustEvent::Contact { .. } => {}
            TrustEvent::Moved { agent, to, refused: true, .. } => {
                tracing::warn!(
                    agent = %agent.short(),
                    machine = %to.short(),
                    "a pinned contact says that it moved; it is refused there until its pin is changed"
                );
            }
            TrustEvent::Level { agent, .. }
            | TrustEvent::Removed { agent }
            | TrustEvent::Pins { agent }
            | TrustEvent::Moved { agent, .. }
            | TrustEvent::Revoked { subject: Subject::Agent(agent) } => {
                self.enforce(Some(agent)).await;
            }
            // Keys of machines and users concern whoever has to do with them.
            _ => self.enforce(None).await,
        }
    }

    /// Ends what an agent, or any, must not have any more.
    async fn enforce(&self, agent: Option<AgentId>) {
        self.expel(agent);
        // Without an agent's name, the next attempt to send finds out.
        if let Some(agent) = agent
            && !self.gate.allows(&agent, None, Action::DirectSend)
        {
            self.outbox.forbid(agent).await;
        }
        self.files.reconsider(agent).await;
        let known = match agent {
            Some(agent) => self.discovery.agent(&agent).await.into_iter().collect(),
            None => self.discovery.agents(true).await,
        };
        let doubted = known.into_iter().filter(|it| !self.gate.believes(&it.agent, &it.machine));
        let doubted: Vec<AgentId> = doubted.map(|it| it.agent).collect();
        if !doubted.is_empty() {
            self.discovery.forget(doubted).await;
        }
        self.presence.reconsider(agent).await;
    }

    /// Ends the sessions in which the agent, or any, counts as proven and must not. The machine may come
    /// back, and is counted without it then.
    fn expel(&self, agent: Option<AgentId>) {
        for SessionInfo { peer, agents, .. } in self.node.sessions() {
            let refused =
                |of: &AgentId| agent.is_none_or(|agent| agent == *of) && !self.counts(of, &peer);
            if agents.iter().any(refused) || self.gate.refuses(&peer) {
                self.node.expel(peer);
            }
        }
    }

    fn counts(&self, agent: &AgentId, machine: &MachineId) -> bool {
        self.gate.allows(agent, Some(machine), Action::SessionAccept)
    }
}
