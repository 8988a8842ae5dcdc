//! Answers to what never becomes a request: bytes that are no HTTP/1, heads that are too large or too
//! slow. The HTTP library answers some of it itself, without a body, and the rest not at all; here it
//! gets the JSON body that every other failure has.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use x0x_api::{ErrorBody, ErrorCode, limits::STUCK_AFTER};

/// How long a client may take to read a refusal.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How much more of what it sends is read, so that the answer is not lost with unread bytes.
const MAX_LINGER: usize = 1024 * 1024;
/// For how long.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The headers of an answer that the library makes itself. Answers of this API carry more.
const BARE_HEADERS: [&[u8]; 3] = [b"connection: ", b"content-length: ", b"date: "];
/// Most bytes of such an answer.
const MAX_BARE: usize = 256;

/// A connection's socket. It keeps the library's own refusal from the client, which is always the
/// last thing that is written. A client that takes nothing of what is written for a while has an end.
#[derive(Debug)]
pub(super) struct Watched {
    socket: TcpStream,
    /// Not once the connection is a WebSocket: what it carries then is no HTTP, and has a deadline of
    /// its own.
    upgraded: Arc<AtomicBool>,
    withheld: Option<u16>,
    /// Ends when the client has taken nothing for too long; there is none while it takes what it gets.
    patience: Option<Pin<Box<Sleep>>>,
    stuck: bool,
}

impl Watched {
    pub(super) fn new(socket: TcpStream, upgraded: Arc<AtomicBool>) -> Self {
        Self { socket, upgraded, withheld: None, patience: None, stuck: false }
    }

    /// Whether it ended because the client took nothing for too long.
    pub(super) const fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Ends the patience with a client as soon as it takes something, and its connection when it does not.
    fn hold_to_time(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.upgraded.load(Ordering::Relaxed) {
            self.patience = None;
            return written;
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(STUCK_AFTER)));
        if patience.as_mut().poll(cx).is_pending() {
            return written;
        }
        self.stuck = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Where a refusal of the library begins in what is being written, and its status.
    fn refusal_in(&self, buffer: &[u8]) -> Option<(usize, u16)> {
        if self.upgraded.load(Ordering::Relaxed) { None } else { bare_refusal(buffer) }
    }
}

/// A head without a body at the end of a buffer, of an answer 4xx that has the library's headers and
/// no other: where it begins, and its status.
fn bare_refusal(buffer: &[u8]) -> Option<(usize, u16)> {
    const START: &[u8] = b"HTTP/1.1 4";
    let rest = buffer.strip_suffix(b"\r\n\r\n")?;
    let from = rest.len().saturating_sub(MAX_BARE);
    let start = from + rest.get(from..)?.windows(START.len()).rposition(|part| part == START)?;
    let mut lines = rest.get(start..)?.split(|byte| *byte == b'\n');
    let status = lines.next()?.get(9..12)?;
    let bare = lines.all(|line| BARE_HEADERS.iter().any(|name| line.starts_with(name)));
    let status = std::str::from_utf8(status).ok()?.parse().ok()?;
    bare.then_some((start, status))
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let wanted = match self.refusal_in(buffer) {
            Some((0, status)) => {
                self.withheld = Some(status);
                return Poll::Ready(Ok(buffer.len()));
            }
            Some((start, _)) => buffer.get(..start).unwrap_or(buffer),
            None => buffer,
        };
        let written = Pin::new(&mut self.socket).poll_write(cx, wanted);
        self.hold_to_time(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = buffers.iter().filter(|buffer| !buffer.is_empty());
        let last = filled.clone().next_back();
        if last.is_some_and(|last| self.refusal_in(last).is_some()) {
            let first = filled.next().map_or(&[][..], |buffer| buffer);
            return self.poll_write(cx, first);
        }
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, buffers);
        self.hold_to_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.withheld.is_some() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

/// Why a connection that ended is refused, if it is. `unread`: part of a head was there.
pub(super) fn reason(
    error: Option<&hyper::Error>,
    watched: &Watched,
    unread: bool,
) -> Option<(ErrorCode, &'static str)> {
    match watched.withheld {
        Some(414 | 431) => {
            return Some((ErrorCode::HeadersTooLarge, "request line and headers are too large"));
        }
        Some(_) => return Some((ErrorCode::BadRequest, "this is not an HTTP/1.1 request")),
        None => {}
    }
    let error = error?;
    if error.is_timeout() {
        // Without any byte of a request, an idle connection ends: nobody waits for an answer.
        let text = "the request line and headers did not arrive in time";
        unread.then_some((ErrorCode::RequestTimeout, text))
    } else if error.is_parse() {
        Some((ErrorCode::BadRequest, "this API speaks HTTP/1.1 only"))
    } else if error.is_incomplete_message() && unread {
        Some((ErrorCode::BadRequest, "the request ends within its head"))
    } else {
        None
    }
}

/// Answers with the JSON body of a failure, and closes the connection.
pub(super) async fn answer(watched: Watched, code: ErrorCode, text: &str) {
    let mut socket = watched.socket;
    let written = tokio::time::timeout(ANSWER_TIME, async {
        socket.write_all(&response(code, text)).await?;
        socket.shutdown().await
    });
    if matches!(written.await, Ok(Ok(()))) {
        // The client may not have sent all of it yet.
        let _ = tokio::time::timeout(LINGER_TIME, linger(&mut socket)).await;
    }
}

fn response(code: ErrorCode, text: &str) -> Vec<u8> {
    let body = serde_json::to_string(&ErrorBody::new(code, text)).unwrap_or_default();
    let status = axum::http::StatusCode::from_u16(code.status()).unwrap_or_default();
    let reason = status.canonical_reason().unwrap_or_default();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n\r\n{body}",
        code.status(),
        body.len()
    )
    .into_bytes()
}

async fn linger(socket: &mut TcpStream) {
    let mut buffer = [0; 4096];
    let mut left = MAX_LINGER;
    while left > 0 {
        match socket.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(read) => left = left.saturating_sub(read),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_librarys_own_refusal_is_recognised() {
        let bare = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\
                    content-length: 0\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(bare_refusal(bare.as_bytes()), Some((0, 431)));
        let own = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";
        let both = format!("{own}{bare}");
        assert_eq!(bare_refusal(both.as_bytes()), Some((own.len(), 431)));
        let hardened = bare.replace("date: ", "x-content-type-options: nosniff\r\ndate: ");
        let chunk = format!("data: {}\n\n\r\n0\r\n\r\n", bare.trim_end().replace("\r\n", " "));
        for other in [own, "", "\r\n\r\n", &hardened, &chunk, &bare[..bare.len() - 1]] {
            assert_eq!(bare_refusal(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_refusal_is_an_answer_of_this_api() {
        let text = String::from_utf8(response(ErrorCode::RequestTimeout, "late")).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        let body: ErrorBody = serde_json::from_str(body).expect("JSON");
        assert_eq!(body.code, ErrorCode::RequestTimeout);
    }
}
