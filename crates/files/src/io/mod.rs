//! Files read and written in groups: the blocking half of the driver.

mod disk;
mod protected;
mod publish;
mod receive;
mod room;
mod send;

pub use disk::DiskStore;
pub(crate) use receive::Receiving;
pub(crate) use room::Room;
pub(crate) use send::{Sources, prepare};
