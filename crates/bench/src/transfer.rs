//! Files between two daemons, as their users see it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};
use x0x_api::types::{
    SendFileRequest, SendFileResponse, Transfer, TransferResponse, TransferState, TransferStatus,
};
use x0x_api::{Operation, endpoint};

use crate::http::Http;
use crate::node::Node;

/// How often a transfer is looked at.
const POLL: Duration = Duration::from_millis(5);
/// Bytes written to a file at once.
const PIECE: usize = 1024 * 1024;

/// Makes a file of random bytes.
pub(crate) fn write_random(path: &Path, bytes: u64) -> Result<()> {
    let mut source = File::open("/dev/urandom")?;
    let mut file = File::create(path)?;
    let mut piece = vec![0; PIECE];
    source.read_exact(&mut piece)?;
    let mut left = bytes;
    let mut number = 0_u64;
    while left > 0 {
        // Each piece differs, without asking the system for as much randomness.
        piece[..8].copy_from_slice(&number.to_le_bytes());
        number += 1;
        let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.write_all(&piece[..take])?;
        left -= take as u64;
    }
    Ok(file.sync_all()?)
}

/// Offers a file; the transfer's id.
pub(crate) async fn send(from: &Node, to: &str, path: &Path) -> Result<String> {
    let path = path.to_str().context("the path is no Unicode")?.to_owned();
    let body =
        SendFileRequest { agent_id: to.to_owned(), path: Some(path), ..SendFileRequest::default() };
    let answer = from.http().await?.post(Operation::SendFile, &body).await?;
    Ok(answer.read::<SendFileResponse>()?.transfer_id)
}

/// How a transfer stands at a node; `None` while it is not known there.
pub(crate) async fn look(http: &mut Http, id: &str) -> Result<Option<Transfer>> {
    let path = endpoint(Operation::Transfer).path.replace("{id}", id);
    let answer = http.send("GET", &path, b"").await?;
    if answer.status == 404 {
        return Ok(None);
    }
    Ok(Some(answer.read::<TransferResponse>()?.transfer))
}

/// Waits until a transfer is in a state that will do.
pub(crate) async fn wait(
    http: &mut Http,
    id: &str,
    patience: Duration,
    mut will_do: impl FnMut(&Transfer) -> bool,
) -> Result<Transfer> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(transfer) = look(http, id).await? {
            if will_do(&transfer) {
                return Ok(transfer);
            }
            if matches!(transfer.status, TransferStatus::Failed | TransferStatus::Rejected) {
                bail!("the transfer failed: {:?}", transfer.error);
            }
        }
        if Instant::now() > deadline {
            bail!("the transfer takes too long");
        }
        sleep(POLL).await;
    }
}

/// Accepts an offer as soon as it is there.
pub(crate) async fn accept(http: &mut Http, id: &str, patience: Duration) -> Result<()> {
    wait(http, id, patience, |transfer| transfer.state == TransferState::Offered).await?;
    let path = endpoint(Operation::AcceptFile).path.replace("{id}", id);
    let answer = http.send("POST", &path, b"").await?;
    if answer.status != 200 {
        bail!("not accepted: {}", String::from_utf8_lossy(&answer.body));
    }
    Ok(())
}
