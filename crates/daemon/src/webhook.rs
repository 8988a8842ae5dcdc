//! Tells a server on this machine of each direct message: one POST a message, in order, again until
//! it is taken. The place in the inbox is that of a consumer, so that a restart loses nothing.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use x0x_agent::{Ack, Agent, DirectMessage};
use zeroize::Zeroizing;

use crate::{config::Webhook, convert};

/// The consumer whose place it is.
const CONSUMER: &str = "webhook";
/// How long to wait for a message at once.
const WAIT: Duration = Duration::from_secs(3600);
/// How long the server may take for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// The first pause after a failure; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How often the server may refuse a message before that is left, so that it does not keep others waiting.
/// A server that cannot be reached or does not answer refuses nothing.
const REFUSALS: u32 = 20;
/// Room for the head of a request, so that no part of it is left behind where it grew.
const MAX_HEAD: usize = 4096;
/// Bytes of an answer in which its first line has to end.
const STATUS_BYTES: u64 = 1024;

/// Runs until the daemon stops.
pub(crate) async fn run(agent: Agent, webhook: Webhook, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = serve(&agent, &webhook) => {}
    }
}

async fn serve(agent: &Agent, webhook: &Webhook) {
    loop {
        let taken = match agent.take_mail(CONSUMER, 1, WAIT, None).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(%error, "no mail for the webhook");
                tokio::time::sleep(LAST_PAUSE).await;
                continue;
            }
        };
        for message in taken.messages {
            let number = message.number;
            offer(agent, webhook, message).await;
            if let Err(error) = agent.ack_mail(CONSUMER, Ack::Numbers(vec![number])).await {
                tracing::warn!(%error, number, "the webhook may get a message again");
            }
        }
    }
}

async fn offer(agent: &Agent, webhook: &Webhook, message: DirectMessage) {
    let number = message.number;
    let event = convert::mail(agent, message);
    let Ok(body) = serde_json::to_vec(&event) else { return };
    if !insist(number, || post(webhook, &body)).await {
        tracing::warn!(number, "the webhook does not take a message, which is left");
    }
}

/// Asks again until the message is taken; false when it was refused too often.
async fn insist<F: Future<Output = io::Result<u16>>>(
    number: u64,
    mut ask: impl FnMut() -> F,
) -> bool {
    let (mut pause, mut refusals) = (FIRST_PAUSE, 0);
    loop {
        match timeout(ANSWER_TIME, ask()).await {
            Ok(Ok(200..300)) => return true,
            Ok(Ok(status)) => {
                refusals += 1;
                tracing::debug!(number, status, "the webhook refused a message");
            }
            outcome => tracing::debug!(number, ?outcome, "the webhook is not there"),
        }
        if refusals >= REFUSALS {
            return false;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// The head of the request, which may hold a secret.
fn head(webhook: &Webhook, len: usize) -> Zeroizing<String> {
    let Webhook { address, path, secret } = webhook;
    let mut head = Zeroizing::new(String::with_capacity(MAX_HEAD));
    head.push_str(&format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {len}\r\nConnection: close\r\n"
    ));
    if let Some(secret) = secret {
        for part in ["Authorization: Bearer ", secret.reveal(), "\r\n"] {
            head.push_str(part);
        }
    }
    head.push_str("\r\n");
    head
}

/// The status of the answer. A server may answer before it has read all, and may leave the connection open.
async fn post(webhook: &Webhook, body: &[u8]) -> io::Result<u16> {
    let mut socket = TcpStream::connect(webhook.address).await?;
    let (mut answer, mut request) = socket.split();
    let write = async {
        request.write_all(head(webhook, body.len()).as_bytes()).await?;
        request.write_all(body).await
    };
    let (mut write, mut status) = (std::pin::pin!(write), std::pin::pin!(status(&mut answer)));
    tokio::select! {
        found = &mut status => return found,
        // Who refuses the rest may have said why.
        _ = &mut write => {}
    }
    status.await
}

/// Reads the first line of an answer.
async fn status(answer: &mut (impl AsyncRead + Unpin)) -> io::Result<u16> {
    let mut line = Vec::new();
    let mut bytes = answer.take(STATUS_BYTES);
    while !line.ends_with(b"\n") {
        match bytes.read_u8().await {
            Ok(byte) => line.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    let line = String::from_utf8_lossy(&line);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    status.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookSecret;

    /// What comes of answers, the last of which is repeated, with how often was asked and for how long.
    async fn outcome(answers: &[Option<u16>]) -> (bool, usize, Duration) {
        let (mut asked, begun) = (0, tokio::time::Instant::now());
        let taken = insist(1, || {
            let answer = answers[asked.min(answers.len() - 1)];
            asked += 1;
            std::future::ready(answer.ok_or_else(|| io::ErrorKind::ConnectionRefused.into()))
        });
        let taken = taken.await;
        (taken, asked, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_refused_is_left_and_one_that_nobody_heard_is_not() {
        let (taken, asked, time) = outcome(&[Some(500)]).await;
        assert_eq!((taken, asked), (false, REFUSALS as usize));
        assert!(time > LAST_PAUSE * 10, "later each time: {time:?}");
        for answers in [vec![Some(204)], vec![Some(500), Some(302), None, Some(200)]] {
            let (taken, asked, _) = outcome(&answers).await;
            assert_eq!((taken, asked), (true, answers.len()));
        }
        let mut away = vec![None; 500];
        away.push(Some(200));
        let (taken, asked, time) = outcome(&away).await;
        assert_eq!((taken, asked), (true, 501), "a server that is away refuses nothing");
        assert!(time > Duration::from_secs(8 * 3600));
        away.splice(0..0, vec![Some(404); REFUSALS as usize - 1]);
        assert!(outcome(&away).await.0, "one refusal is left to it");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let mut asked = 0;
        let taken = insist(1, || {
            asked += 1;
            let heard = asked == 3;
            async move {
                if !heard {
                    std::future::pending::<()>().await;
                }
                Ok(200)
            }
        });
        assert!(taken.await);
    }

    /// What comes of a message when the server reads so much of it, answers, and waits for its end, or not.
    async fn answered(reads: usize, stays: bool) -> io::Result<u16> {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = server.local_addr().expect("bound");
        let webhook = Webhook { address, path: "/".to_owned(), secret: None };
        let serve = async {
            let (mut socket, _) = server.accept().await.expect("a client");
            let mut read = vec![0; reads];
            socket.read_exact(&mut read).await.expect("a request");
            socket.write_all(b"HTTP/1.1 413 Too Large\r\n\r\n").await.expect("answered");
            if stays {
                std::future::pending::<()>().await;
            }
        };
        let body = vec![b'x'; 5 << 20];
        let post = post(&webhook, &body);
        let (mut serve, mut post) = (std::pin::pin!(serve), std::pin::pin!(post));
        tokio::select! {
            status = &mut post => return status,
            () = &mut serve => {}
        }
        post.await
    }

    #[tokio::test]
    async fn an_answer_ends_with_its_first_line_whatever_was_read() {
        assert_eq!(answered(100, true).await.expect("an answer"), 413, "before it has read all");
        assert_eq!(answered(5 << 20, true).await.expect("an answer"), 413, "and stays open");
    }

    #[test]
    fn a_secret_is_sent_as_a_bearer_token() {
        let address = ([127, 0, 0, 1], 80).into();
        let mut webhook = Webhook { address, path: "/hook".to_owned(), secret: None };
        assert!(!head(&webhook, 7).contains("Authorization"));
        webhook.secret = WebhookSecret::parse("s3cret".to_owned());
        let head = head(&webhook, 7);
        assert!(head.starts_with("POST /hook HTTP/1.1\r\n"), "{}", *head);
        assert!(head.contains("\r\nAuthorization: Bearer s3cret\r\n"), "{}", *head);
        assert!(head.ends_with("\r\n\r\n") && !format!("{webhook:?}").contains("s3cret"));
    }
}
