//! Values of the layers as the API shows them.

use x0x_agent::{
    Cursor, DirectMessage, DiscoveredAgent, PresenceState, PresenceStatus, Retention, Start,
    trust::{Assessment, Contact, IdentityType, Level, Subject, Trust},
};
use x0x_api::{
    Base64, CursorToken, Since,
    event::{DirectMessageEvent, TrustDecision, TrustLevel},
    types,
};

/// A direct message. Its sender was proven in the hello of the session that it came over.
pub(crate) fn direct_event(message: DirectMessage, stands: Assessment) -> DirectMessageEvent {
    DirectMessageEvent {
        sender: message.from,
        machine_id: message.machine,
        payload: Base64(message.payload),
        received_at: message.received_at.as_millis(),
        verified: true,
        trust_decision: Some(match stands {
            Assessment::Accept => TrustDecision::Accept,
            Assessment::AcceptWithFlag => TrustDecision::AcceptWithFlag,
            Assessment::RejectMachineMismatch => TrustDecision::RejectMachineMismatch,
            Assessment::RejectBlocked => TrustDecision::RejectBlocked,
            _ => TrustDecision::Unknown,
        }),
    }
}

/// The same as a word of `POST /trust/evaluate`.
pub(crate) const fn decision(stands: Assessment) -> types::Decision {
    match stands {
        Assessment::Accept => types::Decision::Accept,
        Assessment::AcceptWithFlag => types::Decision::AcceptWithFlag,
        Assessment::RejectMachineMismatch => types::Decision::RejectMachineMismatch,
        Assessment::RejectBlocked => types::Decision::RejectBlocked,
        _ => types::Decision::Unknown,
    }
}

/// How much an agent is trusted.
pub(crate) const fn level(level: Level) -> TrustLevel {
    match level {
        Level::Blocked => TrustLevel::Blocked,
        Level::Known => TrustLevel::Known,
        Level::Trusted => TrustLevel::Trusted,
        _ => TrustLevel::Unknown,
    }
}

/// A contact.
pub(crate) fn contact(trust: &Trust, contact: Contact) -> types::Contact {
    let user = contact.sighting.user_id;
    let revoked = trust.is_revoked(&Subject::Agent(contact.agent_id))
        || user.is_some_and(|user| trust.is_revoked(&Subject::User(user)));
    types::Contact {
        agent_id: contact.agent_id,
        trust_level: level(trust.level(&contact.agent_id)),
        identity_type: match contact.identity_type {
            IdentityType::Known => types::IdentityType::Known,
            IdentityType::Trusted => types::IdentityType::Trusted,
            IdentityType::Pinned => types::IdentityType::Pinned,
            _ => types::IdentityType::Anonymous,
        },
        label: contact.label,
        added_at: contact.added_at.as_secs(),
        last_seen: contact.last_seen.map(|seen| seen.as_secs()),
        user_id: user,
        revoked,
    }
}

/// An agent of the discovery cache.
pub(crate) fn discovered(agent: DiscoveredAgent) -> types::DiscoveredAgent {
    types::DiscoveredAgent {
        agent_id: agent.agent,
        machine_id: agent.machine,
        user_id: None,
        addresses: agent.addresses,
        announced_at: agent.announced_at.as_secs(),
        last_seen: agent.last_seen.as_secs(),
    }
}

/// The same with the user behind it, if a certificate confirmed one.
pub(crate) fn certified(trust: &Trust, agent: DiscoveredAgent) -> types::DiscoveredAgent {
    let user_id = trust.sighting(&agent.agent).and_then(|sighting| sighting.user_id);
    types::DiscoveredAgent { user_id, ..discovered(agent) }
}

/// An agent of which presence tells, at the place that discovery knows; none when nobody knows one.
pub(crate) fn present(
    status: &PresenceStatus,
    known: Option<DiscoveredAgent>,
) -> Option<types::DiscoveredAgent> {
    let last_seen = status.last_seen.as_secs();
    match known {
        Some(known) => {
            let mut shown = discovered(known);
            shown.last_seen = shown.last_seen.max(last_seen);
            Some(shown)
        }
        None => Some(types::DiscoveredAgent {
            agent_id: status.agent,
            machine_id: status.machine?,
            user_id: None,
            addresses: Vec::new(),
            announced_at: last_seen,
            last_seen,
        }),
    }
}

/// Whether an agent is there.
pub(crate) const fn presence_state(state: PresenceState) -> types::PresenceState {
    match state {
        PresenceState::Online => types::PresenceState::Online,
        PresenceState::Away => types::PresenceState::Away,
        PresenceState::Offline => types::PresenceState::Offline,
        _ => types::PresenceState::Unknown,
    }
}

/// A place in a topic's log.
pub(crate) fn cursor(cursor: Cursor) -> CursorToken {
    CursorToken { log: cursor.log(), position: cursor.position() }
}

/// How long a message is kept. A class of a later release is refused before it gets here.
pub(crate) const fn retention(retention: types::Retention) -> Retention {
    match retention {
        types::Retention::Latest => Retention::Latest,
        types::Retention::Ephemeral => Retention::Ephemeral,
        _ => Retention::Standard,
    }
}

/// Where a subscription begins.
pub(crate) fn start(since: Since) -> Start {
    match since {
        Since::Now => Start::Live,
        Since::After(CursorToken { log, position }) => Start::After(Cursor::new(log, position)),
        _ => Start::Retained,
    }
}
