//! `/peers` and `/network/bootstrap-cache`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use axum::{Json, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use x0x_agent::{Agent, MAX_PROBE_TIME, SessionInfo};
use x0x_api::{
    ErrorCode, True,
    event::{PEER_LIFECYCLE, PeerChange, PeerEventKind},
    types::{
        BootstrapCacheResponse, CachedPeer, Peer, PeerHealthResponse, PeerSnapshot, PeersResponse,
        ProbeResponse,
    },
};
use x0x_core::{Clock, MachineId, SystemClock};

use super::{Answer, connectivity::SIGNATURE_SCHEME};
use crate::{
    app::App,
    convert,
    events::Encoded,
    http::{
        error::ApiError,
        extract::{Params, PathParameter},
        feeds::{Changes, Standing},
        sse,
    },
};

/// How often the sessions are looked at while somebody listens.
const LOOK: Duration = Duration::from_millis(500);
/// How long the answer to a probe is waited for when nothing is said, and at least.
const PROBE_TIME: Duration = Duration::from_secs(2);
const MIN_PROBE_TIME: Duration = Duration::from_millis(100);

pub(super) async fn peers(State(app): State<Arc<App>>) -> Answer<PeersResponse> {
    let peer =
        |session: &SessionInfo| Peer { id: session.peer, session: convert::session(session) };
    let peers = app.agent.sessions().iter().map(peer).collect();
    Ok(Json(PeersResponse { ok: True::default(), peers }))
}

pub(super) async fn health(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<PeerHealthResponse> {
    let peer_id: MachineId = id.parse()?;
    let session = app.agent.sessions().into_iter().find(|session| session.peer == peer_id);
    let connected = session.is_some();
    let health = if connected { "connected" } else { "not connected" };
    Ok(Json(PeerHealthResponse {
        ok: True::default(),
        peer_id,
        health: health.to_owned(),
        snapshot: PeerSnapshot {
            connected,
            generation: session.as_ref().map(|session| session.generation),
            reader_task_active: connected,
            packets_received: app.agent.packets_received(peer_id),
            session: session.as_ref().map(convert::session),
            key_exchange_groups: convert::names(app.agent.key_exchange_groups()),
            signature_scheme: SIGNATURE_SCHEME.to_owned(),
        },
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ProbeParams {
    timeout_ms: Option<u64>,
}

pub(super) async fn probe(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    Params(params): Params<ProbeParams>,
) -> Answer<ProbeResponse> {
    let peer: MachineId = id.parse()?;
    let patience = params.timeout_ms.map_or(PROBE_TIME, Duration::from_millis);
    let patience = patience.clamp(MIN_PROBE_TIME, MAX_PROBE_TIME);
    let rtt =
        app.agent.probe(peer, patience).await.map_err(|error| {
            ApiError::new(ErrorCode::ProbeFailed, format!("probe failed: {error}"))
        })?;
    Ok(Json(ProbeResponse {
        ok: True::default(),
        rtt_ms: rtt.as_millis() as u64,
        rtt_us: rtt.as_micros() as u64,
        timeout_ms: patience.as_millis() as u64,
    }))
}

pub(super) async fn bootstrap_cache(State(app): State<Arc<App>>) -> Answer<BootstrapCacheResponse> {
    let connected: Vec<_> = app.agent.sessions().iter().map(|session| session.peer).collect();
    let cached = app.agent.cached_peers().await.into_iter().map(|cached| CachedPeer {
        peer_id: cached.peer.id(),
        addresses: cached.peer.addresses().to_vec(),
        last_seen: cached.seen.as_secs(),
        dialled: cached.dialled,
        anchor: cached.anchor,
        failures: cached.failures,
    });
    Ok(Json(BootstrapCacheResponse {
        ok: True::default(),
        connection_count: connected.len() as u64,
        connected_peers: connected,
        cached_peers: cached.collect(),
    }))
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let changes = || PeerChanges { live: live(&app.agent), agent: app.agent.clone() };
    app.feeds.peers.respond(&app, &headers, changes, Live(app.agent.clone()))
}

/// Each machine that there is a session with, and the session's number.
type Sessions = BTreeMap<MachineId, u64>;

fn live(agent: &Agent) -> Sessions {
    agent.sessions().into_iter().map(|session| (session.peer, session.generation)).collect()
}

/// Which sessions begin and end.
struct PeerChanges {
    agent: Agent,
    /// As seen last.
    live: Sessions,
}

impl Changes for PeerChanges {
    async fn next(&mut self) -> Option<Vec<Encoded>> {
        tokio::time::sleep(LOOK).await;
        let now = live(&self.agent);
        let before = std::mem::replace(&mut self.live, now);
        Some(encoded(changes(&before, &self.live)))
    }
}

/// Which sessions are live.
struct Live(Agent);

impl Standing for Live {
    async fn tell(&self) -> Vec<Encoded> {
        encoded(changes(&Sessions::new(), &live(&self.0)))
    }
}

fn encoded(changes: Vec<(MachineId, PeerEventKind)>) -> Vec<Encoded> {
    let at_ms = SystemClock::new().wall().as_millis();
    let encode =
        |(peer_id, event)| sse::encode(PEER_LIFECYCLE, &PeerChange { peer_id, event, at_ms });
    changes.into_iter().map(encode).collect()
}

/// What happened between two looks at the sessions, each a machine with its session's number.
fn changes(before: &Sessions, now: &Sessions) -> Vec<(MachineId, PeerEventKind)> {
    let gone = before.keys().filter(|peer| !now.contains_key(peer));
    let gone = gone.map(|peer| (*peer, PeerEventKind::Closed));
    let come = now.iter().filter_map(|(peer, number)| match before.get(peer) {
        None => Some((*peer, PeerEventKind::Established)),
        Some(old) if old != number => Some((*peer, PeerEventKind::Replaced)),
        Some(_) => None,
    });
    gone.chain(come).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_begin_end_and_are_replaced() {
        let sessions = |of: &[(u8, u64)]| -> BTreeMap<MachineId, u64> {
            of.iter().map(|(peer, number)| (MachineId::new([*peer; 32]), *number)).collect()
        };
        let (before, now) =
            (sessions(&[(1, 1), (2, 2), (3, 3)]), sessions(&[(2, 2), (3, 4), (4, 5)]));
        let changes: Vec<_> = changes(&before, &now)
            .into_iter()
            .map(|(peer, kind)| (peer.as_bytes()[0], kind))
            .collect();
        use PeerEventKind::{Closed, Established, Replaced};
        assert_eq!(changes, [(1, Closed), (3, Replaced), (4, Established)]);
    }
}
