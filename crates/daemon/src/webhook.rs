//! Tells a server on this machine of each direct message: one POST a message, in order, again until
//! it is taken. The place in the inbox is that of a consumer, so that a restart loses nothing.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use x0x_agent::{Ack, Agent, DirectMessage};

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
/// How often a message is offered before it is left, so that it does not keep others waiting.
const ATTEMPTS: u32 = 20;
/// Bytes of an answer that are looked at: its status line.
const HEAD_BYTES: u64 = 1024;

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
    let mut pause = FIRST_PAUSE;
    for _ in 0..ATTEMPTS {
        match timeout(ANSWER_TIME, post(webhook, &body)).await {
            Ok(Ok(200..300)) => return,
            outcome => tracing::debug!(number, ?outcome, "the webhook did not take a message"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
    tracing::warn!(number, "the webhook does not take a message, which is left");
}

/// The status of the answer.
async fn post(webhook: &Webhook, body: &[u8]) -> io::Result<u16> {
    let mut socket = TcpStream::connect(webhook.address).await?;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        webhook.path,
        webhook.address,
        body.len(),
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body).await?;
    let mut answer = Vec::new();
    socket.take(HEAD_BYTES).read_to_end(&mut answer).await?;
    let line = String::from_utf8_lossy(&answer);
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
    status.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}
