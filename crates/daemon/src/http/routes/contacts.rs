//! `/contacts/*`, `/trust/*` and `/identity/revocations`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use x0x_agent::trust::{
    Action, Change, Contact, Level, MachineRecord, Outcome, ParseWordError, Policy, Revoker,
    Subject,
};
use x0x_api::{
    ErrorCode, True,
    types::{
        AddContactRequest, AddContactResponse, AddMachineRequest, ContactMachine,
        ContactMachineResponse, ContactMachinesResponse, ContactsResponse, EvaluateRequest,
        EvaluateResponse, OkResponse, PinResponse, Revocation, RevocationsResponse,
        RevokeContactRequest, SetTrustRequest, UnpinResponse, UpdateContactRequest,
    },
};
use x0x_core::{AgentId, MachineId};

use super::Answer;
use crate::{
    app::App,
    convert,
    http::{
        error::ApiError,
        extract::{JsonBody, PathPair, PathParameter},
    },
};

fn done() -> Json<OkResponse> {
    Json(OkResponse { ok: True::default() })
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Answer<ContactsResponse> {
    let trust = app.agent.trust();
    let contacts = trust.contacts();
    let contacts = contacts.into_iter().map(|contact| convert::contact(trust, contact)).collect();
    Ok(Json(ContactsResponse { ok: True::default(), contacts }))
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<AddContactRequest>,
) -> Result<Response, ApiError> {
    let agent: AgentId = request.agent_id.parse()?;
    let level = request.trust_level.as_deref().map(level).transpose()?;
    app.agent.trust().change(Change::Add { agent, level, label: request.label }).await?;
    let body = Json(AddContactResponse { ok: True::default(), agent_id: agent });
    Ok((StatusCode::CREATED, body).into_response())
}

pub(super) async fn set_trust(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<SetTrustRequest>,
) -> Answer<OkResponse> {
    let agent: AgentId = request.agent_id.parse()?;
    let level = Some(level(&request.level)?);
    app.agent.trust().change(Change::Update { agent, level, identity_type: None }).await?;
    Ok(done())
}

pub(super) async fn update(
    State(app): State<Arc<App>>,
    PathParameter(agent): PathParameter,
    JsonBody(request): JsonBody<UpdateContactRequest>,
) -> Answer<OkResponse> {
    let agent: AgentId = agent.parse()?;
    let level = request.trust_level.as_deref().map(level).transpose()?;
    let identity_type = request.identity_type.as_deref().map(str::parse).transpose();
    let identity_type = identity_type.map_err(ApiError::from)?;
    app.agent.trust().change(Change::Update { agent, level, identity_type }).await?;
    Ok(done())
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    PathParameter(agent): PathParameter,
) -> Answer<OkResponse> {
    let agent: AgentId = agent.parse()?;
    match app.agent.trust().change(Change::Remove { agent }).await? {
        Outcome::Missing => Err(ApiError::new(ErrorCode::NotFound, "contact not found")),
        _ => Ok(done()),
    }
}

pub(super) async fn revoke(
    State(app): State<Arc<App>>,
    PathParameter(agent): PathParameter,
    JsonBody(request): JsonBody<RevokeContactRequest>,
) -> Answer<OkResponse> {
    let agent: AgentId = agent.parse()?;
    app.agent.trust().change(Change::Revoke { agent, reason: request.reason }).await?;
    Ok(done())
}

pub(super) async fn contact_revocations(
    State(app): State<Arc<App>>,
    PathParameter(agent): PathParameter,
) -> Answer<RevocationsResponse> {
    let agent: AgentId = agent.parse()?;
    let user = app.agent.trust().sighting(&agent).and_then(|sighting| sighting.user_id);
    Ok(Json(revocations(&app, |subject| match subject {
        Subject::Agent(revoked) => *revoked == agent,
        Subject::User(revoked) => Some(*revoked) == user,
        _ => false,
    })))
}

pub(super) async fn all_revocations(State(app): State<Arc<App>>) -> Answer<RevocationsResponse> {
    Ok(Json(revocations(&app, |_| true)))
}

fn revocations(app: &App, wanted: impl Fn(&Subject) -> bool) -> RevocationsResponse {
    let records = app.agent.trust().revocations();
    let records = records.into_iter().filter(|record| wanted(&record.subject));
    let revocations = records.map(|record| Revocation {
        kind: record.subject.kind().to_owned(),
        id: AgentId::new(*record.subject.as_bytes()),
        agent_id: match record.subject {
            Subject::Agent(agent) => Some(agent),
            _ => None,
        },
        reason: record.reason,
        timestamp: record.at.as_secs(),
        revoker_id: match record.by {
            Revoker::User(user) => Some(user),
            _ => None,
        },
        local: record.by == Revoker::Local,
    });
    RevocationsResponse { ok: True::default(), revocations: revocations.collect() }
}

pub(super) async fn machines(
    State(app): State<Arc<App>>,
    PathParameter(agent): PathParameter,
) -> Answer<ContactMachinesResponse> {
    let contact = app.agent.trust().contact(&agent.parse()?);
    let machines = contact.map(|contact: Contact| contact.machines).unwrap_or_default();
    let machines = machines.into_iter().map(machine).collect();
    Ok(Json(ContactMachinesResponse { ok: True::default(), machines }))
}

pub(super) async fn add_machine(
    State(app): State<Arc<App>>,
    PathParameter(agent): PathParameter,
    JsonBody(request): JsonBody<AddMachineRequest>,
) -> Result<Response, ApiError> {
    let agent: AgentId = agent.parse()?;
    let machine_id = request.machine_id.parse::<MachineId>().map_err(|_| {
        let text = "machine_id must be a 64-character hex string";
        ApiError::new(ErrorCode::InvalidHex, text)
    })?;
    let AddMachineRequest { label, pinned, .. } = request;
    let trust = app.agent.trust();
    let change = Change::PutMachine { agent, machine: machine_id, label, pinned };
    let status = match trust.change(change).await? {
        Outcome::Created => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    let contact = trust.contact(&agent);
    let record = contact.as_ref().and_then(|contact| contact.machine(&machine_id));
    let record = record.cloned().ok_or_else(|| {
        // Somebody else removed it in this moment.
        ApiError::new(ErrorCode::NotFound, "machine not found")
    })?;
    let body = Json(ContactMachineResponse { ok: True::default(), machine: machine(record) });
    Ok((status, body).into_response())
}

pub(super) async fn remove_machine(
    State(app): State<Arc<App>>,
    PathPair(agent, machine): PathPair,
) -> Result<Response, ApiError> {
    let (agent, machine) = ids(&agent, &machine)?;
    match app.agent.trust().change(Change::RemoveMachine { agent, machine }).await? {
        Outcome::Missing => Err(ApiError::new(ErrorCode::NotFound, "machine not found")),
        _ => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

pub(super) async fn pin(
    State(app): State<Arc<App>>,
    PathPair(agent, machine): PathPair,
) -> Answer<PinResponse> {
    let pinned = set_pin(&app, &agent, &machine, true).await?;
    Ok(Json(PinResponse { ok: True::default(), pinned }))
}

pub(super) async fn unpin(
    State(app): State<Arc<App>>,
    PathPair(agent, machine): PathPair,
) -> Answer<UnpinResponse> {
    let unpinned = set_pin(&app, &agent, &machine, false).await?;
    Ok(Json(UnpinResponse { ok: True::default(), unpinned }))
}

/// Whether the machine is on record.
async fn set_pin(app: &App, agent: &str, machine: &str, pinned: bool) -> Result<bool, ApiError> {
    let (agent, machine) = ids(agent, machine)?;
    let outcome = app.agent.trust().change(Change::Pin { agent, machine, pinned }).await?;
    Ok(outcome != Outcome::Missing)
}

pub(super) async fn evaluate(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<EvaluateRequest>,
) -> Answer<EvaluateResponse> {
    let (agent, machine) = (request.agent_id.parse()?, request.machine_id.parse()?);
    let trust = app.agent.trust();
    let decision = trust.decide(&agent, Some(&machine), Action::DirectReceive);
    Ok(Json(EvaluateResponse {
        ok: True::default(),
        decision: convert::decision(decision.reason.into()),
        reason: decision.reason.to_string(),
    }))
}

fn machine(record: MachineRecord) -> ContactMachine {
    ContactMachine {
        machine_id: record.machine_id,
        label: record.label,
        first_seen: record.first_seen.as_secs(),
        last_seen: record.last_seen.as_secs(),
        pinned: record.pinned,
    }
}

fn ids(agent: &str, machine: &str) -> Result<(AgentId, MachineId), ApiError> {
    let machine = machine
        .parse()
        .map_err(|_| ApiError::new(ErrorCode::InvalidHex, "invalid machine_id hex"))?;
    Ok((agent.parse()?, machine))
}

/// A trust level by its name.
pub(super) fn level(text: &str) -> Result<Level, ApiError> {
    text.parse().map_err(ApiError::from)
}

impl From<ParseWordError> for ApiError {
    fn from(error: ParseWordError) -> Self {
        Self::new(ErrorCode::InvalidValue, error.to_string())
    }
}
