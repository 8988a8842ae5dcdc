//! For tests of this crate, of types, and of the layers above.

mod laws;
mod memory;
mod sample;

pub use laws::{Laws, check_laws};
pub use memory::{MemoryCrdtStore, check_crdt_store};
pub use sample::{Sample, SampleEvent, SampleOp};
