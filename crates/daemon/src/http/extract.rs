//! What handlers take out of a request, with this API's errors.

use std::fmt::Display;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use x0x_api::ErrorCode;

use super::{error::ApiError, limits::WholeBody};

/// How serde begins to say that a text is none of the values of its field: what is wrong is not the shape of
/// the body but a value in it, as with an id that is no hex.
const UNKNOWN_VALUE: &str = "unknown variant";

/// The JSON body.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parse(&body(parts).0).map(Self)
    }
}

/// The JSON body, or the default when there is none.
#[derive(Debug)]
pub(crate) struct OptionalBody<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned + Default> FromRequestParts<S> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let body = body(parts);
        if body.0.is_empty() { Ok(Self(T::default())) } else { parse(&body.0).map(Self) }
    }
}

fn body(parts: &mut Parts) -> WholeBody {
    parts.extensions.remove().unwrap_or_default()
}

/// Whether JSON text can only be an object. Without it, serde would also take the fields of a
/// structure as an array, by position.
pub(crate) fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().first() == Some(&b'{')
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let parsed = serde_json::from_slice(bytes);
    if parsed.is_ok() && !is_object(bytes) {
        return Err(ApiError::new(ErrorCode::InvalidBody, "invalid body: not an object"));
    }
    parsed.map_err(|error| {
        // A wrong field may be found before the text turns out not to be JSON at all; and what is JSON,
        // but no text where one of some texts is wanted, is told like broken syntax.
        let (code, what) = match serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
            true if error.to_string().starts_with(UNKNOWN_VALUE) => {
                (ErrorCode::InvalidValue, "invalid value")
            }
            true => (ErrorCode::InvalidBody, "invalid body"),
            false => (ErrorCode::InvalidJson, "invalid JSON"),
        };
        ApiError::new(code, format!("{what}: {error}"))
    })
}

/// The query string.
#[derive(Debug)]
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::try_from_uri(&parts.uri)
            .map_err(|error| refused(ErrorCode::InvalidQuery, &error))?;
        Ok(Self(value))
    }
}

/// The one parameter of the path.
#[derive(Debug)]
pub(crate) struct PathParameter(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathParameter {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(value) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| refused(ErrorCode::BadRequest, &error))?;
        Ok(Self(value))
    }
}

/// The two parameters of the path, in their order.
#[derive(Debug)]
pub(crate) struct PathPair(pub(crate) String, pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathPair {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path((first, second)) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| refused(ErrorCode::BadRequest, &error))?;
        Ok(Self(first, second))
    }
}

fn refused(code: ErrorCode, error: &impl Display) -> ApiError {
    ApiError::new(code, error.to_string())
}

#[cfg(test)]
mod tests {
    use x0x_api::types::PublishRequest;

    use super::*;

    fn code(json: &str) -> ErrorCode {
        parse::<PublishRequest>(json.as_bytes()).expect_err("refused").code()
    }

    #[test]
    fn what_is_wrong_with_a_body_is_told_apart() {
        for value in ["5", "true", "null", "[]", "{}"] {
            let json = format!(r#"{{"topic":"t","payload":"","retention":{value}}}"#);
            assert_eq!(code(&json), ErrorCode::InvalidBody, "{json}");
        }
        let unknown = r#"{"topic":"t","payload":"","retention":"ever"}"#;
        assert_eq!(code(unknown), ErrorCode::InvalidValue);
        assert_eq!(code(r#"{"topic":5,"payload":""}"#), ErrorCode::InvalidBody);
        for broken in [r#"{"topic":5,"payl"#, r#"{"retention":5,"#, "{", ""] {
            assert_eq!(code(broken), ErrorCode::InvalidJson, "{broken}");
        }
    }
}
