//! Signals that end the process.

use std::io;

/// Waits for SIGINT (Ctrl-C), SIGTERM or SIGHUP, which a terminal sends when it is closed.
///
/// # Errors
/// When the handlers cannot be installed.
pub async fn terminated() -> io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = match hang_up_is_heeded() {
            true => Some(signal(SignalKind::hangup())?),
            false => None,
        };
        let hung_up = async {
            match &mut hang_up {
                Some(hang_up) => drop(hang_up.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
            () = hung_up => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Whether a hang-up ends the process; not under `nohup`, and where that cannot be told it is left as it is.
#[cfg(unix)]
fn hang_up_is_heeded() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    ignored.is_some_and(|mask| mask & 1 == 0)
}
