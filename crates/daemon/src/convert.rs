//! Values of the layers as the API shows them.

use std::{net::SocketAddr, path::PathBuf};

use data_encoding::HEXLOWER;
use x0x_agent::{
    Agent, Cursor, DirectMessage, DiscoveredAgent, Kind, LetterState, Mapping, MessageId, NotLeft,
    PathKind, PresenceState, PresenceStatus, Reach, ReachClass, Retention, SessionInfo, Side,
    Start, TRANSFER_CHUNK, TransferDirection, TransferInfo, TransferPhase, TransferWaiting,
    WallTime, transfer_chunks,
    trust::{Assessment, Contact, IdentityType, Level, Subject, Trust},
};
use x0x_api::{
    Base64, CursorToken, ErrorCode, Since,
    event::{DirectMessageEvent, TrustDecision, TrustLevel},
    types,
};

use crate::http::error::ApiError;

/// A direct message. Its sender was proven in the hello of the session that it came over.
pub(crate) fn direct_event(
    message: DirectMessage,
    stands: Assessment,
    trust: Level,
) -> DirectMessageEvent {
    DirectMessageEvent {
        request_id: HEXLOWER.encode(&message.id),
        reply_to: message.reply_to.map(|id| HEXLOWER.encode(&id)),
        number: message.number,
        trust_level: Some(level(trust)),
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

/// The same, with what the trust rules say of its sender now.
pub(crate) fn mail(agent: &Agent, message: DirectMessage) -> DirectMessageEvent {
    let trust = agent.trust();
    let stands = trust.assess(&message.from, Some(&message.machine));
    let level = trust.level(&message.from);
    direct_event(message, stands, level)
}

/// What class of direct message is meant.
pub(crate) const fn kind(class: types::DirectClass) -> Kind {
    match class {
        types::DirectClass::Session => Kind::Session,
        _ => Kind::Mail,
    }
}

/// The id that names a direct message.
pub(crate) fn message_id(text: &str) -> Result<MessageId, ApiError> {
    let id = HEXLOWER.decode(text.as_bytes()).ok().and_then(|id| id.try_into().ok());
    let error = || ApiError::new(ErrorCode::InvalidHex, "expected 32 lowercase hex characters");
    id.ok_or_else(error)
}

/// How far a letter came.
pub(crate) const fn letter_state(state: LetterState) -> types::DirectState {
    match state {
        LetterState::Queued => types::DirectState::Queued,
        LetterState::Sent => types::DirectState::Sent,
        LetterState::Received => types::DirectState::Received,
        LetterState::Read => types::DirectState::Read,
        LetterState::Expired => types::DirectState::Expired,
        LetterState::Cancelled => types::DirectState::Cancelled,
        LetterState::Blocked => types::DirectState::Blocked,
        _ => types::DirectState::Failed,
    }
}

/// Why a message is not left with others, as far as this version can tell.
pub(crate) const fn not_left(why: NotLeft) -> Option<types::NotLeft> {
    match why {
        NotLeft::TooLarge => Some(types::NotLeft::TooLarge),
        NotLeft::BehindTooLarge => Some(types::NotLeft::BehindTooLarge),
        NotLeft::NoMailbox => Some(types::NotLeft::NoMailbox),
        _ => None,
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
        user_id: trust.user_of(&contact.agent_id),
        moved_to: trust.refused_move(&contact.agent_id),
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
    types::DiscoveredAgent { user_id: trust.user_of(&agent.agent), ..discovered(agent) }
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

/// A session and its path.
pub(crate) fn session(info: &SessionInfo) -> types::PeerSession {
    let (path, via) = match info.path {
        PathKind::Relayed { via } => (types::PathKind::Relayed, Some(via)),
        PathKind::Stream => (types::PathKind::Stream, None),
        _ => (types::PathKind::Direct, None),
    };
    types::PeerSession {
        path,
        via,
        address: info.remote_address,
        opened_by: match info.side {
            Side::Dialer => types::OpenedBy::Us,
            _ => types::OpenedBy::Peer,
        },
        rtt_us: info.rtt.as_micros() as u64,
        generation: info.generation,
    }
}

/// How a machine can be reached.
pub(crate) const fn reach_class(class: ReachClass) -> types::ReachClass {
    match class {
        ReachClass::Public => types::ReachClass::Public,
        ReachClass::Punchable => types::ReachClass::Punchable,
        ReachClass::RelayOnly => types::ReachClass::RelayOnly,
        _ => types::ReachClass::Unknown,
    }
}

const fn mapping(mapping: Mapping) -> types::Mapping {
    match mapping {
        Mapping::Independent => types::Mapping::Independent,
        Mapping::Dependent => types::Mapping::Dependent,
        _ => types::Mapping::Unknown,
    }
}

/// How this machine is reached, and where others are told to dial it.
pub(crate) fn reach(reach: &Reach, told: Vec<SocketAddr>) -> types::Reach {
    let external = reach.external.iter().map(|external| types::ExternalAddress {
        address: external.address,
        confirmed: external.confirmed,
        networks: external.networks as u64,
    });
    types::Reach {
        class: reach_class(reach.class),
        external: external.collect(),
        mapping_v4: mapping(reach.mapping_v4),
        mapping_v6: mapping(reach.mapping_v6),
        told,
    }
}

/// Names as text.
pub(crate) fn names(names: &[&str]) -> Vec<String> {
    names.iter().copied().map(str::to_owned).collect()
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

/// A transfer.
pub(crate) fn transfer(info: TransferInfo) -> types::Transfer {
    let TransferInfo { record, verified, waiting, .. } = info;
    let text = |path: Option<PathBuf>| path.map(|path| path.to_string_lossy().into_owned());
    let hex = |hash: Option<[u8; 32]>| hash.map(|hash| HEXLOWER.encode(&hash)).unwrap_or_default();
    types::Transfer {
        transfer_id: record.id.to_string(),
        direction: match record.direction {
            TransferDirection::Receiving => types::TransferDirection::Receiving,
            _ => types::TransferDirection::Sending,
        },
        remote_agent_id: record.peer,
        filename: record.name,
        media_type: (!record.media_type.is_empty()).then_some(record.media_type),
        total_size: record.size,
        bytes_transferred: verified,
        status: match record.phase {
            TransferPhase::Preparing | TransferPhase::Offered => types::TransferStatus::Pending,
            TransferPhase::Complete => types::TransferStatus::Complete,
            TransferPhase::Rejected => types::TransferStatus::Rejected,
            TransferPhase::Failed | TransferPhase::Cancelled => types::TransferStatus::Failed,
            _ => types::TransferStatus::InProgress,
        },
        state: transfer_state(record.phase, waiting),
        sha256: hex(record.sha256),
        blake3: hex(record.root),
        error: record.reason,
        started_at: record.started.as_secs(),
        started_at_unix_ms: record.started.as_millis(),
        completed_at_unix_ms: record.ended.map(WallTime::as_millis),
        source_path: text(record.source),
        output_path: text(record.output),
        chunk_size: TRANSFER_CHUNK,
        total_chunks: transfer_chunks(record.size),
    }
}

const fn transfer_state(
    phase: TransferPhase,
    waiting: Option<TransferWaiting>,
) -> types::TransferState {
    use types::TransferState as State;
    match (phase, waiting) {
        (TransferPhase::Preparing, _) => State::Preparing,
        (TransferPhase::Offered, _) => State::Offered,
        (TransferPhase::Paused, _) => State::Paused,
        (TransferPhase::Complete, _) => State::Complete,
        (TransferPhase::Rejected, _) => State::Rejected,
        (TransferPhase::Cancelled, _) => State::Cancelled,
        (TransferPhase::Failed, _) => State::Failed,
        (_, Some(TransferWaiting::Peer)) => State::WaitingForPeer,
        (_, Some(TransferWaiting::PeerPaused)) => State::PeerPaused,
        (_, Some(TransferWaiting::Space)) => State::WaitingForSpace,
        (_, Some(TransferWaiting::Disk)) => State::WaitingForDisk,
        (_, Some(TransferWaiting::Turn)) => State::WaitingForTurn,
        (_, _) => State::Active,
    }
}
