//! The machine in small worlds, without time, sockets or tasks of its own.

mod bounds;
mod harness;
mod hostile;
mod world;
