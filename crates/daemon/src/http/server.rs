//! Connections: how many, how slow, and how they end.

use std::{sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::admission::{Connections, MAX_CONNECTIONS, Seat};
use crate::app::App;

/// Most connections besides, which were told to make room and are about to end. While there are more,
/// new ones wait to be taken.
const MAX_ENDING: usize = 64;
/// How long a client may take for a request's head. Also ends idle connections.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Buffer of a connection. Larger heads than this are refused by the HTTP library itself.
const BUFFER: usize = 64 * 1024;
/// Pause after a failed accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until the daemon stops. `kill` ends those that do not end by themselves.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    app: Arc<App>,
    kill: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS + MAX_ENDING));
    let connections = Connections::default();
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((listener.accept().await, permit))
        };
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return,
            accepted = accept => accepted,
        };
        match accepted {
            Some((Ok((socket, _)), permit)) => {
                app.metrics.connections.inc();
                let (seat, evicted) = connections.admit();
                if evicted {
                    app.metrics.connections_evicted.inc();
                }
                let place = Place { seat, _permit: permit };
                let connection =
                    connection(socket, router.clone(), app.stop.clone(), kill.clone(), place);
                app.tasks.spawn(connection);
            }
            Some((Err(error), _)) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => return,
        }
    }
}

/// What a connection takes up while it lasts.
struct Place {
    seat: Seat,
    _permit: OwnedSemaphorePermit,
}

async fn connection(
    socket: TcpStream,
    router: Router,
    stop: CancellationToken,
    kill: CancellationToken,
    place: Place,
) {
    // Without it answers are only slower.
    let _ = socket.set_nodelay(true);
    let service = TowerToHyperService::new(router);
    let pass = place.seat.pass();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(pass.clone());
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = place.seat.evicted() => return,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                result = connection.as_mut() => result,
                () = kill.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}
