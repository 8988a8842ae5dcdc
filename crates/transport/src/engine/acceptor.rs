//! Incoming handshakes become links, as many as are worth it.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Duration,
};

use quinn::{Connecting, Connection, ConnectionError, Endpoint, Incoming, SendStream};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use x0x_core::Clock;

use super::{
    admission::{Admission, Verdict},
    config::QuicConfig,
    connection::QuicLink,
    failure::HandshakeFailure,
    ids::accepting,
    metrics::QuicMetrics,
    paths::Paths,
};
use crate::{
    link::{Greeter, Link},
    sock::table::{is_streamed, plain},
    wire::CloseCode,
};

/// Whether a link proves the machine that its stream proved, if it came over one.
fn is_bound(paths: &Paths, link: &QuicLink) -> bool {
    let address = link.remote_address();
    let bound = !is_streamed(address) || paths.streams.confirm(address, link.peer());
    if !bound {
        link.close(CloseCode::Misbehaved);
    }
    bound
}

/// Completes a handshake. The dialler is greeted meanwhile, so that it has the greeting with the end of the
/// handshake: a server has keys to write with half a round trip before it knows its client (RFC 9001 §4.6).
async fn shake(
    connecting: Connecting,
    greeter: Option<Arc<dyn Greeter>>,
) -> Result<(Connection, Option<SendStream>), ConnectionError> {
    let to = plain(connecting.remote_address());
    let Some((priority, mut greeting)) = greeter.and_then(|greeter| greeter.greeting(to)) else {
        return Ok((connecting.await?, None));
    };
    let (connection, done) = match connecting.into_0rtt() {
        Ok(early) => early,
        Err(connecting) => return Ok((connecting.await?, None)),
    };
    let greet = async {
        let mut stream = connection.open_uni().await.ok()?;
        stream.set_priority(priority).ok()?;
        stream.write_all_chunks(&mut greeting).await.ok()?;
        Some(stream)
    };
    let (_, stream) = tokio::join!(done, greet);
    match connection.close_reason() {
        // Closed by the session of the peer: that comes after the handshake.
        None | Some(ConnectionError::ApplicationClosed(_)) => Ok((connection, stream)),
        Some(error) => Err(error),
    }
}

/// Turns incoming handshakes into links.
pub(super) struct Acceptor {
    paths: Arc<Paths>,
    admission: Admission,
    clock: Arc<dyn Clock>,
    handshake_timeout: Duration,
    metrics: Arc<QuicMetrics>,
    links: mpsc::Sender<Box<dyn Link>>,
    greeter: Arc<OnceLock<Arc<dyn Greeter>>>,
    handshakes: JoinSet<Option<Box<dyn Link>>>,
    /// Handles of these, and of some that ended.
    by_age: VecDeque<AbortHandle>,
    /// Links that wait for the layer above; they count as handshakes.
    ready: VecDeque<Box<dyn Link>>,
}

impl Acceptor {
    /// One that hands links to `links`.
    pub(super) fn new(
        config: &QuicConfig,
        paths: Arc<Paths>,
        metrics: Arc<QuicMetrics>,
        links: mpsc::Sender<Box<dyn Link>>,
        greeter: Arc<OnceLock<Arc<dyn Greeter>>>,
    ) -> Self {
        Self {
            paths,
            admission: Admission::new(config.limits.clone()),
            clock: config.clock.clone(),
            handshake_timeout: config.handshake_timeout,
            metrics,
            links,
            greeter,
            handshakes: JoinSet::new(),
            by_age: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Works until the endpoint or the engine ends.
    pub(super) async fn run(mut self, endpoint: Endpoint) {
        let links = self.links.clone();
        loop {
            tokio::select! {
                biased;
                place = links.reserve(), if !self.ready.is_empty() => match place {
                    Ok(place) => drop(self.ready.pop_front().map(|link| place.send(link))),
                    // The engine is gone.
                    Err(_) => return,
                },
                Some(done) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    self.ready.extend(done.ok().flatten());
                }
                incoming = endpoint.accept() => match incoming {
                    Some(incoming) => self.admit(incoming),
                    None => return,
                },
            }
        }
    }

    fn admit(&mut self, incoming: Incoming) {
        let verdict = self.admission.judge(
            self.clock.now(),
            incoming.remote_address(),
            incoming.remote_address_validated(),
            self.pending(),
        );
        match verdict {
            Verdict::Accept => self.begin(incoming),
            Verdict::Retry => {
                self.metrics.incoming_retried.inc();
                // It cannot fail for an address that is not validated.
                if let Err(error) = accepting(|| incoming.retry()) {
                    error.into_incoming().refuse();
                }
            }
            Verdict::Replace => {
                if self.abort_oldest() {
                    self.metrics.incoming_replaced.inc();
                    self.begin(incoming);
                } else {
                    self.metrics.incoming_refused_pending.inc();
                    incoming.refuse();
                }
            }
            Verdict::RefuseRate => {
                self.metrics.incoming_refused_rate.inc();
                incoming.refuse();
            }
        }
    }

    fn pending(&self) -> usize {
        self.handshakes.len() + self.ready.len()
    }

    /// False when all handshakes are done and wait for the layer above.
    fn abort_oldest(&mut self) -> bool {
        while let Some(oldest) = self.by_age.pop_front() {
            if !oldest.is_finished() {
                oldest.abort();
                return true;
            }
        }
        false
    }

    fn begin(&mut self, incoming: Incoming) {
        let (metrics, paths) = (self.metrics.clone(), self.paths.clone());
        let greeter = self.greeter.get().cloned();
        let connecting = match accepting(|| incoming.accept()) {
            Ok(connecting) => connecting,
            Err(error) => {
                metrics.failed(HandshakeFailure::of(&error)).inc();
                return;
            }
        };
        let limit = self.admission.time_limit(self.handshake_timeout, self.pending());
        let handshake = self.handshakes.spawn(async move {
            let failure = match timeout(limit, shake(connecting, greeter)).await {
                Ok(Ok((connection, greeted))) => {
                    match QuicLink::new(connection, None, &paths.streams) {
                        Ok(link) if !is_bound(&paths, &link) => HandshakeFailure::WrongPeer,
                        Ok(link) => {
                            metrics.links_accepted.inc();
                            return Some(Box::new(link.greeted_on(greeted)) as Box<dyn Link>);
                        }
                        Err(_) => HandshakeFailure::KeyType,
                    }
                }
                Ok(Err(error)) => HandshakeFailure::of(&error),
                Err(_) => HandshakeFailure::Timeout,
            };
            metrics.failed(failure).inc();
            None
        });
        self.by_age.push_back(handshake);
        if self.by_age.len() > 2 * self.handshakes.len() {
            self.by_age.retain(|handshake| !handshake.is_finished());
        }
    }
}
