//! `/groups/*`.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State, http::StatusCode};
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use x0x_agent::named_groups::{
    ActError, Action, Admission, Confidentiality, CourierError, Discoverability, GroupError,
    GroupId, GroupPolicy, GroupState, GroupsError, InviteLink, MemberState, Profile, ReadAccess,
    RequestState, Role, Room, SessionError, WriteAccess,
};
use x0x_api::{
    ErrorCode, True,
    types::{
        AddMemberRequest, AskToJoinRequest, AskedToJoinResponse, ChangeGroupPolicyRequest,
        ChangeGroupRequest, CreateGroupRequest, DisplayNameRequest, GroupCreatedResponse,
        GroupInfo, GroupMember, GroupMembersResponse, GroupPolicyInfo, GroupResponse,
        GroupRevisionResponse, GroupsResponse, InviteRequest, InviteResponse, JoinGroupRequest,
        JoinOpenGroupRequest, JoinRequestInfo, JoinRequestsResponse, OkResponse, RoomInfo,
        RoomRequest, SetRoleRequest,
    },
};
use x0x_core::AgentId;

pub(super) mod cards;
pub(super) mod keys;
pub(super) mod state;
pub(super) mod talk;

use super::Answer;
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, OptionalBody, PathPair, PathParameter},
    },
};

/// How long an invite is valid unless it is said.
const INVITE_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest validity that is taken: beyond, it may as well be for ever.
const MAX_VALIDITY: u64 = 100 * 366 * 24 * 3600;

impl From<GroupsError> for ApiError {
    fn from(error: GroupsError) -> Self {
        let code = match &error {
            GroupsError::Session(SessionError::Act(error)) => match error {
                ActError::Role(_) | ActError::Policy(_) => ErrorCode::NotPermitted,
                ActError::Target(text) if text.contains("not found") => ErrorCode::NotFound,
                ActError::Limit(_) => ErrorCode::LimitReached,
                ActError::Text(_) => ErrorCode::InvalidValue,
                _ => ErrorCode::Conflict,
            },
            GroupsError::Session(SessionError::Mls(error)) => match error {
                GroupError::Limit(_) => ErrorCode::LimitReached,
                GroupError::Membership(_) | GroupError::NotMember => ErrorCode::Conflict,
                GroupError::Store(_) => ErrorCode::NotStored,
                GroupError::Internal(_) => ErrorCode::Internal,
                _ => ErrorCode::BadRequest,
            },
            GroupsError::Session(_) => ErrorCode::BadRequest,
            GroupsError::Courier(CourierError::Silent) => ErrorCode::Timeout,
            GroupsError::Courier(CourierError::Busy) => ErrorCode::Busy,
            GroupsError::Courier(CourierError::TooLarge) => ErrorCode::PayloadTooLarge,
            GroupsError::Courier(_) => ErrorCode::PeerDisconnected,
            GroupsError::Refused(_) => ErrorCode::RecipientRejected,
            GroupsError::Store(_) | GroupsError::Log(_) => ErrorCode::NotStored,
            GroupsError::Closed => ErrorCode::ShuttingDown,
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

fn hex32(text: &str, what: &str) -> Result<[u8; 32], ApiError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let id = bytes.and_then(|bytes| bytes.try_into().ok());
    let wrong = || ApiError::new(ErrorCode::InvalidHex, format!("{what} has 64 hex digits"));
    id.ok_or_else(wrong)
}

fn group_id(text: &str) -> Result<GroupId, ApiError> {
    hex32(text, "a group id").map(GroupId::new)
}

fn bad(code: ErrorCode, text: &str) -> ApiError {
    ApiError::new(code, text)
}

async fn find(app: &App, id: &str) -> Result<GroupState, ApiError> {
    Ok(app.agent.groups().get(group_id(id)?).await?)
}

fn info(state: &GroupState) -> GroupInfo {
    let view = &state.view;
    let founded = view.founded.map(|(creator, at, _)| (creator, at.as_millis()));
    let (creator, created_at) = founded.unwrap_or((AgentId::new([0; 32]), 0));
    GroupInfo {
        group_id: state.group.to_string(),
        name: view.profile.name.clone(),
        description: view.profile.description.clone(),
        creator,
        created_at,
        member_count: view.active().count() as u64,
        encrypted: view.policy.as_ref().is_some_and(GroupPolicy::is_encrypted),
    }
}

fn policy_info(policy: GroupPolicy) -> GroupPolicyInfo {
    GroupPolicyInfo {
        discoverability: policy.discoverability.word().to_owned(),
        admission: policy.admission.word().to_owned(),
        confidentiality: policy.confidentiality.word().to_owned(),
        read_access: policy.read_access.word().to_owned(),
        write_access: policy.write_access.word().to_owned(),
        invite_role: policy.invite_role.word().to_owned(),
        shares_history: policy.shares_history,
    }
}

fn room_info(room: &Room) -> RoomInfo {
    RoomInfo { room: room.name.clone(), topic: room.topic.clone(), closed: room.closed }
}

/// Who is in a group and who must not be; not who was.
fn roster(state: &GroupState) -> Vec<GroupMember> {
    let members = state.view.members.iter().filter_map(|(agent, member)| {
        let (role, standing) = match member.state {
            MemberState::Active(role) => (role.word(), "active"),
            MemberState::Banned => ("guest", "banned"),
            _ => return None,
        };
        let fallback = || format!("{}…", &agent.to_string()[..8]);
        Some(GroupMember {
            agent_id: *agent,
            role: role.to_owned(),
            state: standing.to_owned(),
            display_name: match member.display_name.is_empty() {
                true => fallback(),
                false => member.display_name.clone(),
            },
            joined_at: member.since.as_millis(),
            added_by: member.by,
        })
    });
    members.collect()
}

fn members_response(state: &GroupState) -> GroupMembersResponse {
    GroupMembersResponse {
        ok: True::default(),
        group_id: state.group.to_string(),
        epoch: state.keys.as_ref().map(|(epoch, _)| *epoch),
        member_count: state.view.active().count() as u64,
        members: roster(state),
    }
}

async fn created(app: &App, group: GroupId) -> Result<GroupCreatedResponse, ApiError> {
    let state = app.agent.groups().get(group).await?;
    Ok(GroupCreatedResponse {
        ok: True::default(),
        group_id: group.to_string(),
        name: state.view.profile.name.clone(),
        group_name: state.view.profile.name.clone(),
        chat_topic: state.topic,
    })
}

async fn revision(app: &App, group: GroupId) -> Answer<GroupRevisionResponse> {
    let revision = app.agent.groups().get(group).await?.view.revision;
    Ok(Json(GroupRevisionResponse { ok: True::default(), revision }))
}

async fn act(app: &App, id: &str, action: Action) -> Answer<GroupRevisionResponse> {
    let group = group_id(id)?;
    app.agent.groups().act(group, action).await?;
    revision(app, group).await
}

fn preset(name: &str) -> Result<GroupPolicy, ApiError> {
    GroupPolicy::preset(name).ok_or_else(|| bad(ErrorCode::InvalidValue, "unknown preset"))
}

pub(super) async fn list(State(app): State<Arc<App>>) -> Answer<GroupsResponse> {
    let groups = app.agent.groups().list().await?.iter().map(info).collect();
    Ok(Json(GroupsResponse { ok: True::default(), groups }))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<CreateGroupRequest>,
) -> Result<(StatusCode, Json<GroupCreatedResponse>), ApiError> {
    let CreateGroupRequest { name, description, display_name, preset: named } = request;
    let policy = named.as_deref().map_or(Ok(GroupPolicy::PRIVATE_SECURE), preset)?;
    let profile = Profile { name, description, ..Profile::default() };
    let group = app.agent.groups().found(policy, profile, display_name).await?;
    Ok((StatusCode::CREATED, Json(created(&app, group).await?)))
}

pub(super) async fn join(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<JoinGroupRequest>,
) -> Answer<GroupCreatedResponse> {
    let link = InviteLink::parse(&request.invite).map_err(|error| {
        ApiError::new(ErrorCode::BadRequest, format!("invalid invite: {error}"))
    })?;
    let group = app.agent.groups().join(link, request.display_name).await?;
    created(&app, group).await.map(Json)
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupResponse> {
    let state = find(&app, &id).await?;
    let policy = state.view.policy.unwrap_or(GroupPolicy::PRIVATE_SECURE);
    Ok(Json(GroupResponse {
        ok: True::default(),
        info: info(&state),
        updated_at: state.view.updated.as_millis(),
        chat_topic: state.topic.clone(),
        policy: policy_info(policy),
        policy_revision: state.view.policy_revision,
        roster_revision: state.view.roster_revision,
        epoch: state.keys.as_ref().map(|(epoch, _)| *epoch),
        withdrawn: state.view.withdrawn,
        rooms: state.view.rooms.values().map(room_info).collect(),
        members: roster(&state),
    }))
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<ChangeGroupRequest>,
) -> Answer<GroupRevisionResponse> {
    let mut profile = find(&app, &id).await?.view.profile.clone();
    let ChangeGroupRequest { name, description, tags } = request;
    profile.name = name.unwrap_or(profile.name);
    profile.description = description.unwrap_or(profile.description);
    profile.tags = tags.unwrap_or(profile.tags);
    act(&app, &id, Action::SetProfile(profile)).await
}

pub(super) async fn leave(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<OkResponse> {
    app.agent.groups().leave(group_id(&id)?).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn members(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupMembersResponse> {
    Ok(Json(members_response(&find(&app, &id).await?)))
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<AddMemberRequest>,
) -> Answer<GroupMembersResponse> {
    let agent: AgentId = request.agent_id.parse()?;
    let groups = app.agent.groups();
    let group = group_id(&id)?;
    groups.admit(group, agent, Role::Member, None, request.display_name).await?;
    members(State(app), PathParameter(id)).await
}

pub(super) async fn remove(
    State(app): State<Arc<App>>,
    PathPair(id, agent): PathPair,
) -> Answer<GroupMembersResponse> {
    let agent: AgentId = agent.parse()?;
    app.agent.groups().act(group_id(&id)?, Action::Remove { agent }).await?;
    members(State(app), PathParameter(id)).await
}

pub(super) async fn set_role(
    State(app): State<Arc<App>>,
    PathPair(id, agent): PathPair,
    JsonBody(request): JsonBody<SetRoleRequest>,
) -> Answer<GroupRevisionResponse> {
    let agent: AgentId = agent.parse()?;
    let role = Role::from_word(&request.role);
    let role = role.ok_or_else(|| bad(ErrorCode::InvalidValue, "invalid role"))?;
    act(&app, &id, Action::SetRole { agent, role }).await
}

pub(super) async fn ban(
    State(app): State<Arc<App>>,
    PathPair(id, agent): PathPair,
) -> Answer<GroupRevisionResponse> {
    let agent: AgentId = agent.parse()?;
    act(&app, &id, Action::Ban { agent, reason: String::new() }).await
}

pub(super) async fn unban(
    State(app): State<Arc<App>>,
    PathPair(id, agent): PathPair,
) -> Answer<GroupRevisionResponse> {
    let agent: AgentId = agent.parse()?;
    act(&app, &id, Action::Unban { agent, role: None }).await
}

fn axis<T>(
    now: T,
    wanted: Option<&str>,
    read: impl Fn(&str) -> Option<T>,
    name: &str,
) -> Result<T, ApiError> {
    match wanted {
        None => Ok(now),
        Some(word) => read(word)
            .ok_or_else(|| ApiError::new(ErrorCode::InvalidValue, format!("unknown {name}"))),
    }
}

pub(super) async fn policy(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<ChangeGroupPolicyRequest>,
) -> Answer<GroupRevisionResponse> {
    let state = find(&app, &id).await?;
    let mut policy = match request.preset.as_deref() {
        Some(name) => preset(name)?,
        None => state.view.policy.unwrap_or(GroupPolicy::PRIVATE_SECURE),
    };
    let ChangeGroupPolicyRequest {
        discoverability,
        admission,
        confidentiality,
        read_access,
        write_access,
        invite_role,
        shares_history,
        ..
    } = &request;
    policy.discoverability = axis(
        policy.discoverability,
        discoverability.as_deref(),
        Discoverability::from_word,
        "discoverability",
    )?;
    policy.admission =
        axis(policy.admission, admission.as_deref(), Admission::from_word, "admission")?;
    policy.confidentiality = axis(
        policy.confidentiality,
        confidentiality.as_deref(),
        Confidentiality::from_word,
        "confidentiality",
    )?;
    policy.read_access =
        axis(policy.read_access, read_access.as_deref(), ReadAccess::from_word, "read access")?;
    policy.write_access =
        axis(policy.write_access, write_access.as_deref(), WriteAccess::from_word, "write access")?;
    let inviting = |word: &str| Role::from_word(word).filter(|role| *role != Role::Guest);
    policy.invite_role =
        axis(policy.invite_role, invite_role.as_deref(), inviting, "role that may invite")?;
    policy.shares_history = shares_history.unwrap_or(policy.shares_history);
    app.agent.groups().set_policy(state.group, policy).await?;
    revision(&app, state.group).await
}

pub(super) async fn display_name(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<DisplayNameRequest>,
) -> Answer<GroupRevisionResponse> {
    act(&app, &id, Action::SetDisplayName(request.name)).await
}

pub(super) async fn invite(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    OptionalBody(request): OptionalBody<InviteRequest>,
) -> Answer<InviteResponse> {
    let state = find(&app, &id).await?;
    let valid = match request.expiry_secs {
        None => Some(INVITE_VALIDITY),
        Some(0) => None,
        Some(secs) => Some(Duration::from_secs(secs.min(MAX_VALIDITY))),
    };
    let uses = request.uses.unwrap_or(1);
    let link = app.agent.groups().invite(state.group, valid, uses).await?;
    Ok(Json(InviteResponse {
        ok: True::default(),
        invite_link: link.to_text(),
        invite_id: link.key().public_key().agent_id(),
        group_id: state.group.to_string(),
        group_name: state.view.profile.name.clone(),
        expires_at: link.expires.map_or(0, |at| at.as_secs()),
    }))
}

pub(super) async fn revoke_invite(
    State(app): State<Arc<App>>,
    PathPair(id, invite): PathPair,
) -> Answer<OkResponse> {
    let invite: AgentId = invite.parse()?;
    app.agent.groups().act(group_id(&id)?, Action::RevokeInvite { invite }).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn requests(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<JoinRequestsResponse> {
    let state = find(&app, &id).await?;
    let requests = state.view.requests.iter().map(|(request, asked)| JoinRequestInfo {
        request_id: HEXLOWER.encode(request),
        group_id: state.group.to_string(),
        requester_agent_id: asked.agent,
        message: Some(asked.message.clone()).filter(|text| !text.is_empty()),
        created_at: asked.at.as_millis(),
        reviewed_at: asked.reviewed.map(|(_, at)| at.as_millis()),
        reviewed_by: asked.reviewed.map(|(by, _)| by),
        status: match asked.state {
            RequestState::Pending => "pending",
            RequestState::Approved => "approved",
            RequestState::Rejected => "rejected",
            _ => "cancelled",
        }
        .to_owned(),
    });
    let mut requests: Vec<_> = requests.collect();
    requests.sort_by_key(|request| request.created_at);
    Ok(Json(JoinRequestsResponse { ok: True::default(), requests }))
}

pub(super) async fn ask(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    OptionalBody(request): OptionalBody<AskToJoinRequest>,
) -> Result<(StatusCode, Json<AskedToJoinResponse>), ApiError> {
    let group = group_id(&id)?;
    let member = cards::whom(&app, group, request.member.as_deref()).await?;
    let asked = app.agent.groups().request(group, member, &request.message).await?;
    let (request_id, group_id) = (HEXLOWER.encode(&asked), group.to_string());
    let response = AskedToJoinResponse { ok: True::default(), request_id, group_id };
    Ok((StatusCode::CREATED, Json(response)))
}

pub(super) async fn approve(
    State(app): State<Arc<App>>,
    PathPair(id, request): PathPair,
) -> Answer<GroupRevisionResponse> {
    let (state, request) = (find(&app, &id).await?, hex32(&request, "a request id")?);
    let asked = state.view.requests.get(&request);
    let asked = asked.ok_or_else(|| bad(ErrorCode::NotFound, "request not found"))?;
    if asked.state != RequestState::Pending {
        return Err(bad(ErrorCode::Conflict, "request is not pending"));
    }
    let groups = app.agent.groups();
    groups.admit(state.group, asked.agent, Role::Member, Some(request), String::new()).await?;
    revision(&app, state.group).await
}

pub(super) async fn reject(
    State(app): State<Arc<App>>,
    PathPair(id, request): PathPair,
) -> Answer<OkResponse> {
    let request = hex32(&request, "a request id")?;
    app.agent.groups().act(group_id(&id)?, Action::Reject { request }).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn cancel(
    State(app): State<Arc<App>>,
    PathPair(id, request): PathPair,
) -> Answer<OkResponse> {
    let request = hex32(&request, "a request id")?;
    app.agent.groups().cancel(group_id(&id)?, request).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn enter(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    OptionalBody(request): OptionalBody<JoinOpenGroupRequest>,
) -> Answer<GroupCreatedResponse> {
    let group = group_id(&id)?;
    let member = cards::whom(&app, group, request.member.as_deref()).await?;
    app.agent.groups().join_open(group, member, request.display_name).await?;
    created(&app, group).await.map(Json)
}

pub(super) async fn set_room(
    State(app): State<Arc<App>>,
    PathPair(id, name): PathPair,
    JsonBody(RoomRequest { topic, closed }): JsonBody<RoomRequest>,
) -> Answer<GroupRevisionResponse> {
    act(&app, &id, Action::SetRoom(Room { name, topic, closed })).await
}

pub(super) async fn hide(
    State(app): State<Arc<App>>,
    PathPair(id, message): PathPair,
) -> Answer<GroupRevisionResponse> {
    let message = hex32(&message, "a message id")?;
    act(&app, &id, Action::Hide { message }).await
}
