//! What the table says of one endpoint.

#[cfg(feature = "documents")]
use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
#[cfg(feature = "documents")]
use utoipa::{
    PartialSchema,
    openapi::{RefOr, schema::Schema},
};

use crate::operation::Operation;

/// HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Method {
    /// Reads.
    Get,
    /// Does.
    Post,
    /// Sets.
    Put,
    /// Changes a part.
    Patch,
    /// Removes.
    Delete,
}

impl Method {
    /// The name in a request line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a request must prove. Host and Origin are checked on every endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Auth {
    /// Nothing.
    None,
    /// `Authorization: Bearer <token>`.
    Bearer,
    /// The same, or `?token=<token>` for clients that cannot set headers.
    BearerOrQuery,
}

/// What body a request carries. Where there is none to carry, one that is sent anyway must be JSON,
/// and is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Body {
    /// None.
    None,
    /// JSON.
    Json,
    /// JSON, or nothing for the defaults.
    Optional,
}

/// How an endpoint answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// With one body.
    Rest,
    /// With a stream of server-sent events.
    Sse,
    /// By becoming a WebSocket.
    WebSocket,
}

/// A query parameter.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// JSON schema type of its value.
    pub value: &'static str,
    /// What it does.
    pub summary: &'static str,
}

impl Parameter {
    pub(crate) const fn new(
        name: &'static str,
        value: &'static str,
        summary: &'static str,
    ) -> Self {
        Self { name, value, summary }
    }
}

/// A named list of schemas that a type needs.
#[cfg(feature = "documents")]
pub(crate) type Schemas = Vec<(String, RefOr<Schema>)>;

/// The schema of a Rust type, as functions so that the table can be a constant. Without the feature
/// `documents` it is only a mark: a program that carries the documents does not carry what writes them.
#[derive(Clone, Copy)]
pub struct SchemaOf {
    #[cfg(feature = "documents")]
    pub(crate) name: fn() -> Cow<'static, str>,
    #[cfg(feature = "documents")]
    pub(crate) schema: fn() -> RefOr<Schema>,
    #[cfg(feature = "documents")]
    pub(crate) nested: fn(&mut Schemas),
}

impl SchemaOf {
    #[cfg(feature = "documents")]
    pub(crate) const fn new<T: ToSchema + PartialSchema>() -> Self {
        Self { name: T::name, schema: T::schema, nested: T::schemas }
    }

    #[cfg(not(feature = "documents"))]
    pub(crate) const fn new<T: ToSchema>() -> Self {
        Self {}
    }

    /// Name of the schema in the OpenAPI document.
    #[cfg(feature = "documents")]
    #[must_use]
    pub fn name(&self) -> Cow<'static, str> {
        (self.name)()
    }
}

impl fmt::Debug for SchemaOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[cfg(feature = "documents")]
        return write!(f, "SchemaOf({})", self.name());
        #[cfg(not(feature = "documents"))]
        f.write_str("SchemaOf")
    }
}

/// What an endpoint answers on success.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Answer {
    /// A JSON body.
    Json(SchemaOf),
    /// A JSON body, with status 201 when something is there now that was not.
    Created(SchemaOf),
    /// No body, with status 204.
    Nothing,
    /// A body of another media type.
    Text {
        /// The media type.
        media_type: &'static str,
    },
    /// Server-sent events with this JSON as data.
    Events(SchemaOf),
    /// WebSocket frames.
    Frames {
        /// From the client.
        client: SchemaOf,
        /// From the daemon.
        server: SchemaOf,
    },
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Endpoint {
    /// What it does; names the handler, and is the OpenAPI operation id.
    pub operation: Operation,
    /// HTTP method.
    pub method: Method,
    /// Path, its parameters in braces.
    pub path: &'static str,
    /// The `x0x` command for it.
    pub cli: Option<&'static str>,
    /// One line of what it does.
    pub summary: &'static str,
    /// Heading in documents.
    pub category: &'static str,
    /// What a request must prove.
    pub auth: Auth,
    /// What body a request carries.
    pub body: Body,
    /// Schema of the body.
    pub request: Option<SchemaOf>,
    /// Largest body in bytes; 0 where any is refused.
    pub max_body: usize,
    /// Query parameters besides `token`.
    pub query: &'static [Parameter],
    /// How it answers.
    pub kind: Kind,
    /// What it answers on success.
    pub answer: Answer,
}

impl Endpoint {
    /// Names of the path's parameters, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
    }

    /// The row as `x0x routes --json` prints it.
    #[must_use]
    pub fn info(&self) -> EndpointInfo {
        EndpointInfo {
            method: self.method.as_str().to_owned(),
            path: self.path.to_owned(),
            cli_name: self.cli.unwrap_or_default().to_owned(),
            description: self.summary.to_owned(),
            category: self.category.to_owned(),
        }
    }
}

/// A row of the table in text form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointInfo {
    /// HTTP method.
    pub method: String,
    /// Path, its parameters in braces.
    pub path: String,
    /// The `x0x` command for it, empty when there is none.
    pub cli_name: String,
    /// One line of what it does.
    pub description: String,
    /// Heading in documents.
    pub category: String,
}
