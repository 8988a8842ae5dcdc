//! The tasks of one link: watching its end, sorting the peer's streams, and the hello.

use std::sync::Arc;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::oneshot;
use x0x_core::{MachineId, Protocol, StreamClass};

use super::{Context, Event, stream::Incoming};
use crate::{
    frame::FrameDecoder,
    link::{Link, LinkClosed, RecvStream},
    state::LinkId,
    wire::{CloseCode, ControlIn, HelloIn},
};

/// Streams waiting for their class byte. The peer needs four; with more it only holds itself up.
const MAX_OPENING: usize = 8;

/// Where the peer's stream of each class goes. The peer opens each at most once.
pub(super) type StreamSlots = [Option<oneshot::Sender<Incoming>>; 4];

/// Serves a link until it ends, and reports that.
pub(super) async fn run(
    context: Arc<Context>,
    id: LinkId,
    link: Arc<dyn Link>,
    streams: StreamSlots,
) {
    // It ends with the link, after the streams that came before that.
    accept_streams(&context, id, &*link, streams).await;
    let reason = link.closed().await;
    context.event(Event::LinkClosed { link: id, reason }).await;
}

/// Returns once the link fails or the peer broke a rule.
async fn accept_streams(context: &Context, id: LinkId, link: &dyn Link, mut slots: StreamSlots) {
    // A stream whose first byte is late does not hold the others up.
    let mut opening = FuturesUnordered::new();
    let mut open = true;
    while open || !opening.is_empty() {
        let opened = tokio::select! {
            biased;
            Some(opened) = opening.next() => opened,
            stream = link.accept(), if open && opening.len() < MAX_OPENING => {
                match stream {
                    Ok(stream) => opening.push(read_class(id, stream)),
                    Err(_) => open = false,
                }
                continue;
            },
        };
        let accepted = match opened {
            Ok(Opened::Class(class, incoming)) => {
                let slot = slots.get_mut(class as usize).and_then(Option::take);
                // The reader is gone only when the link is about to be.
                slot.map(|slot| drop(slot.send(incoming))).is_some()
            }
            Ok(Opened::Unknown) => {
                context.metrics.streams_unknown_class.inc();
                true
            }
            // Reset before it began, or cut off with the link.
            Err(_) => true,
        };
        if !accepted {
            context.metrics.streams_refused.inc();
            return context.refuse(id, CloseCode::Misbehaved).await;
        }
    }
}

enum Opened {
    Class(StreamClass, Incoming),
    /// Of a later version, or ended before it began; dropping it tells the peer.
    Unknown,
}

async fn read_class(link: LinkId, mut stream: Box<dyn RecvStream>) -> Result<Opened, LinkClosed> {
    loop {
        // One byte, so that the frames after it stay whole chunks.
        let Some(chunk) = stream.read(1).await? else { return Ok(Opened::Unknown) };
        if let Some(number) = chunk.first() {
            let Some(class) = StreamClass::from_wire(*number) else { return Ok(Opened::Unknown) };
            let decoder = FrameDecoder::new(class);
            return Ok(Opened::Class(class, Incoming { link, stream, decoder }));
        }
    }
}

/// Reads the peer's hello and, unless this end is the arbiter, its keep; then hands the control
/// stream over to the session's reader.
pub(super) async fn handshake(
    context: Arc<Context>,
    id: LinkId,
    peer: MachineId,
    stream: oneshot::Receiver<Incoming>,
    reader: oneshot::Sender<Incoming>,
) {
    let Ok(mut incoming) = stream.await else { return };
    if let Err(code) = exchange(&context, id, peer, &mut incoming).await {
        return context.refuse(id, code).await;
    }
    // Dropped when the link did not become a session.
    drop(reader.send(incoming));
}

async fn exchange(
    context: &Context,
    id: LinkId,
    peer: MachineId,
    incoming: &mut Incoming,
) -> Result<(), CloseCode> {
    let hello = loop {
        match next_control(context, incoming, true).await? {
            Some(ControlIn::Hello(hello)) => break hello,
            Some(ControlIn::Unknown) => context.metrics.control_unknown.inc(),
            Some(_) => {
                context.metrics.control_refused.inc();
                return Err(CloseCode::Misbehaved);
            }
            None => return Ok(()),
        }
    };
    verify(context, id, peer, *hello).await?;
    if context.local > peer {
        return Ok(());
    }
    loop {
        match next_control(context, incoming, false).await? {
            Some(ControlIn::Keep(number)) => {
                context.event(Event::Keep { link: id, number }).await;
                return Ok(());
            }
            Some(ControlIn::Unknown) => context.metrics.control_unknown.inc(),
            Some(_) => {
                context.metrics.control_refused.inc();
                return Err(CloseCode::Misbehaved);
            }
            None => return Ok(()),
        }
    }
}

async fn verify(
    context: &Context,
    id: LinkId,
    peer: MachineId,
    hello: HelloIn,
) -> Result<(), CloseCode> {
    match hello.verify(context.network, peer, context.clock.wall(), &*context.policy) {
        Ok(hello) => {
            context.event(Event::Hello { link: id, hello }).await;
            Ok(())
        }
        Err(error) => {
            tracing::debug!(peer = %peer.short(), %error, "hello refused");
            context.metrics.count_hello_refusal(&error);
            Err(error.close_code())
        }
    }
}

/// The next control message; `None` when the link fails. Other protocols have to wait for keep.
async fn next_control(
    context: &Context,
    incoming: &mut Incoming,
    first: bool,
) -> Result<Option<ControlIn>, CloseCode> {
    loop {
        let frame = incoming.decoder.next_frame().map_err(|error| {
            context.metrics.count_frame_refusal(error);
            CloseCode::Misbehaved
        })?;
        context.metrics.frames_unknown_protocol.add(incoming.decoder.take_skipped());
        let Some(frame) = frame else {
            match incoming.read().await {
                Ok(Some(())) => continue,
                Ok(None) | Err(_) => return Ok(None),
            }
        };
        if frame.protocol != Protocol::Control {
            context.metrics.control_refused.inc();
            return Err(CloseCode::Misbehaved);
        }
        let refused = if first {
            &context.metrics.hellos_refused_malformed
        } else {
            &context.metrics.control_refused
        };
        return ControlIn::decode(&frame.message, first).map(Some).map_err(|_| {
            refused.inc();
            CloseCode::Misbehaved
        });
    }
}
