//! `/task-lists/*`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use data_encoding::HEXLOWER_PERMISSIVE;
use serde::Deserialize;
use x0x_agent::{
    WallTime,
    objects::SharedObject,
    tasks::{
        Action, DEFAULT_LEASE, Fields, MAX_LEASE, MIN_LEASE, Phase, Spot, TaskChange, TaskError,
        TaskEvent, TaskId, TaskList, TaskView,
    },
};
use x0x_api::{
    ErrorCode, True,
    event::{TASK, TaskEvent as TaskEventData, TaskEventKind},
    types::{
        AddTaskRequest, AddTaskResponse, ChangeTaskRequest, ChangeTaskResponse,
        CreateObjectRequest, ObjectPolicy, ObjectResponse, ObjectStatusResponse, OkResponse,
        PolicyRequest, Task, TaskAction, TaskClaim, TaskListsResponse, TaskResponse, TaskStep,
        TasksResponse,
    },
};
use x0x_core::AgentId;

use super::{Answer, objects};
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, Params, PathPair, PathParameter},
        object_stream::ObjectSource,
        sse,
    },
};

type List = SharedObject<TaskList>;

pub(in crate::http) async fn find(app: &App, id: &str) -> Result<List, ApiError> {
    let found = app.agent.task_lists().get(id).await?;
    found.ok_or_else(|| ApiError::new(ErrorCode::NotFound, "task list not found"))
}

fn hex(id: &TaskId) -> String {
    HEXLOWER_PERMISSIVE.encode(id.as_bytes())
}

fn task_id(text: &str) -> Result<TaskId, ApiError> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
    let id = bytes.try_into().map(TaskId::new);
    let text = "invalid task ID (expected 64 hex chars)";
    id.map_err(|_| ApiError::new(ErrorCode::InvalidHex, text))
}

impl From<TaskError> for ApiError {
    fn from(error: TaskError) -> Self {
        let code = match error {
            TaskError::NotFound => ErrorCode::NotFound,
            TaskError::Field(_) => ErrorCode::BadRequest,
            TaskError::TooManyTasks | TaskError::TooManySteps => ErrorCode::LimitReached,
            _ => ErrorCode::Conflict,
        };
        Self::new(code, error.to_string())
    }
}

pub(super) async fn lists(State(app): State<Arc<App>>) -> Answer<TaskListsResponse> {
    let task_lists = objects::list(app.agent.task_lists());
    Ok(Json(TaskListsResponse { ok: True::default(), task_lists }))
}

pub(super) async fn create(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<CreateObjectRequest>,
) -> Result<(StatusCode, Json<ObjectResponse>), ApiError> {
    if matches!(request.policy, ObjectPolicy::SelfKeyed | ObjectPolicy::AppendOnly) {
        let text = "a task list is open, signed or allowlisted";
        return Err(ApiError::new(ErrorCode::InvalidValue, text));
    }
    let (status, response) = objects::create(app.agent.task_lists(), request).await?;
    Ok((status, Json(response)))
}

pub(super) async fn status(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<ObjectStatusResponse> {
    objects::status(&find(&app, &id).await?).await.map(Json)
}

pub(super) async fn leave(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<OkResponse> {
    let list = find(&app, &id).await?;
    app.agent.task_lists().leave(&list).await?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn policy(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<PolicyRequest>,
) -> Answer<ObjectStatusResponse> {
    objects::change_policy(&find(&app, &id).await?, request).await.map(Json)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PageParams {
    limit: Option<usize>,
    cursor: Option<String>,
}

/// The place in a list behind which a page begins, as its cursor has it.
type Place = (Vec<u8>, TaskId);

fn place(cursor: &str) -> Result<Place, ApiError> {
    let invalid = || ApiError::new(ErrorCode::InvalidCursor, "invalid cursor");
    let (place, id) = cursor.split_once('-').ok_or_else(invalid)?;
    let place = HEXLOWER_PERMISSIVE.decode(place.as_bytes()).map_err(|_| invalid())?;
    Ok((place, task_id(id).map_err(|_| invalid())?))
}

pub(super) async fn show(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    Params(params): Params<PageParams>,
) -> Answer<TasksResponse> {
    let list = find(&app, &id).await?;
    let after = params.cursor.as_deref().map(place).transpose()?;
    let limit = objects::page(params.limit);
    let page = list.read(move |state, now| {
        let views = state.in_order();
        let start = after.map_or(0, |(place, id)| {
            views.partition_point(|view| (view.place(), view.id()) <= (&place[..], id))
        });
        let rest = views.get(start..).unwrap_or_default();
        let shown = rest.get(..limit).unwrap_or(rest);
        let next = shown.last().filter(|_| rest.len() > shown.len()).map(|last| {
            format!("{}-{}", HEXLOWER_PERMISSIVE.encode(last.place()), hex(&last.id()))
        });
        (shown.iter().map(|view| task(view, now)).collect(), next)
    });
    let (tasks, next) = page.await?;
    Ok(Json(TasksResponse { ok: True::default(), tasks, next }))
}

/// A task as the API shows it.
fn task(view: &TaskView<'_>, now: WallTime) -> Task {
    let (created_by, created_at) = view.created();
    let (state, doer, claim, done_at) = match view.phase() {
        Phase::Held { agent, since, until } => {
            let expired = until <= now;
            let state = if expired { "empty".to_owned() } else { format!("claimed:{agent}") };
            let (since, until) = (since.as_millis(), until.as_millis());
            let claim = TaskClaim { agent, since, until, expired, lost: view.lost() };
            (state, (!expired).then_some(agent), Some(claim), None)
        }
        Phase::Done { agent, at } => {
            (format!("done:{agent}"), Some(agent), None, Some(at.as_millis()))
        }
        _ => ("empty".to_owned(), None, None, None),
    };
    Task {
        id: hex(&view.id()),
        title: view.title().to_owned(),
        description: view.description().to_owned(),
        state,
        assignee: view.assignee().or(doer),
        priority: view.priority(),
        labels: view.labels().map(str::to_owned).collect(),
        due_at: view.due().map(WallTime::as_millis),
        claim,
        done_at,
        created_by,
        created_at: created_at.as_millis(),
        updated_at: view.updated().as_millis(),
    }
}

/// What was done with a task, in the order of time.
fn history(view: &TaskView<'_>) -> Vec<TaskStep> {
    let (agent, at) = view.created();
    let step = |at: WallTime, agent: AgentId, action: &str| TaskStep {
        at: at.as_millis(),
        agent,
        action: action.to_owned(),
        applied: true,
        fields: Vec::new(),
        until: None,
    };
    let added = [step(at, agent, "add")];
    let steps = view.steps().iter().map(|done| {
        let (action, lease) = match done.action {
            Action::Claim(lease) => ("claim", Some(lease)),
            Action::Renew(lease) => ("renew", Some(lease)),
            Action::Release => ("release", None),
            Action::Complete => ("complete", None),
            Action::Reopen => ("reopen", None),
            _ => ("other", None),
        };
        let until = lease.map(|lease| (done.time() + lease).as_millis());
        TaskStep { applied: done.applied, until, ..step(done.time(), done.author, action) }
    });
    let edits = view.edits().map(|(at, edit)| {
        let fields = edit.fields().map(str::to_owned).collect();
        TaskStep { fields, ..step(at, edit.author, "edit") }
    });
    let mut history: Vec<_> = added.into_iter().chain(steps).chain(edits).collect();
    history.sort_by_key(|step| step.at);
    history
}

fn spot(after: Option<&str>, before: Option<&str>) -> Result<Option<Spot>, ApiError> {
    match (after, before) {
        (None, None) => Ok(None),
        (Some(after), None) => Ok(Some(Spot::After(task_id(after)?))),
        (None, Some(before)) => Ok(Some(Spot::Before(task_id(before)?))),
        _ => Err(ApiError::new(ErrorCode::BadRequest, "give after or before, not both")),
    }
}

fn assignee(text: Option<&str>) -> Result<Option<Option<AgentId>>, ApiError> {
    match text {
        None => Ok(None),
        Some("") => Ok(Some(None)),
        Some(agent) => Ok(Some(Some(agent.parse()?))),
    }
}

fn due(due: Option<u64>) -> Option<Option<WallTime>> {
    due.map(|due| (due > 0).then(|| WallTime::from_millis(due)))
}

pub(super) async fn add(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    JsonBody(request): JsonBody<AddTaskRequest>,
) -> Result<(StatusCode, Json<AddTaskResponse>), ApiError> {
    let list = find(&app, &id).await?;
    let spot = spot(request.after.as_deref(), request.before.as_deref())?.unwrap_or_default();
    let fields = Fields {
        title: Some(request.title),
        description: request.description,
        priority: request.priority,
        assignee: assignee(request.assignee.as_deref())?,
        due: due(request.due_at),
        add_labels: request.labels,
        ..Fields::default()
    };
    let dot = list.write(move |state, _| state.add(fields, spot)).await;
    let task_id = hex(&TaskId::of(dot.map_err(objects::refused)?));
    Ok((StatusCode::CREATED, Json(AddTaskResponse { ok: True::default(), task_id })))
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    PathPair(list, id): PathPair,
) -> Answer<TaskResponse> {
    let (list, id) = (find(&app, &list).await?, task_id(&id)?);
    let found =
        list.read(move |state, now| state.get(&id).map(|view| (task(&view, now), history(&view))));
    let (task, history) = found.await?.ok_or(TaskError::NotFound)?;
    Ok(Json(TaskResponse { ok: True::default(), task, history }))
}

/// What a request wants done.
fn action(action: TaskAction, lease_ms: Option<u64>) -> Result<Action, ApiError> {
    let lease = lease_ms.map_or(DEFAULT_LEASE, Duration::from_millis);
    if !(MIN_LEASE..=MAX_LEASE).contains(&lease) {
        let text = "lease_ms is 1000 (a second) to 604800000 (7 days)";
        return Err(ApiError::new(ErrorCode::InvalidValue, text));
    }
    match action {
        TaskAction::Claim => Ok(Action::Claim(lease)),
        TaskAction::Renew => Ok(Action::Renew(lease)),
        TaskAction::Release => Ok(Action::Release),
        TaskAction::Complete => Ok(Action::Complete),
        TaskAction::Reopen => Ok(Action::Reopen),
        _ => Err(ApiError::new(ErrorCode::InvalidValue, "no such action")),
    }
}

pub(super) async fn change(
    State(app): State<Arc<App>>,
    PathPair(list, id): PathPair,
    JsonBody(request): JsonBody<ChangeTaskRequest>,
) -> Answer<ChangeTaskResponse> {
    let (list, id) = (find(&app, &list).await?, task_id(&id)?);
    let spot = spot(request.after.as_deref(), request.before.as_deref())?;
    let fields = Fields {
        title: request.title,
        description: request.description,
        priority: request.priority,
        assignee: assignee(request.assignee.as_deref())?,
        due: due(request.due_at),
        ..Fields::default()
    };
    let labels = request.labels;
    let edits = !fields.is_empty() || labels.is_some() || spot.is_some();
    let written = match request.action {
        Some(_) if edits => {
            let text = "give an action or fields to change, not both";
            return Err(ApiError::new(ErrorCode::BadRequest, text));
        }
        Some(wanted) => {
            let action = action(wanted, request.lease_ms)?;
            list.write_part(&hex(&id), move |state, cx| state.act(cx, id, action)).await
        }
        // Its place is between other tasks.
        None if spot.is_some() => {
            list.write(move |state, _| state.edit(id, fields, labels, spot)).await
        }
        None if edits => {
            list.write_part(&hex(&id), move |state, _| state.edit(id, fields, labels, None)).await
        }
        None => return Err(ApiError::new(ErrorCode::BadRequest, "nothing to change")),
    };
    written.map_err(objects::refused)?;
    let found = list.read(move |state, now| state.get(&id).map(|view| task(&view, now)));
    let task = found.await?.ok_or(TaskError::NotFound)?;
    Ok(Json(ChangeTaskResponse { ok: True::default(), task }))
}

pub(super) async fn delete(
    State(app): State<Arc<App>>,
    PathPair(list, id): PathPair,
) -> Answer<OkResponse> {
    let (list, id) = (find(&app, &list).await?, task_id(&id)?);
    let deleted = list.write_part(&hex(&id), move |state, _| state.delete(id)).await;
    deleted.map_err(objects::refused)?;
    Ok(Json(OkResponse::default()))
}

pub(super) async fn events(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let list = find(&app, &id).await?;
    let id = list.name().to_string();
    let encode = move |event: &TaskEvent| Some(sse::encode(TASK, &event_data(&id, event)?));
    sse::respond(
        &app,
        ObjectSource::<TaskList, _>::new(list.watch(sse::last_event_id(&headers)), encode),
    )
}

/// An event as the API shows it.
pub(in crate::http) fn event_data(list_id: &str, event: &TaskEvent) -> Option<TaskEventData> {
    let mut holder = None;
    let kind = match event.change {
        TaskChange::Added => TaskEventKind::Added,
        TaskChange::Edited => TaskEventKind::Edited,
        TaskChange::Claimed => TaskEventKind::Claimed,
        TaskChange::ClaimLost { holder: known } => {
            holder = known;
            TaskEventKind::ClaimLost
        }
        TaskChange::Renewed => TaskEventKind::Renewed,
        TaskChange::Released => TaskEventKind::Released,
        TaskChange::Completed => TaskEventKind::Completed,
        TaskChange::Reopened => TaskEventKind::Reopened,
        TaskChange::Deleted => TaskEventKind::Deleted,
        // A later kind of change says nothing to clients of this API.
        _ => return None,
    };
    Some(TaskEventData {
        list_id: list_id.to_owned(),
        task_id: hex(&event.task),
        event: kind,
        agent: event.agent,
        holder,
        at: event.at.as_millis(),
    })
}
