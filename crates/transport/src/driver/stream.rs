//! The reader of one class stream, which feeds the consumers of its protocols.
//!
//! The reader is the only one that tells a consumer anything about its peer, so that `Up`, messages,
//! `Writable` and `Down` come in order without further care. Readers of consecutive sessions with
//! one peer take turns over a lock (the *lane*): the `Down` of the one precedes the `Up` of the next.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{Mutex, oneshot, watch};
use tokio_util::sync::CancellationToken;
use x0x_core::{Protocol, StreamClass};

use super::{
    Context, Event,
    assembly::{Claim, Claimant, Place},
    sleep,
    writer::stream_given_up,
};
use crate::{
    frame::{Assembling, Frame, FrameDecoder},
    inbound::{Consumer, Gone, MAX_BATCH},
    link::{LinkClosed, RecvStream},
    state::LinkId,
    table::Session,
    transport::InboundEvent,
    wire::{CloseCode, ControlIn, ControlOut},
};

/// Most bytes taken from a stream at once.
const READ_CHUNK: usize = 64 * 1024;
/// The same where messages are large: about their headers, since the rest is read where it belongs.
const BULK_READ_CHUNK: usize = 1024;

/// A stream that the peer opened, with what was read of it already.
#[derive(Debug)]
pub(super) struct Incoming {
    /// Over which link it comes.
    pub(super) link: LinkId,
    pub(super) stream: Box<dyn RecvStream>,
    pub(super) decoder: FrameDecoder,
}

impl Incoming {
    /// Reads until the decoder has something to take apart; `None` at the end of the stream.
    pub(super) async fn read(&mut self) -> Result<Option<()>, LinkClosed> {
        if let Some((partial, room)) = self.decoder.fill() {
            let more = self.stream.read_onto(partial, room).await?;
            return Ok(more.then_some(()));
        }
        let max = match self.decoder.class() {
            StreamClass::Bulk => BULK_READ_CHUNK,
            _ => READ_CHUNK,
        };
        let chunk = self.stream.read(max).await?;
        Ok(chunk.map(|chunk| self.decoder.push(chunk)))
    }
}

/// One protocol of the class, as this session stands with its consumer.
struct Feed {
    protocol: Protocol,
    /// Who was told `Up`.
    consumer: Option<Arc<Consumer>>,
    batch: Vec<Bytes>,
}

/// Reads a class stream for as long as the session lasts.
pub(super) struct ClassReader {
    context: Arc<Context>,
    session: Arc<Session>,
    /// That of the stream, or that on which the session began.
    link: LinkId,
    class: StreamClass,
    feeds: Vec<Feed>,
    changes: watch::Receiver<()>,
    /// Of the large message that is arriving, until its memory is granted.
    place: Option<Place>,
    /// The memory of that message.
    claim: Option<Claim>,
}

impl ClassReader {
    pub(super) fn new(
        context: Arc<Context>,
        session: Arc<Session>,
        link: LinkId,
        class: StreamClass,
    ) -> Self {
        let protocols = Protocol::ALL.into_iter();
        let feeds = protocols
            .filter(|protocol| protocol.class() == class && *protocol != Protocol::Control)
            .map(|protocol| Feed { protocol, consumer: None, batch: Vec::new() })
            .collect();
        let changes = context.consumers.changes();
        Self { context, session, link, class, feeds, changes, place: None, claim: None }
    }

    pub(super) async fn run(mut self, lane: Arc<Mutex<()>>, incoming: oneshot::Receiver<Incoming>) {
        let session = self.session.clone();
        let turn = tokio::select! {
            biased;
            turn = lane.lock_owned() => turn,
            () = session.ended.cancelled() => return,
        };
        let context = self.context.clone();
        // A consumer that lags is waited for, but not past the end of the node.
        tokio::select! {
            biased;
            () = self.serve(incoming) => {}
            () = context.closing.cancelled() => {}
        }
        session.ended.cancelled().await;
        tokio::select! {
            biased;
            () = self.announce_end() => {}
            () = context.closing.cancelled() => self.announce_end_now(),
        }
        drop(turn);
    }

    async fn serve(&mut self, incoming: oneshot::Receiver<Incoming>) {
        let session = self.session.clone();
        let context = self.context.clone();
        let outbox = session.outbox(self.class).clone();
        self.announce().await;
        let mut source = Source::Expected(incoming);
        loop {
            let all_announced = self.feeds.iter().all(|feed| feed.consumer.is_some());
            let large = source.assembling();
            self.ask_for_memory(large);
            let stalled = self.claim.as_ref().map(|claim| claim.until().since(context.clock.now()));
            let revoked = self.claim.as_ref().map(|claim| claim.revoked.clone());
            tokio::select! {
                biased;
                () = session.ended.cancelled() => return self.finish(source).await,
                () = outbox.writable() => self.announce_writable().await,
                _ = self.changes.changed(), if !all_announced => self.announce().await,
                granted = granted(&mut self.place), if self.place.is_some() => {
                    if !self.claimed(granted, large).await {
                        return;
                    }
                }
                ready = source.ready(), if self.place.is_none() => match ready {
                    Ok(Some(incoming)) => {
                        self.link = incoming.link;
                        if !self.take_chunk(&mut incoming.decoder).await {
                            return;
                        }
                    }
                    Ok(None) => {}
                    Err(what) => {
                        stream_given_up(&self.context, self.link, &*session.link(), what).await;
                        return;
                    }
                },
                () = overdue(stalled, revoked.as_ref()), if stalled.is_some() => {
                    let slow = revoked.is_some_and(|revoked| revoked.is_cancelled());
                    let metrics = &context.metrics;
                    if slow { &metrics.frames_slow } else { &metrics.frames_stalled }.inc();
                    context.refuse(self.link, CloseCode::Timeout).await;
                    return;
                }
            }
        }
    }

    /// Takes a place in the queue for the memory of a large message that begins.
    fn ask_for_memory(&mut self, large: Option<Assembling>) {
        if let Some(large) = large.filter(|_| self.place.is_none() && self.claim.is_none()) {
            let session = &self.session;
            let policy = &self.context.policy;
            let needed = self.context.holds.contains(&session.peer)
                || session.agents().iter().any(|agent| policy.prefers(agent));
            let claimant = match needed {
                true => Claimant::Needed,
                false => Claimant::stranger(session.link().remote_address().ip()),
            };
            self.place = Some(self.context.assembly.ask(self.class, large, claimant));
        }
    }

    /// The memory was granted, or the wait took too long: then the link ends, and false is given.
    async fn claimed(
        &mut self,
        granted: Option<CancellationToken>,
        large: Option<Assembling>,
    ) -> bool {
        let place = self.place.take();
        self.claim = place.zip(granted).map(|(place, revoked)| place.into_claim(revoked));
        if self.claim.is_none() {
            self.context.metrics.frames_unplaced.inc();
            self.context.refuse(self.link, CloseCode::Timeout).await;
            return false;
        }
        self.progress(large);
        true
    }

    /// Gives the claim of a large message back when it is complete, or notes its progress.
    fn progress(&mut self, large: Option<Assembling>) {
        match (&mut self.claim, large) {
            (Some(claim), Some(large)) => claim.progress(self.context.clock.now(), large),
            (claim, _) => *claim = None,
        }
    }

    /// Hands on every frame of a chunk; false when the stream is broken.
    async fn take_chunk(&mut self, decoder: &mut FrameDecoder) -> bool {
        let start = self.claim.is_some().then(|| self.context.clock.now());
        let whole = self.deliver(decoder).await;
        if let (Some(claim), Some(start)) = (&mut self.claim, start) {
            claim.excuse(self.context.clock.now().since(start));
            self.progress(decoder.assembling());
        }
        whole
    }

    /// The session ended: what arrived before is still handed on. The stream is kept until the link
    /// is over, because giving it up would tell the peer that this end misbehaves.
    async fn finish(&mut self, mut source: Source) {
        self.place = None;
        while !matches!(source, Source::Ended)
            && (self.claim.is_some() || source.assembling().is_none())
            && let Ok(Some(incoming)) = source.ready().await
            && self.take_chunk(&mut incoming.decoder).await
        {}
        self.session.link().closed().await;
    }

    /// Tells consumers that took their receiver since the last call that the session is up.
    async fn announce(&mut self) {
        self.changes.mark_unchanged();
        for feed in self.feeds.iter_mut().filter(|feed| feed.consumer.is_none()) {
            if let Some(consumer) = self.context.consumers.get(feed.protocol)
                && consumer
                    .event(InboundEvent::Up(self.session.info(&self.context.ways)))
                    .await
                    .is_ok()
            {
                feed.consumer = Some(consumer);
            }
        }
    }

    async fn announce_writable(&mut self) {
        for consumer in self.feeds.iter().filter_map(|feed| feed.consumer.as_ref()) {
            // A consumer that is gone needs no news.
            let _ = consumer.event(InboundEvent::Writable(self.session.peer)).await;
        }
    }

    async fn announce_end(&mut self) {
        for feed in &mut self.feeds {
            if let Some(consumer) = feed.consumer.clone() {
                let _ = consumer.event(InboundEvent::Down(self.session.peer)).await;
                feed.consumer = None;
            }
        }
    }

    /// At the end of the node: `Down` where there is room for it.
    fn announce_end_now(&mut self) {
        for consumer in self.feeds.iter_mut().filter_map(|feed| feed.consumer.take()) {
            consumer.try_event(InboundEvent::Down(self.session.peer));
        }
    }

    /// Hands on every frame of the chunk; false when the stream is broken.
    async fn deliver(&mut self, decoder: &mut FrameDecoder) -> bool {
        loop {
            let frame = decoder.next_frame();
            self.context.metrics.frames_unknown_protocol.add(decoder.take_skipped());
            match frame {
                Ok(None) => {
                    for index in 0..self.feeds.len() {
                        self.flush(index).await;
                    }
                    return true;
                }
                Ok(Some(frame)) => {
                    if !self.take_frame(frame).await {
                        return false;
                    }
                }
                Err(error) => {
                    self.context.metrics.count_frame_refusal(error);
                    self.context.refuse(self.link, CloseCode::Misbehaved).await;
                    return false;
                }
            }
        }
    }

    async fn take_frame(&mut self, frame: Frame) -> bool {
        let metrics = self.context.metrics.class(self.class);
        metrics.messages_received.inc();
        metrics.bytes_received.add(frame.message.len() as u64);
        if frame.protocol == Protocol::Control {
            return self.control(&frame.message).await;
        }
        let Some(index) = self.feeds.iter().position(|f| f.protocol == frame.protocol) else {
            return true;
        };
        let batch = &mut self.feeds[index].batch;
        batch.push(frame.message);
        if batch.len() >= MAX_BATCH {
            self.flush(index).await;
        }
        true
    }

    async fn flush(&mut self, index: usize) {
        if self.feeds[index].batch.is_empty() {
            return;
        }
        if self.feeds[index].consumer.is_none() {
            // The receiver may have been taken while the chunk was on its way.
            self.announce().await;
        }
        let feed = &mut self.feeds[index];
        if let Some(consumer) = &feed.consumer {
            match consumer.messages(self.session.peer, &mut feed.batch).await {
                Ok(()) => self.session.touch(self.class, self.context.clock.now()),
                Err(Gone) => feed.consumer = None,
            }
        }
        self.context.metrics.frames_unclaimed.add(feed.batch.len() as u64);
        feed.batch.clear();
    }

    /// A control message within the session.
    async fn control(&mut self, message: &Bytes) -> bool {
        match ControlIn::decode(message, false) {
            Ok(ControlIn::Ping(nonce)) => {
                let pong = ControlOut::Pong(nonce).encode();
                let outbox = self.session.outbox(StreamClass::Control);
                if outbox.try_push(Protocol::Control, pong).is_err() {
                    self.context.metrics.control_replies_dropped.inc();
                }
            }
            Ok(ControlIn::Pong(nonce)) => self.session.pong(nonce),
            Ok(ControlIn::Observed { seq, address }) => self.session.observe(seq, address),
            Ok(ControlIn::Unknown) => self.context.metrics.control_unknown.inc(),
            Ok(ControlIn::Punch(punch)) => {
                self.context.event(Event::Punch { link: self.link, punch }).await;
            }
            Ok(ControlIn::Relay(step)) => {
                self.context.event(Event::Relay { link: self.link, step }).await;
            }
            Ok(ControlIn::DialBack(step)) => {
                self.context.event(Event::DialBack { link: self.link, step }).await;
            }
            Ok(ControlIn::Keep(number)) => {
                self.context.event(Event::Keep { link: self.link, number }).await;
            }
            Ok(ControlIn::Hello(_)) | Err(_) => {
                self.context.metrics.control_refused.inc();
                self.context.refuse(self.link, CloseCode::Misbehaved).await;
                return false;
            }
        }
        true
    }
}

/// Waits for the memory of a large message, when one waits for it.
async fn granted(place: &mut Option<Place>) -> Option<CancellationToken> {
    place.as_mut()?.granted().await
}

/// Waits until a large message takes too long.
async fn overdue(stalled: Option<Duration>, revoked: Option<&CancellationToken>) {
    let revoked = async {
        match revoked {
            Some(revoked) => revoked.cancelled().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = sleep(stalled) => {}
        () = revoked => {}
    }
}

/// Where a reader's bytes come from.
enum Source {
    /// The peer has not opened the stream yet.
    Expected(oneshot::Receiver<Incoming>),
    Open(Incoming),
    /// Finished by the peer, or cut off with the link.
    Ended,
}

impl Source {
    /// Waits for the stream, or for bytes on it; `None` when it ended, and nothing after that. An
    /// error when the peer gave the stream up. Dropping the future loses nothing.
    async fn ready(&mut self) -> Result<Option<&mut Incoming>, &'static str> {
        match self {
            Self::Expected(expected) => {
                *self = expected.await.map_or(Self::Ended, Self::Open);
            }
            Self::Open(incoming) => match incoming.read().await {
                Ok(Some(())) => {}
                Err(LinkClosed::Stream(what)) => return Err(what),
                Ok(None) | Err(_) => *self = Self::Ended,
            },
            Self::Ended => std::future::pending().await,
        }
        Ok(match self {
            Self::Open(incoming) => Some(incoming),
            Self::Expected(_) | Self::Ended => None,
        })
    }

    fn assembling(&self) -> Option<Assembling> {
        match self {
            Self::Open(incoming) => incoming.decoder.assembling(),
            Self::Expected(_) | Self::Ended => None,
        }
    }
}
