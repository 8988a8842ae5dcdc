//! For tests of this crate, of types, and of the layers above.

mod laws;
mod sample;

pub use laws::{Laws, check_laws};
pub use sample::{Sample, SampleEvent, SampleOp};
