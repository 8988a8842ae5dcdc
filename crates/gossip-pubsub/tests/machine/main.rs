//! The machine in small worlds, without time, sockets or tasks of its own.

mod bounds;
mod gaps;
mod harness;
mod hostile;
mod model;
mod pressure;
mod world;
