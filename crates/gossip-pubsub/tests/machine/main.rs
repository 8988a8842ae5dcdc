//! The machine in small worlds, without time, sockets or tasks of its own.

mod harness;
mod hostile;
mod world;
