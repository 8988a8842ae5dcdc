//! Groups.
pub mod codec;
mod provider;
mod storage;
mod store;
mod suite;
#[cfg(feature = "test-util")]
pub mod testing;
pub use store::{Batch, Change, Entry, MAX_KEY, MAX_VALUE, MlsStore, Space, StoreError};
pub use suite::Suite;
