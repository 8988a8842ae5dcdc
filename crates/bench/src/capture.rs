//! What goes over the wires of a network namespace, kept to be searched.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SocketFlags, SocketType, eth, sockopt};

use crate::place::enter;

/// The most that is kept.
const KEPT: usize = 256 << 20;
/// The largest packet: segments that the kernel has put together.
const PACKET: usize = 128 << 10;
/// What may wait to be read.
const WAITING: usize = 64 << 20;
/// How often the end is looked for while nothing comes.
const LOOK: Duration = Duration::from_millis(100);

/// Takes every packet of all interfaces of a namespace.
pub(crate) struct Capture {
    ended: Arc<AtomicBool>,
    task: JoinHandle<Result<Captured>>,
}

/// What was taken. A packet that crosses two interfaces is here twice.
#[derive(Debug, Default)]
pub(crate) struct Captured {
    packets: Vec<Box<[u8]>>,
    bytes: usize,
}

impl Capture {
    /// Begins in a namespace, by the path of its file. A socket stays in the namespace in which it was made, so only
    /// the thread that makes it goes there.
    ///
    /// # Errors
    ///
    /// Without the right to do this.
    pub(crate) fn begin(namespace: &Path) -> Result<Self> {
        let namespace = namespace.to_path_buf();
        let ended = Arc::<AtomicBool>::default();
        let (ready, begun) = std::sync::mpsc::sync_channel(1);
        let until = Arc::clone(&ended);
        let task = thread::spawn(move || {
            let socket = enter(&namespace).and_then(|()| open());
            let socket = match socket {
                Ok(socket) => socket,
                Err(error) => {
                    let _ = ready.send(Err(error));
                    return Ok(Captured::default());
                }
            };
            let _ = ready.send(Ok(()));
            take(&socket, &until)
        });
        begun.recv().context("the thread of the capture ended")??;
        Ok(Self { ended, task })
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When not everything could be taken.
    pub(crate) fn end(self) -> Result<Captured> {
        self.ended.store(true, Ordering::Release);
        self.task.join().map_err(|_| anyhow!("the thread of the capture ended"))?
    }
}

impl Captured {
    /// Bytes of all packets, with their headers.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many packets have these bytes in them.
    pub(crate) fn packets_with(&self, needle: &[u8]) -> usize {
        self.packets.iter().filter(|packet| contains(packet, needle)).count()
    }
}

/// Whether bytes have others in them.
pub(crate) fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle)
}

fn open() -> Result<OwnedFd> {
    let every = Some(eth::ALL);
    let (family, kind) = (AddressFamily::PACKET, SocketType::RAW);
    let socket = net::socket_with(family, kind, SocketFlags::CLOEXEC, every)
        .context("cannot open a packet socket")?;
    sockopt::set_socket_recv_buffer_size_force(&socket, WAITING)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(LOOK))?;
    Ok(socket)
}

fn take(socket: &OwnedFd, ended: &AtomicBool) -> Result<Captured> {
    let (mut captured, mut packet) = (Captured::default(), vec![0; PACKET]);
    loop {
        match net::recv(socket, &mut packet[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                captured.bytes += length;
                if captured.bytes > KEPT {
                    bail!("more than {} MiB went over the wires", KEPT >> 20);
                }
                captured.packets.push(Box::from(&packet[..length]));
            }
            // Whatever came before the end was asked for has been read by then.
            Err(Errno::AGAIN) if ended.load(Ordering::Acquire) => return Ok(captured),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot read packets"),
        }
    }
}
