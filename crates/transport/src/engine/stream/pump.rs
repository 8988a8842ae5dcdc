//! The task of one stream.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    net::BoxedIo,
    table::{Open, StreamTable},
};
use crate::{
    engine::paths::Relayed,
    sock::stream::{MAX_READ, Packets, append},
};

/// Silence after which a stream is closed. Sessions send something every seven seconds.
const IDLE_AFTER: Duration = Duration::from_secs(60);
/// How long a stream may be without a link: a handshake and some more.
const LINK_TIME: Duration = Duration::from_secs(15);
/// How long the peer may take to read what one write has, a hundred kilobytes at most.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Packets in one write.
const BATCH: usize = 64;

/// Why a stream ended.
enum Ended {
    Idle,
    Unlinked,
    Slow,
    Malformed,
    /// The connection did.
    Closed,
}

/// Serves a stream until it ends.
pub(super) async fn run(
    io: BoxedIo,
    open: Open,
    deliver: mpsc::Sender<Relayed>,
    table: Arc<StreamTable>,
) {
    let Open { address, queue, linked, over } = open;
    let _forget = Forget { table: table.clone(), address };
    let metrics = &table.metrics;
    let (reading, writing) = tokio::io::split(io);
    let unlinked = async {
        sleep(LINK_TIME).await;
        if linked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    let read = read(reading, &table, |packet| deliver.send((address, packet)));
    let ended = tokio::select! {
        biased;
        () = over.cancelled() => Ended::Closed,
        ended = read => ended,
        ended = write(writing, queue, &table) => ended,
        () = unlinked => Ended::Unlinked,
    };
    match ended {
        Ended::Idle => metrics.closed_idle.inc(),
        Ended::Unlinked => metrics.closed_unlinked.inc(),
        Ended::Slow => metrics.closed_slow.inc(),
        Ended::Malformed => metrics.closed_malformed.inc(),
        Ended::Closed => {}
    }
    metrics.closed.inc();
}

/// Forgets a stream in every case, the end of the engine among them.
struct Forget {
    table: Arc<StreamTable>,
    address: SocketAddr,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.table.remove(self.address);
    }
}

/// Reads packets. One who waits for the endpoint to take them holds up the stream, and so its sender.
async fn read<F, E>(
    mut io: ReadHalf<BoxedIo>,
    table: &StreamTable,
    deliver: impl Fn(Bytes) -> F,
) -> Ended
where
    F: Future<Output = Result<(), E>>,
{
    let mut chunk = vec![0; MAX_READ];
    let mut packets = Packets::default();
    loop {
        // A packet that comes in drops of bytes counts once it is whole.
        let next = timeout(IDLE_AFTER, async {
            loop {
                match packets.next_packet() {
                    Ok(Some(packet)) => return Ok(packet),
                    Ok(None) => {}
                    Err(_) => return Err(Ended::Malformed),
                }
                match io.read(&mut chunk).await {
                    Ok(0) | Err(_) => return Err(Ended::Closed),
                    Ok(count) => packets.push(&chunk[..count]),
                }
            }
        });
        match next.await {
            Ok(Ok(packet)) => {
                table.metrics.received_packets.inc();
                if deliver(packet).await.is_err() {
                    return Ended::Closed;
                }
            }
            Ok(Err(ended)) => return ended,
            Err(_) => return Ended::Idle,
        }
    }
}

/// Writes packets, as many as there are at once. A peer that does not read loses those that come meanwhile.
async fn write(
    mut io: WriteHalf<BoxedIo>,
    mut queue: mpsc::Receiver<Bytes>,
    table: &StreamTable,
) -> Ended {
    let (mut packets, mut buffer) = (Vec::with_capacity(BATCH), Vec::new());
    while queue.recv_many(&mut packets, BATCH).await > 0 {
        buffer.clear();
        for packet in packets.drain(..) {
            match append(&mut buffer, &packet) {
                true => table.metrics.sent_packets.inc(),
                false => table.metrics.dropped_size.inc(),
            }
        }
        let written = timeout(WRITE_TIME, async {
            io.write_all(&buffer).await?;
            io.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Ended::Closed,
            Err(_) => return Ended::Slow,
        }
    }
    Ended::Closed
}
