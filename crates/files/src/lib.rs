//! File transfers between agents: offered, accepted, verified as they arrive, and taken up again where
//! they stopped.
//!
//! A file is offered with its BLAKE3 hash. Its content travels in groups of 128 KiB, each with the few
//! hashes that prove it against that one, so that a receiver believes nothing and may store groups in
//! any order; what it has stored survives a crash of either end, and only the rest is asked for.
//! Content has a stream class of its own below everything else, and is asked for in a window that moves
//! as it is stored: memory is bounded whatever the size of the file.
//!
//! [`Files`] sends and receives. The protocol is [`state::FilesMachine`], a pure machine; [`wire`] has
//! its frames and limits, which `docs/protocol/files.md` explains; [`tree`] is the hash tree. What is
//! needed of the disk is the trait [`FileStore`].
//!
#![cfg_attr(feature = "tokio", doc = "```")]
#![cfg_attr(not(feature = "tokio"), doc = "```ignore")]
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use x0x_files::{Change, FileEvent, SendFile, testing};
//!
//! // Two machines with a session, and disks in memory. Over a real transport this is
//! // `Files::start(transport, store, policy, clock, config).await?`.
//! let (alice, bob) = testing::pair(1).await;
//! let mut events = bob.files.events();
//! alice.disk.put("/notes.txt", b"hello");
//!
//! alice.files.send(SendFile::new(bob.agent, "/notes.txt")).await?;
//! while let Ok(event) = events.recv().await {
//!     match event {
//!         FileEvent::Offered(offer) => {
//!             bob.files.change(offer.record.id, Change::Accept { folder: None }).await?;
//!         }
//!         FileEvent::Complete(_) => break,
//!         _ => {}
//!     }
//! }
//! assert_eq!(bob.disk.get("/downloads/notes.txt").as_deref(), Some(&b"hello"[..]));
//! # Ok(())
//! # }
//! ```

pub mod config;
#[cfg(feature = "tokio")]
mod driver;
mod error;
#[cfg(feature = "tokio")]
mod handle;
mod id;
#[cfg(feature = "tokio")]
mod io;
mod metrics;
mod name;
pub mod ranges;
mod record;
pub mod state;
mod store;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod tree;
pub mod wire;

pub use config::{AcceptRule, FilesConfig};
pub use error::{ChangeTransferError, SendFileError, WorkError};
#[cfg(feature = "tokio")]
pub use handle::{Files, MAX_SEEKS, MAX_UNREAD_EVENTS, Seeks, SendFile, StartFilesError};
pub use id::{ParseTransferIdError, TransferId};
#[cfg(feature = "tokio")]
pub use io::DiskStore;
pub use metrics::FilesMetrics;
pub use name::{MAX_NAME, numbered, safe_name};
pub use record::{Direction, FileEvent, Phase, Record, TransferInfo, Waiting};
pub use state::{Change, Changed};
pub use store::{Blob, FileStore, Part};
