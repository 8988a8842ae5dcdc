//! One direction of a stream in memory: ordered, delayed, and with a window.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::link::{End, LinkCore};
use crate::link::{BoxFuture, LinkClosed, RecvStream, SendStream};

/// Largest piece with a delay of its own.
const MAX_PIECE: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Pipe {
    state: Mutex<State>,
    readable: Notify,
    writable: Notify,
    window: usize,
}

#[derive(Debug, Default)]
struct State {
    pieces: VecDeque<(Instant, Bytes)>,
    in_flight: usize,
    last: Option<Instant>,
    finished: bool,
    unread: bool,
}

impl Pipe {
    pub(super) fn new(window: usize) -> Arc<Self> {
        let state = Mutex::new(State::default());
        Arc::new(Self { state, readable: Notify::new(), writable: Notify::new(), window })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a piece on its way; false while the window is full.
    fn write(&self, piece: &Bytes, arrives: Instant) -> Result<bool, LinkClosed> {
        let mut state = self.lock();
        if state.unread {
            return Err(LinkClosed::Stream("nobody reads it"));
        }
        if state.in_flight > 0 && state.in_flight + piece.len() > self.window {
            return Ok(false);
        }
        let arrives = state.last.map_or(arrives, |last| last.max(arrives));
        state.last = Some(arrives);
        state.in_flight += piece.len();
        state.pieces.push_back((arrives, piece.clone()));
        drop(state);
        self.readable.notify_one();
        Ok(true)
    }

    fn finish(&self) {
        self.lock().finished = true;
        self.readable.notify_one();
    }

    /// Whether everything was read, or never will be; `None` for not yet.
    fn all_read(&self) -> Option<Result<(), LinkClosed>> {
        let state = self.lock();
        if state.pieces.is_empty() {
            Some(Ok(()))
        } else if state.unread {
            Some(Err(LinkClosed::Stream("nobody reads it")))
        } else {
            None
        }
    }

    fn read(&self, max: usize) -> Read {
        let mut state = self.lock();
        let Some((arrives, piece)) = state.pieces.front_mut() else {
            return if state.finished { Read::End } else { Read::Wait(None) };
        };
        if *arrives > Instant::now() {
            return Read::Wait(Some(*arrives));
        }
        let bytes = piece.split_to(max.min(piece.len()));
        if piece.is_empty() {
            state.pieces.pop_front();
        }
        state.in_flight -= bytes.len();
        drop(state);
        self.writable.notify_one();
        Read::Bytes(bytes)
    }
}

enum Read {
    Bytes(Bytes),
    Wait(Option<Instant>),
    End,
}

#[derive(Debug)]
pub(super) struct Writer {
    pub(super) pipe: Arc<Pipe>,
    pub(super) core: Arc<LinkCore>,
    pub(super) end: End,
}

impl SendStream for Writer {
    fn write_all<'a>(
        &'a mut self,
        chunks: &'a mut [Bytes],
    ) -> BoxFuture<'a, Result<(), LinkClosed>> {
        Box::pin(async move {
            let mut arrives = Instant::now() + self.core.sample_delay();
            for chunk in chunks {
                while !chunk.is_empty() {
                    if let Some(reason) = self.core.reason(self.end) {
                        return Err(reason);
                    }
                    let piece = chunk.slice(..chunk.len().min(MAX_PIECE));
                    if self.pipe.write(&piece, arrives)? {
                        let _ = chunk.split_to(piece.len());
                        continue;
                    }
                    tokio::select! {
                        biased;
                        reason = self.core.closed(self.end) => return Err(reason),
                        () = self.pipe.writable.notified() => {}
                    }
                    arrives = Instant::now() + self.core.sample_delay();
                }
            }
            Ok(())
        })
    }

    /// The peer has what its reader took.
    fn finish(&mut self) -> BoxFuture<'_, Result<(), LinkClosed>> {
        Box::pin(async move {
            self.pipe.finish();
            loop {
                if let Some(read) = self.pipe.all_read() {
                    return read;
                }
                tokio::select! {
                    biased;
                    reason = self.core.closed(self.end) => return Err(reason),
                    () = self.pipe.writable.notified() => {}
                }
            }
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.pipe.finish();
    }
}

#[derive(Debug)]
pub(super) struct Reader {
    pub(super) pipe: Arc<Pipe>,
    pub(super) core: Arc<LinkCore>,
    pub(super) end: End,
}

impl RecvStream for Reader {
    fn read(&mut self, max: usize) -> BoxFuture<'_, Result<Option<Bytes>, LinkClosed>> {
        Box::pin(async move {
            loop {
                if let Some(reason) = self.core.reason(self.end) {
                    return Err(reason);
                }
                let mut cut = self.core.cut();
                let wait =
                    if *cut.borrow_and_update() { Read::Wait(None) } else { self.pipe.read(max) };
                let until = match wait {
                    Read::Bytes(bytes) => return Ok(Some(bytes)),
                    Read::End => return Ok(None),
                    Read::Wait(until) => until,
                };
                tokio::select! {
                    biased;
                    reason = self.core.closed(self.end) => return Err(reason),
                    () = self.pipe.readable.notified() => {}
                    () = changed(&mut cut) => {}
                    () = sleep_until(until) => {}
                }
            }
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pipe.lock().unread = true;
        self.pipe.writable.notify_one();
    }
}

async fn changed(cut: &mut watch::Receiver<bool>) {
    if cut.changed().await.is_err() {
        std::future::pending().await
    }
}

async fn sleep_until(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}
