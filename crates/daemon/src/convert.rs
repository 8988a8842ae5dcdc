//! Values of the layers as the API shows them.

use x0x_agent::{Cursor, DirectMessage, DiscoveredAgent, Start};
use x0x_api::{
    Base64, CursorToken, Since,
    event::{DirectMessageEvent, TrustDecision},
    types,
};

/// A direct message. Its sender was proven in the hello of the session that it came over.
pub(crate) fn direct_event(message: DirectMessage) -> DirectMessageEvent {
    DirectMessageEvent {
        sender: message.from,
        machine_id: message.machine,
        payload: Base64(message.payload),
        received_at: message.received_at.as_millis(),
        verified: true,
        trust_decision: Some(TrustDecision::Unknown),
    }
}

/// An agent of the discovery cache.
pub(crate) fn discovered(agent: DiscoveredAgent) -> types::DiscoveredAgent {
    types::DiscoveredAgent {
        agent_id: agent.agent,
        machine_id: agent.machine,
        // No certificate confirms what an agent says of its user yet.
        user_id: None,
        addresses: agent.addresses,
        announced_at: agent.announced_at.as_secs(),
        last_seen: agent.last_seen.as_secs(),
    }
}

/// A place in a topic's log.
pub(crate) fn cursor(cursor: Cursor) -> CursorToken {
    CursorToken { log: cursor.log(), position: cursor.position() }
}

/// Where a subscription begins.
pub(crate) fn start(since: Since) -> Start {
    match since {
        Since::Now => Start::Live,
        Since::After(CursorToken { log, position }) => Start::After(Cursor::new(log, position)),
        _ => Start::Retained,
    }
}
