//! The hello to those who dial, sent before they proved who they are.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
};

use bytes::Bytes;
use x0x_core::{Protocol, StreamClass};

use super::{Context, writer::priority};
use crate::{frame::FrameEncoder, link::Greeter};

/// Greets with the hello of a node. The node owns the engine that asks, so this is not to keep it alive.
#[derive(Debug)]
pub(crate) struct Greeting(Weak<Context>);

impl Greeting {
    pub(crate) fn of(context: &Arc<Context>) -> Self {
        Self(Arc::downgrade(context))
    }
}

impl Greeter for Greeting {
    fn greeting(&self, to: SocketAddr) -> Option<(i32, Vec<Bytes>)> {
        let context = self.0.upgrade()?;
        // The one who accepts never asks to replace a session.
        let hello = context.hello(false, to).encode();
        let mut encoder = FrameEncoder::default();
        encoder.class(StreamClass::Control);
        encoder.frame(Protocol::Control, hello);
        Some((priority(StreamClass::Control), encoder.chunks().to_vec()))
    }
}
