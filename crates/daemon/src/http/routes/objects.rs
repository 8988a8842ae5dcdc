//! What task lists and key-value stores have in common.

use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use x0x_agent::{
    kv::Rules,
    objects::{
        NewObject, Object, ObjectError, ObjectName, Policy, Shared, SharedObject, WriteError,
        Writers,
    },
};
use x0x_api::{
    ErrorCode, True,
    types::{
        CreateObjectRequest, ObjectInfo, ObjectPolicy, ObjectResponse, ObjectStatusResponse,
        PolicyRequest,
    },
};
use x0x_core::AgentId;

use crate::http::error::ApiError;

/// Most items of one page.
const MAX_PAGE: usize = 10_000;

/// How many items a client wants.
pub(super) fn page(limit: Option<usize>) -> usize {
    limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE)
}

/// The objects of a kind, by id.
pub(super) fn list<T: Object>(shared: &Shared<T>) -> Vec<ObjectInfo> {
    let info = |(name, title): (ObjectName, String)| ObjectInfo {
        id: name.to_string(),
        owner: name.owner,
        topic: name.topic,
        name: title,
    };
    let mut found: Vec<_> = shared.list().into_iter().map(info).collect();
    found.sort_by(|one, two| one.id.cmp(&two.id));
    found
}

/// Creates an object, or joins one whose id stands for its topic.
pub(super) async fn create<T: Object>(
    shared: &Shared<T>,
    request: CreateObjectRequest,
) -> Result<(StatusCode, ObjectResponse), ApiError> {
    let CreateObjectRequest { name, topic, policy, writers } = request;
    let agents = writers.iter().map(|agent| agent.parse()).collect::<Result<Vec<AgentId>, _>>()?;
    let writers = match policy {
        ObjectPolicy::Encrypted => {
            let text = "an encrypted store needs a group, to whose keys its values are sealed";
            return Err(ApiError::new(ErrorCode::NeedsGroup, text));
        }
        ObjectPolicy::Open => Writers::Everyone,
        ObjectPolicy::Signed => Writers::Owner,
        ObjectPolicy::Allowlisted | ObjectPolicy::AppendOnly => Writers::Listed(agents.clone()),
        ObjectPolicy::SelfKeyed if agents.is_empty() => Writers::OwnedByAll,
        ObjectPolicy::SelfKeyed => Writers::Listed(agents.clone()),
        _ => return Err(ApiError::new(ErrorCode::InvalidValue, "no such policy")),
    };
    if !agents.is_empty() && !matches!(writers, Writers::Listed(_)) {
        let text = "writers are listed with the policies allowlisted, self_keyed and append_only";
        return Err(ApiError::new(ErrorCode::BadRequest, text));
    }
    let rules = match policy {
        ObjectPolicy::SelfKeyed => Rules::SelfKeyed,
        ObjectPolicy::AppendOnly => Rules::AppendOnly,
        _ => Rules::Shared,
    };
    let (object, new) =
        shared.create(NewObject { topic, title: name, writers, kind: rules.kind() }).await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, response(&object).await?))
}

pub(super) async fn response<T: Object>(
    object: &SharedObject<T>,
) -> Result<ObjectResponse, ApiError> {
    let policy = policy(&object.status().await?.policy);
    let (id, topic) = (object.name().to_string(), object.name().topic.clone());
    Ok(ObjectResponse { ok: True::default(), id, topic, policy })
}

fn policy(policy: &Policy) -> ObjectPolicy {
    match policy.kind() {
        _ if policy.owner().is_none() => ObjectPolicy::Open,
        kind if kind == Rules::SelfKeyed.kind() => ObjectPolicy::SelfKeyed,
        kind if kind == Rules::AppendOnly.kind() => ObjectPolicy::AppendOnly,
        _ if policy.everyone() => ObjectPolicy::Open,
        _ if policy.roles().next().is_some() => ObjectPolicy::Allowlisted,
        _ => ObjectPolicy::Signed,
    }
}

pub(super) async fn status<T: Object>(
    object: &SharedObject<T>,
) -> Result<ObjectStatusResponse, ApiError> {
    let status = object.status().await?;
    let held = &status.policy;
    Ok(ObjectStatusResponse {
        ok: True::default(),
        id: object.name().to_string(),
        topic: object.name().topic.clone(),
        name: object.title().to_owned(),
        owner: object.name().owner,
        policy: policy(held),
        writers: held.roles().map(|(agent, _)| agent).collect(),
        writable: held.role(&object.me()).is_some(),
        applied: status.applied,
        pending: status.pending as u64,
        invalid: status.invalid,
        bytes: status.bytes as u64,
        checkpoint: status.checkpoint,
        hash: HEXLOWER.encode(&status.hash),
    })
}

/// Changes who may write.
pub(super) async fn change_policy<T: Object>(
    object: &SharedObject<T>,
    request: PolicyRequest,
) -> Result<ObjectStatusResponse, ApiError> {
    let parse = |agents: &[String]| {
        agents.iter().map(|agent| agent.parse::<AgentId>()).collect::<Result<Vec<_>, _>>()
    };
    let (add, remove) = (parse(&request.add_writers)?, parse(&request.remove_writers)?);
    if add.is_empty() && remove.is_empty() {
        return Err(ApiError::new(ErrorCode::BadRequest, "nothing to change"));
    }
    for agent in add {
        object.allow(agent).await?;
    }
    for agent in remove {
        object.remove(agent).await?;
    }
    status(object).await
}

impl From<ObjectError> for ApiError {
    fn from(error: ObjectError) -> Self {
        let code = match &error {
            ObjectError::Name(_) => ErrorCode::InvalidTopic,
            ObjectError::Limit => ErrorCode::LimitReached,
            ObjectError::Store(_) => ErrorCode::NotStored,
            ObjectError::Closed => ErrorCode::ShuttingDown,
            ObjectError::Write(error) => return write_error(error),
            _ => ErrorCode::Internal,
        };
        Self::new(code, error.to_string())
    }
}

/// A refusal that has nothing to do with what was to be written.
fn write_error<R: std::fmt::Display>(error: &WriteError<R>) -> ApiError {
    let code = match error {
        WriteError::Refused(_) => ErrorCode::NotPermitted,
        WriteError::TooLarge { .. } => ErrorCode::PayloadTooLarge,
        WriteError::Full => ErrorCode::LimitReached,
        WriteError::Busy => ErrorCode::Busy,
        WriteError::Interrupted => ErrorCode::Conflict,
        WriteError::Log(_) => ErrorCode::NotStored,
        WriteError::Closed => ErrorCode::ShuttingDown,
        _ => ErrorCode::Internal,
    };
    ApiError::new(code, error.to_string())
}

/// A local write that was refused, by its type or by the framework.
pub(super) fn refused<R: std::fmt::Display + Into<ApiError>>(error: WriteError<R>) -> ApiError {
    match error {
        WriteError::Condition(reason) => reason.into(),
        error => write_error(&error),
    }
}
