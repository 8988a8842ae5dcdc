//! Connections: how many, how slow, and how they end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    http::{Request, StatusCode},
};
use hyper::{
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
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;

use super::{
    admission::{Admission, Connections, Pass, Seat},
    metrics::ApiMetrics,
    refusal::{self, Watched},
};
use crate::{app::App, open_files};

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
    let files = open_files::limit();
    let spare = open_files::RESERVED + MAX_ENDING as u64;
    let connections = Connections::within(files.map(|files| files.saturating_sub(spare)));
    let room = Arc::new(Semaphore::new(connections.max() + MAX_ENDING));
    loop {
        let accept = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            let (socket, _) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => return Some(Err(error)),
            };
            app.metrics.connections.inc();
            Some(Ok((socket, seat(&app, &connections).await, permit)))
        };
        let accepted = tokio::select! {
            () = app.stop.cancelled() => return,
            accepted = accept => accepted,
        };
        match accepted {
            Some(Ok((socket, seat, permit))) => {
                let (router, app, kill) = (router.clone(), Arc::clone(&app), kill.clone());
                let tasks = app.tasks.clone();
                tasks.spawn(async move {
                    let carried = carry(socket, router, &app.stop, &app.metrics, seat.pass());
                    tokio::select! {
                        () = carried => {}
                        () = seat.evicted() => {}
                        () = kill.cancelled() => {}
                    }
                    drop(permit);
                });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None => return,
        }
    }
}

/// Waits for a connection's seat.
async fn seat(app: &App, connections: &Connections) -> Seat {
    loop {
        match connections.admit(app.now()) {
            Admission::Taken { seat, evicted } => {
                if evicted {
                    app.metrics.connections_evicted.inc();
                }
                return seat;
            }
            Admission::Full(left) => {
                // Early when a seat is freed.
                let _ = tokio::time::timeout(left, connections.freed()).await;
            }
        }
    }
}

/// Serves a connection to its end.
async fn carry(
    socket: TcpStream,
    router: Router,
    stop: &CancellationToken,
    metrics: &ApiMetrics,
    pass: Pass,
) {
    // Without it answers are only slower.
    let _ = socket.set_nodelay(true);
    let upgraded = Arc::new(AtomicBool::new(false));
    let watched = Watched::new(socket, Arc::clone(&upgraded));
    let service = TowerToHyperService::new(router);
    let asking = pass.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        asking.set_asking(true);
        request.extensions_mut().insert(asking.clone());
        let (answer, upgraded) = (service.call(request), Arc::clone(&upgraded));
        let asking = asking.clone();
        async move {
            let answer = answer.await?;
            asking.set_asking(false);
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                upgraded.store(true, Ordering::Relaxed);
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(watched), service)
        .with_upgrades();
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            // Part of a head, or nothing: no answer is owed, and nobody waits for the rest.
            if pass.is_silent() {
                return;
            }
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    if let Err(error) = &result {
        tracing::debug!(%error, "a connection ended");
    }
    // Nothing is left of a connection that was upgraded.
    let Some(parts) = connection.into_parts() else { return };
    let watched = parts.io.into_inner();
    if watched.is_stuck() {
        metrics.connections_stuck.inc();
        return;
    }
    let refused = refusal::reason(result.as_ref().err(), &watched, !parts.read_buf.is_empty());
    if let Some((code, text)) = refused {
        let status = StatusCode::from_u16(code.status()).unwrap_or_default();
        metrics.count(status, Some(code));
        refusal::answer(watched, code, text).await;
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        task::JoinHandle,
    };
    use x0x_api::{ErrorBody, ErrorCode};
    use x0x_core::Tick;

    use super::*;

    const GOOD: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    /// Longer than anything may take here.
    const AGES: Duration = Duration::from_secs(3600);

    /// A connection that a server carries, and what the server counts.
    async fn carried(router: Router, stop: CancellationToken) -> (TcpStream, JoinHandle<u64>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let served = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("a connection");
            let Admission::Taken { seat, .. } = Connections::default().admit(Tick::ZERO) else {
                panic!("there is room");
            };
            let metrics = ApiMetrics::default();
            carry(socket, router, &stop, &metrics, seat.pass()).await;
            metrics.connections_stuck.value()
        });
        (TcpStream::connect(address).await.expect("it listens"), served)
    }

    /// What a connection gets for these bytes until it is closed, a client's end left open.
    async fn exchange(bytes: &str) -> String {
        let router = Router::new().route("/", get(async || "fine"));
        let (mut client, served) = carried(router, CancellationToken::new()).await;
        client.write_all(bytes.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("text");
        drop(client);
        served.await.expect("it ends");
        answer
    }

    /// A stream whose client never reads does not keep its place for ever.
    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_let_go() {
        let endless = || async {
            let chunk = || Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 65536]));
            axum::body::Body::from_stream(futures_util::stream::repeat_with(chunk))
        };
        let router = Router::new().route("/", get(endless));
        let (mut client, served) = carried(router, CancellationToken::new()).await;
        client.write_all(GOOD.as_bytes()).await.expect("sent");
        let stuck = tokio::time::timeout(AGES, served).await.expect("it ends");
        assert_eq!(stuck.expect("no panic"), 1);
        drop(client);
    }

    /// Whoever sent half a head without a token is owed nothing: the stop does not wait for the rest.
    #[tokio::test(start_paused = true)]
    async fn half_a_head_does_not_delay_the_stop() {
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(async || "fine"));
        let (mut client, served) = carried(router, stop.clone()).await;
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("sent");
        tokio::time::sleep(HEAD_TIME / 10).await;
        stop.cancel();
        let mut answer = String::new();
        // A reset is an end too.
        let _ = client.read_to_string(&mut answer).await;
        assert_eq!(answer, "", "it is not even told that it was slow");
        served.await.expect("it ends");
    }

    fn assert_refused(answer: &str, code: ErrorCode) {
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let start = format!("HTTP/1.1 {} ", code.status());
        assert!(head.starts_with(&start), "{answer}");
        assert!(head.contains("connection: close"), "{answer}");
        let body: ErrorBody = serde_json::from_str(body).expect("JSON");
        assert_eq!(body.code, code);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_head_is_told_and_an_idle_connection_ends() {
        assert_refused(&exchange("GET / HTTP/1.1\r\nHo").await, ErrorCode::RequestTimeout);
        assert_eq!(exchange("").await, "");
        let answer = exchange(GOOD).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("fine"), "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_request_is_refused_like_all_else() {
        for bytes in
            ["nonsense\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\u{16}\u{3}\u{1}\u{2}"]
        {
            assert_refused(&exchange(bytes).await, ErrorCode::BadRequest);
        }
        let many = "X: y\r\n".repeat(200);
        let many = format!("GET / HTTP/1.1\r\n{many}\r\n");
        assert_refused(&exchange(&many).await, ErrorCode::HeadersTooLarge);
        let answer = exchange(&format!("{GOOD}{GOOD}nonsense\r\n\r\n")).await;
        let (fine, refused) = answer.split_at(answer.find("HTTP/1.1 400").expect("refused"));
        assert_eq!(fine.matches("HTTP/1.1 200").count(), 2, "{answer}");
        assert!(fine.ends_with("fine"), "{answer}");
        assert_refused(refused, ErrorCode::BadRequest);
    }
}
