//! The yardstick of files: one stream of raw quinn, in this process, that nobody stores.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::Instant;

use crate::quinn_echo;

/// Bytes written at once.
const PIECE: usize = 256 * 1024;

/// How long it takes until the far side has read this many bytes.
pub(crate) async fn time(bytes: u64) -> Result<Duration> {
    let (near, far, _endpoints) = quinn_echo::connect().await?;
    let reader = tokio::spawn(async move {
        let mut stream = far.accept_uni().await?;
        let mut read = 0;
        while let Some(chunk) = stream.read_chunk(PIECE, true).await? {
            read += chunk.bytes.len() as u64;
        }
        // Kept until the last byte is read, since dropping it would end the connection.
        drop(far);
        anyhow::Ok(read)
    });
    let piece = vec![0x5a; PIECE];
    let started = Instant::now();
    let mut stream = near.open_uni().await?;
    let mut left = bytes;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        stream.write_all(&piece[..take]).await?;
        left -= take as u64;
    }
    stream.finish()?;
    let read = reader.await.context("the reader ended")??;
    anyhow::ensure!(read == bytes, "{read} of {bytes} bytes came");
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    #[tokio::test]
    async fn everything_arrives() {
        assert!(super::time(1_000_000).await.unwrap() > std::time::Duration::ZERO);
    }
}
