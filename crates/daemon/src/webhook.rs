//! Tells a server on this machine of each direct message: one POST a message, in order, again until
//! it is taken. The place in the inbox is that of a consumer, so that a restart loses nothing.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use x0x_agent::{Ack, Agent, DirectMessage};
use zeroize::Zeroizing;

use crate::{app::App, config::Webhook, convert};

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
/// How often it may take a connection and end it without an answer before the message is left: it may be what the
/// server breaks at. Some three hours.
const BREAKS: u32 = 200;
/// Failures after which the owner is told.
const TOLD_AFTER: u32 = 5;
/// Room for the head of a request, so that no part of it is left behind where it grew.
const MAX_HEAD: usize = 4096;
/// Bytes of an answer in which its first line has to end.
const STATUS_BYTES: u64 = 1024;

/// The message that the server has not taken for a while, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Stuck(AtomicU64);

impl Stuck {
    /// Its number.
    pub(crate) fn number(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|number| *number > 0)
    }

    fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// Runs until the daemon stops.
pub(crate) async fn run(app: Arc<App>, webhook: Webhook) {
    tokio::select! {
        () = app.stop.cancelled() => {}
        () = serve(&app.agent, &webhook, &app.webhook) => {}
    }
}

async fn serve(agent: &Agent, webhook: &Webhook, stuck: &Stuck) {
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
            offer(agent, webhook, stuck, message).await;
            if let Err(error) = agent.ack_mail(CONSUMER, Ack::Numbers(vec![number])).await {
                tracing::warn!(%error, number, "the webhook may get a message again");
            }
        }
    }
}

async fn offer(agent: &Agent, webhook: &Webhook, stuck: &Stuck, message: DirectMessage) {
    let number = message.number;
    let event = convert::mail(agent, message);
    let Ok(body) = serde_json::to_vec(&event) else { return };
    if !insist(number, stuck, || post(webhook, &body)).await {
        tracing::warn!(number, "the webhook does not take a message, which is left");
    }
}

/// Asks again until the message is taken; false when it was refused too often.
async fn insist<F: Future<Output = Result<u16, PostError>>>(
    number: u64,
    stuck: &Stuck,
    mut ask: impl FnMut() -> F,
) -> bool {
    let (mut pause, mut refusals, mut breaks) = (FIRST_PAUSE, 0, 0);
    for failures in 1_u32.. {
        match timeout(ANSWER_TIME, ask()).await {
            Ok(Ok(200..300)) => {
                stuck.set(0);
                return true;
            }
            Ok(Ok(status)) => {
                refusals += 1;
                tracing::debug!(number, status, "the webhook refused a message");
            }
            Ok(Err(PostError::Broken(error))) => {
                breaks += 1;
                tracing::debug!(number, %error, "the webhook ended the connection");
            }
            Ok(Err(PostError::Absent(error))) => {
                tracing::debug!(number, %error, "the webhook is not there");
            }
            Err(_) => tracing::debug!(number, "the webhook does not answer"),
        }
        if refusals >= REFUSALS || breaks >= BREAKS {
            break;
        }
        if failures >= TOLD_AFTER {
            stuck.set(number);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    stuck.set(0);
    false
}

/// A request that was not answered.
#[derive(Debug)]
enum PostError {
    /// Nobody takes connections there.
    Absent(io::Error),
    /// The connection ended, or what came is no answer.
    Broken(io::Error),
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
async fn post(webhook: &Webhook, body: &[u8]) -> Result<u16, PostError> {
    let mut socket = TcpStream::connect(webhook.address).await.map_err(PostError::Absent)?;
    let (mut answer, mut request) = socket.split();
    let write = async {
        request.write_all(head(webhook, body.len()).as_bytes()).await?;
        request.write_all(body).await
    };
    let (mut write, mut status) = (std::pin::pin!(write), std::pin::pin!(status(&mut answer)));
    tokio::select! {
        found = &mut status => return found.map_err(PostError::Broken),
        // Who refuses the rest may have said why.
        _ = &mut write => {}
    }
    status.await.map_err(PostError::Broken)
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

    /// What comes of answers (0 is a connection that breaks), the last of which is repeated, with how often was asked and for how long.
    async fn outcome(answers: &[Option<u16>]) -> (bool, usize, Duration) {
        let (mut asked, begun) = (0, tokio::time::Instant::now());
        let stuck = Stuck::default();
        let taken = insist(7, &stuck, || {
            let answer = answers[asked.min(answers.len() - 1)];
            assert_eq!(stuck.number(), (asked >= TOLD_AFTER as usize).then_some(7));
            asked += 1;
            std::future::ready(match answer {
                Some(0) => Err(PostError::Broken(io::ErrorKind::ConnectionReset.into())),
                Some(status) => Ok(status),
                None => Err(PostError::Absent(io::ErrorKind::ConnectionRefused.into())),
            })
        });
        let taken = taken.await;
        assert_eq!(stuck.number(), None);
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
    async fn a_message_at_which_the_server_breaks_is_left_in_the_end() {
        let (taken, asked, time) = outcome(&[Some(0)]).await;
        assert_eq!((taken, asked), (false, BREAKS as usize));
        assert!(time > Duration::from_secs(3 * 3600), "it may only be restarted: {time:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_does_not_come_is_not_waited_for() {
        let mut asked = 0;
        let stuck = Stuck::default();
        let taken = insist(1, &stuck, || {
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
    async fn answered(reads: usize, stays: bool) -> Result<u16, PostError> {
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
