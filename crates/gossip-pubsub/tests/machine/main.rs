//! The machine in small worlds, without time, sockets or tasks of its own.

mod authors;
mod bounds;
mod classes;
mod clocks;
mod flood;
mod frames;
mod gaps;
mod harness;
mod hostile;
mod liars;
mod model;
mod pressure;
mod room;
mod strangers;
mod world;
