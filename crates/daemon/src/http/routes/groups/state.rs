//! What the members of a group agree upon, and how groups are doing.

use std::sync::Arc;

use axum::{Json, extract::State};
use data_encoding::HEXLOWER;
use x0x_agent::named_groups::{Action, GroupDiagnosis as Diagnosis, GroupPolicy, GroupState, Role};
use x0x_api::{
    ErrorCode, True,
    types::{
        GroupCommit, GroupCommitResponse, GroupDiagnosis, GroupDiagnosticsResponse,
        GroupStateResponse,
    },
};

use super::{Answer, bad, find};
use crate::{app::App, http::extract::PathParameter};

fn binding(state: &GroupState) -> Option<String> {
    state.keys.as_ref().map(|(epoch, _)| format!("mls:epoch={epoch}"))
}

pub(in super::super) async fn show(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupStateResponse> {
    let state = find(&app, &id).await?;
    let (view, security_binding) = (&state.view, binding(&state));
    Ok(Json(GroupStateResponse {
        ok: True::default(),
        group_id: state.group.to_string(),
        mls_group_id: view.mls_group.map(|id| HEXLOWER.encode(&id.0)),
        state_revision: view.revision,
        fallen: view.fallen,
        state_hash: HEXLOWER.encode(&view.state_hash()),
        roster_root: HEXLOWER.encode(&view.roster_root()),
        policy_hash: HEXLOWER.encode(&view.policy_hash()),
        public_meta_hash: HEXLOWER.encode(&view.profile_hash()),
        security_binding,
        withdrawn: view.withdrawn,
    }))
}

fn commit(app: &App, state: &GroupState) -> Json<GroupCommitResponse> {
    let view = &state.view;
    let commit = GroupCommit {
        group_id: state.group.to_string(),
        revision: view.revision,
        prev_state_hash: None,
        roster_root: HEXLOWER.encode(&view.roster_root()),
        policy_hash: HEXLOWER.encode(&view.policy_hash()),
        public_meta_hash: HEXLOWER.encode(&view.profile_hash()),
        security_binding: binding(state),
        state_hash: HEXLOWER.encode(&view.state_hash()),
        withdrawn: view.withdrawn,
        committed_by: app.agent.agent_id(),
        committed_at: view.updated.as_millis(),
    };
    Json(GroupCommitResponse { ok: True::default(), commit })
}

pub(in super::super) async fn seal(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupCommitResponse> {
    let state = find(&app, &id).await?;
    if state.view.role(&app.agent.agent_id()).is_none_or(|role| role > Role::Admin) {
        let text = "owner or admin required to seal state";
        return Err(bad(ErrorCode::NotPermitted, text));
    }
    app.agent.groups().announce(state.group).await?;
    Ok(commit(&app, &state))
}

pub(in super::super) async fn withdraw(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupCommitResponse> {
    let group = find(&app, &id).await?.group;
    let groups = app.agent.groups();
    groups.act(group, Action::Withdraw).await?;
    groups.announce(group).await?;
    Ok(commit(&app, &groups.get(group).await?))
}

fn diagnosis(Diagnosis { state, behind, followed, stats, .. }: &Diagnosis) -> GroupDiagnosis {
    let view = &state.view;
    GroupDiagnosis {
        group_id: state.group.to_string(),
        members_v2_size: view.active().count() as u64,
        subscribed_metadata: *followed,
        subscribed_public: *followed
            && !view.policy.as_ref().is_some_and(GroupPolicy::is_encrypted),
        messages_received: stats.messages,
        messages_dropped_decode_failed: stats.malformed,
        messages_dropped_author_banned: stats.banned,
        messages_dropped_write_policy_violation: stats.role,
        messages_dropped_signature_failed: stats.signature,
        messages_dropped_other: stats.other,
        last_message_at_ms: stats.last.map(|at| at.as_millis()),
        member_joined_events_applied: stats.operations,
        items: stats.taken,
        messages_unreadable: stats.unreadable,
        epochs: stats.epochs,
        epoch: state.keys.as_ref().map(|(epoch, _)| *epoch),
        revision: view.revision,
        fallen: view.fallen,
        behind: *behind,
    }
}

pub(in super::super) async fn diagnostics(
    State(app): State<Arc<App>>,
) -> Answer<GroupDiagnosticsResponse> {
    let groups = app.agent.groups();
    // What is looked at is not changed: an agent without groups opens none.
    let all = match groups.is_open() {
        true => groups.diagnostics().await?,
        false => Vec::new(),
    };
    let groups = all.iter().map(diagnosis).collect();
    Ok(Json(GroupDiagnosticsResponse { ok: True::default(), groups }))
}
