//! The writer of one class stream.

use std::{sync::Arc, time::Duration};

use x0x_core::StreamClass;

use super::Context;
use crate::{
    frame::FrameEncoder,
    link::{Link, LinkClosed, SendStream},
    queue::Writer,
    state::LinkId,
    wire::CloseCode,
};

/// How long the end of a link may take to follow the end of one of its streams.
const STREAM_GRACE: Duration = Duration::from_secs(1);

pub(super) const fn priority(class: StreamClass) -> i32 {
    match class {
        StreamClass::Control => 100,
        StreamClass::Direct => 50,
        StreamClass::Gossip => 20,
        _ => -10,
    }
}

/// Writes a class's queue to its stream until the queue is closed and empty, and the peer has all of
/// it. The stream may have begun already.
pub(super) async fn write_class(
    context: Arc<Context>,
    id: LinkId,
    link: Arc<dyn Link>,
    class: StreamClass,
    outbox: Writer,
    begun: Option<Box<dyn SendStream>>,
) {
    let written = write_queue(&context, &*link, class, &outbox, begun).await;
    if let Err(LinkClosed::Stream(what)) = written {
        stream_given_up(&context, id, &*link, what).await;
    }
}

/// Writes many messages at a time. The stream is opened for the first one, unless it has begun.
async fn write_queue(
    context: &Context,
    link: &dyn Link,
    class: StreamClass,
    outbox: &Writer,
    mut stream: Option<Box<dyn SendStream>>,
) -> Result<(), LinkClosed> {
    let metrics = context.metrics.class(class);
    let mut encoder = FrameEncoder::default();
    let mut batch = Vec::new();
    while outbox.next_batch(&mut batch).await {
        let stream = match &mut stream {
            Some(stream) => stream,
            none => {
                encoder.class(class);
                none.insert(link.open(priority(class)).await?)
            }
        };
        let messages = batch.len() as u64;
        let mut bytes = 0;
        for (protocol, message) in batch.drain(..) {
            bytes += message.len() as u64;
            encoder.frame(protocol, message);
        }
        stream.write_all(encoder.chunks()).await?;
        encoder.clear();
        metrics.messages_sent.add(messages);
        metrics.bytes_sent.add(bytes);
    }
    match &mut stream {
        Some(stream) => stream.finish().await,
        None => Ok(()),
    }
}

/// The peer gave up a stream that the session needs. Usually the link's end follows, and tells more;
/// a link that stays is useless and is closed.
pub(super) async fn stream_given_up(
    context: &Context,
    id: LinkId,
    link: &dyn Link,
    what: &'static str,
) {
    tracing::debug!(link = id.0, what, "stream given up");
    if tokio::time::timeout(STREAM_GRACE, link.closed()).await.is_err() {
        context.metrics.streams_given_up.inc();
        context.refuse(id, CloseCode::Misbehaved).await;
    }
}
