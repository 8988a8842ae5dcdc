//! Files in the data directory that other programs read, and the lock that keeps it for one daemon.

mod lock;
mod port;
mod token;

pub(crate) use lock::InstanceLock;
pub use lock::LockError;
pub(crate) use port::PortFile;
pub use token::ApiToken;
pub use x0x_agent::private_file::FileError;

#[cfg(test)]
mod tests;
