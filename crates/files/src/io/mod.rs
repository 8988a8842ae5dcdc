//! Files read and written in groups: the blocking half of the driver.

mod disk;
mod receive;
mod send;

pub use disk::DiskStore;
pub(crate) use receive::Receiving;
pub(crate) use send::{frames, prepare};
