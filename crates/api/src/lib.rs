//! The local API of an x0x daemon, as data: which endpoints there are, what they take and what they
//! answer. The daemon builds its routes from [`ENDPOINTS`], the command line its calls; the OpenAPI
//! document and `docs/api.md` are written from it.
//!
//! - [`endpoints`](mod@endpoints): the table; [`Operation`] names its rows.
//! - [`types`]: bodies, [`event`]: server-sent events, [`ws`]: WebSocket frames.
//! - [`ErrorBody`] and [`ErrorCode`]: every failure.
//! - [`instance`]: how a daemon and its clients find each other; [`OPENAPI`]: the document that a daemon serves.
//!
//! The feature `documents` adds what the documents are written with: `openapi()`, `markdown()`.
//!
//! ```
//! use x0x_api::{ENDPOINTS, ErrorBody, types::HealthResponse};
//!
//! let route = ENDPOINTS.iter().find(|endpoint| endpoint.cli == Some("health"));
//! assert_eq!(route.map(|endpoint| endpoint.path), Some("/health"));
//!
//! let answer = r#"{"ok":true,"status":"healthy","version":"0.1.0","peers":2,"uptime_secs":9}"#;
//! assert_eq!(serde_json::from_str::<HealthResponse>(answer)?.peers, 2);
//! // A failure is never mistaken for an answer.
//! let failure = r#"{"ok":false,"error":"missing token","code":"unauthorized"}"#;
//! assert!(serde_json::from_str::<HealthResponse>(failure).is_err());
//! assert_eq!(serde_json::from_str::<ErrorBody>(failure)?.code.status(), 401);
//! # Ok::<(), serde_json::Error>(())
//! ```

mod cursor;
#[cfg(feature = "documents")]
mod document;
mod encoding;
mod endpoint;
pub mod endpoints;
mod error;
pub mod event;
mod flag;
pub mod instance;
pub mod limits;
#[cfg(feature = "documents")]
mod openapi;
mod operation;
pub mod types;
mod version;
pub mod ws;

pub use cursor::{CursorToken, InvalidCursor, Since};
#[cfg(feature = "documents")]
pub use document::markdown;
pub use encoding::{Address, Base64, Hex16, Hex32, Hex64, InvalidBase64};
pub use endpoint::{Answer, Auth, Body, Endpoint, EndpointInfo, Kind, Method, Parameter, SchemaOf};
pub use endpoints::{ENDPOINTS, endpoint};
pub use error::{ErrorBody, ErrorCode, UnknownCode};
pub use flag::{False, Flag, True};
#[cfg(feature = "documents")]
pub use openapi::{openapi, openapi_text};
pub use operation::Operation;
pub use version::VERSION;

/// The API as an OpenAPI 3.1 document in JSON, as committed beside this crate; a test holds it in step
/// with the table.
pub const OPENAPI: &str = include_str!("../openapi.json");
