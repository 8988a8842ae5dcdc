//! The x0x daemon: a local HTTP, SSE and WebSocket API over an embedded [`Agent`](x0x_agent::Agent).
//!
//! It is composition only. What the API consists of stands in the endpoint table of `x0x-api`; what
//! the agent does, in `x0x-agent`. In here: configuration and files ([`Config`], [`ApiToken`]), the
//! life of a daemon ([`Daemon`]), the checks around every request (`http/auth.rs`,
//! `http/limits.rs`), one handler an operation (`http/routes/`), and the two kinds of stream
//! (`http/sse.rs`, `http/ws/`).
//!
//! ```no_run
//! use x0x_daemon::{Config, Daemon};
//!
//! # async fn demo() -> Result<(), x0x_daemon::StartError> {
//! let directory = std::env::temp_dir().join("x0x-demo");
//! let daemon = Daemon::start(Config::isolated(&directory)).await?;
//! println!("http://{}/health", daemon.api_address());
//! daemon.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod app;
mod args;
mod config;
mod convert;
mod daemon;
mod error;
mod events;
mod files;
mod http;
pub mod instances;
pub mod logging;
pub mod open_files;
pub mod signals;
mod subscriptions;
mod transfers;
mod warnings;
mod webhook;

pub use args::Args;
pub use config::{
    Config, ConfigError, DEFAULT_API_PORT, DEFAULT_HEARTBEAT, DEFAULT_IDENTITY_TTL,
    DEFAULT_QUIC_PORT, DurabilityName, FileRule, FilesSettings, LogFormat, LogLevel, MailSettings,
    Overrides, Paths, RoleName, TcpRelay, Webhook, WebhookSecret,
};
pub use daemon::Daemon;
pub use error::StartError;
pub use files::{ApiToken, FileError, LockError};
