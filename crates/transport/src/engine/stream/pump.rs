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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{DuplexStream, duplex},
        task::JoinHandle,
    };
    use x0x_core::MachineId;

    use super::*;
    use crate::{engine::stream::StreamMetrics, link::Side, sock::stream::MAX_PACKET};

    struct Bench {
        table: Arc<StreamTable>,
        metrics: Arc<StreamMetrics>,
        address: SocketAddr,
        came: mpsc::Receiver<Relayed>,
        peer: DuplexStream,
        task: JoinHandle<()>,
    }

    fn bench(room: usize) -> Bench {
        let metrics: Arc<StreamMetrics> = Arc::default();
        let table = Arc::new(StreamTable::new(metrics.clone()));
        let (id, remote) = (MachineId::new([1; 32]), SocketAddr::from(([192, 0, 2, 1], 9)));
        let open = table.insert(id, remote, Side::Acceptor).expect("room");
        let (address, (deliver, came)) = (open.address, mpsc::channel(4));
        let (peer, io) = duplex(room);
        let task = tokio::spawn(run(Box::new(io), open, deliver, table.clone()));
        Bench { table, metrics, address, came, peer, task }
    }

    impl Bench {
        fn link(&self) {
            assert!(self.table.confirm(self.address, MachineId::new([1; 32])));
        }

        async fn ends(self) -> Arc<StreamMetrics> {
            self.task.await.expect("no panic");
            assert!(self.table.over(self.address).is_none(), "it is forgotten");
            assert_eq!(self.metrics.closed.value(), 1);
            self.metrics
        }
    }

    #[tokio::test(start_paused = true)]
    async fn packets_go_both_ways() {
        let mut bench = bench(1 << 16);
        bench.table.send(bench.address, b"out");
        let mut read = [0; 5];
        bench.peer.read_exact(&mut read).await.expect("open");
        assert_eq!(&read, b"\0\x03out");
        bench.peer.write_all(b"\0\x02in\0\x04more").await.expect("open");
        for expected in [&b"in"[..], b"more"] {
            let (from, packet) = bench.came.recv().await.expect("open");
            assert_eq!((from, &packet[..]), (bench.address, expected));
        }
        drop(bench.peer);
        bench.task.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn who_sends_no_packets_is_let_go() {
        let mut bench = bench(1 << 16);
        bench.peer.write_all(&[0xff; 8]).await.expect("open");
        assert_eq!(bench.ends().await.closed_malformed.value(), 1);
        let unlinked = self::bench(1 << 16);
        assert_eq!(unlinked.ends().await.closed_unlinked.value(), 1);

        let mut slow = self::bench(1 << 16);
        slow.link();
        // A byte now and then is no packet.
        slow.peer.write_all(&[0, 9, 1]).await.expect("open");
        sleep(Duration::from_secs(50)).await;
        slow.peer.write_all(&[1]).await.expect("open");
        assert_eq!(slow.ends().await.closed_idle.value(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_is_let_go_and_costs_a_bounded_queue() {
        let bench = bench(1024);
        bench.link();
        for _ in 0..2000 {
            bench.table.send(bench.address, &[1; MAX_PACKET]);
        }
        let lost = bench.metrics.dropped_full.value();
        assert!(lost >= 2000 - 256, "{lost}");
        assert_eq!(bench.ends().await.closed_slow.value(), 1);
    }
}
