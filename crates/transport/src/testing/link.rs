//! A link in memory: two ends that share delays, a cable that can be cut, and their fate.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use x0x_core::{MachineId, SeededRng};

use super::{
    LinkModel,
    pipe::{Pipe, Reader, Writer},
};
use crate::{
    link::{BoxFuture, Link, LinkClosed, RecvStream, SendStream},
    wire::CloseCode,
};

/// Streams that were opened and not accepted yet.
const MAX_OPENED: usize = 64;

/// Which of the two ends: 0 dialled, 1 accepted.
pub(super) type End = usize;

/// What both ends of a link share.
#[derive(Debug)]
pub(super) struct LinkCore {
    pub(super) ids: [MachineId; 2],
    fate: [watch::Sender<Option<LinkClosed>>; 2],
    /// True while the two machines cannot reach each other.
    cut: watch::Receiver<bool>,
    rng: Mutex<SeededRng>,
    model: LinkModel,
}

impl LinkCore {
    pub(super) fn sample_delay(&self) -> Duration {
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let delay = super::sample(&mut rng, &self.model.latency);
        let stalled = rng.chance(self.model.stall);
        if stalled { delay + self.model.stall_for } else { delay }
    }

    pub(super) fn cut(&self) -> watch::Receiver<bool> {
        self.cut.clone()
    }

    /// Why an end is closed, if it is.
    pub(super) fn reason(&self, end: End) -> Option<LinkClosed> {
        self.fate[end].borrow().clone()
    }

    pub(super) async fn closed(&self, end: End) -> LinkClosed {
        let mut fate = self.fate[end].subscribe();
        let decided = fate.wait_for(Option::is_some).await;
        decided.ok().and_then(|fate| fate.clone()).unwrap_or(LinkClosed::Local)
    }

    /// Decides an end's fate, unless it was decided before.
    pub(super) fn decide(&self, end: End, reason: LinkClosed) {
        self.fate[end].send_if_modified(|fate| {
            let open = fate.is_none();
            if open {
                *fate = Some(reason);
            }
            open
        });
    }

    /// Decides it after a while.
    pub(super) fn decide_later(self: &Arc<Self>, end: End, reason: LinkClosed, delay: Duration) {
        let core = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            core.decide(end, reason);
        });
    }

    pub(super) fn close(self: &Arc<Self>, end: End, code: CloseCode) {
        if self.reason(end).is_some() {
            return;
        }
        self.decide(end, LinkClosed::Local);
        if *self.cut.borrow() {
            self.decide_later(1 - end, LinkClosed::TimedOut, self.model.idle_timeout);
        } else {
            self.decide_later(1 - end, LinkClosed::Peer(code), self.sample_delay());
        }
    }
}

/// One end of a link.
#[derive(Debug)]
pub(super) struct MemoryLink {
    core: Arc<LinkCore>,
    end: End,
    remote: SocketAddr,
    to_peer: mpsc::Sender<Reader>,
    from_peer: AsyncMutex<mpsc::Receiver<Reader>>,
}

impl MemoryLink {
    /// Both ends of a new link; the ids and addresses of the dialler come first.
    pub(super) fn pair(
        ids: [MachineId; 2],
        addresses: [SocketAddr; 2],
        cut: watch::Receiver<bool>,
        rng: SeededRng,
        model: LinkModel,
    ) -> (Self, Self, Arc<LinkCore>) {
        let fate = [watch::Sender::new(None), watch::Sender::new(None)];
        let core = Arc::new(LinkCore { ids, fate, cut, rng: Mutex::new(rng), model });
        let (to_acceptor, at_acceptor) = mpsc::channel(MAX_OPENED);
        let (to_dialler, at_dialler) = mpsc::channel(MAX_OPENED);
        let end = |end: End, to_peer, from_peer| Self {
            core: core.clone(),
            end,
            remote: addresses[1 - end],
            to_peer,
            from_peer: AsyncMutex::new(from_peer),
        };
        (end(0, to_acceptor, at_dialler), end(1, to_dialler, at_acceptor), core)
    }
}

impl Link for MemoryLink {
    fn peer(&self) -> MachineId {
        self.core.ids[1 - self.end]
    }

    fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    fn rtt(&self) -> Duration {
        self.core.model.latency.start + self.core.model.latency.end
    }

    fn open(&self, _priority: i32) -> BoxFuture<'_, Result<Box<dyn SendStream>, LinkClosed>> {
        Box::pin(async move {
            if let Some(reason) = self.core.reason(self.end) {
                return Err(reason);
            }
            let (pipe, core) = (Pipe::new(self.core.model.window), self.core.clone());
            let reader = Reader { pipe: pipe.clone(), core: core.clone(), end: 1 - self.end };
            tokio::select! {
                biased;
                reason = self.core.closed(self.end) => return Err(reason),
                // A peer that is gone is noticed when its fate reaches this end.
                _ = self.to_peer.send(reader) => {}
            }
            Ok(Box::new(Writer { pipe, core, end: self.end }) as Box<dyn SendStream>)
        })
    }

    fn accept(&self) -> BoxFuture<'_, Result<Box<dyn RecvStream>, LinkClosed>> {
        Box::pin(async move {
            let mut from_peer = self.from_peer.lock().await;
            tokio::select! {
                biased;
                reason = self.core.closed(self.end) => Err(reason),
                Some(reader) = from_peer.recv() => Ok(Box::new(reader) as Box<dyn RecvStream>),
                else => Err(self.core.closed(self.end).await),
            }
        })
    }

    fn close(&self, code: CloseCode) {
        self.core.close(self.end, code);
    }

    fn closed(&self) -> BoxFuture<'_, LinkClosed> {
        Box::pin(self.core.closed(self.end))
    }
}
