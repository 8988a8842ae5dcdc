//! How a row is written.

use crate::{
    endpoint::{Answer, Auth, Body, Endpoint, Kind, Method, Parameter, SchemaOf},
    limits::MAX_BODY,
    operation::Operation,
};

const fn rest(
    operation: Operation,
    method: Method,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    Endpoint {
        operation,
        method,
        path,
        cli: None,
        summary: "",
        category,
        auth: Auth::Bearer,
        body: Body::None,
        request: None,
        max_body: MAX_BODY,
        query: &[],
        kind: Kind::Rest,
        answer,
    }
}

pub(super) const fn get(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    // What is asked for is in the path and the query.
    Endpoint { max_body: 0, ..rest(operation, Method::Get, path, category, answer) }
}

pub(super) const fn post(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Post, path, category, answer)
}

pub(super) const fn put(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Put, path, category, answer)
}

pub(super) const fn patch(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Patch, path, category, answer)
}

pub(super) const fn delete(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    rest(operation, Method::Delete, path, category, answer)
}

pub(super) const fn stream(
    operation: Operation,
    path: &'static str,
    category: &'static str,
    answer: Answer,
) -> Endpoint {
    let kind = match answer {
        Answer::Frames { .. } => Kind::WebSocket,
        _ => Kind::Sse,
    };
    Endpoint { auth: Auth::BearerOrQuery, kind, ..get(operation, path, category, answer) }
}

pub(super) const fn json<T: utoipa::ToSchema>() -> Answer {
    Answer::Json(SchemaOf::new::<T>())
}

pub(super) const fn created<T: utoipa::ToSchema>() -> Answer {
    Answer::Created(SchemaOf::new::<T>())
}

impl Endpoint {
    pub(super) const fn cli(self, cli: &'static str) -> Self {
        Self { cli: Some(cli), ..self }
    }

    pub(super) const fn says(self, summary: &'static str) -> Self {
        Self { summary, ..self }
    }

    pub(super) const fn takes<T: utoipa::ToSchema>(self) -> Self {
        Self { body: Body::Json, request: Some(SchemaOf::new::<T>()), ..self }
    }

    pub(super) const fn may_take<T: utoipa::ToSchema>(self) -> Self {
        Self { body: Body::Optional, request: Some(SchemaOf::new::<T>()), ..self }
    }

    pub(super) const fn query(self, query: &'static [Parameter]) -> Self {
        Self { query, ..self }
    }
}
