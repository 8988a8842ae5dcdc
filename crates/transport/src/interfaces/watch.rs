//! Keeps the latest network for whoever wants to know.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{InterfaceSource, Network};

/// From the first sign of a change to the look at it: a new address comes in several steps, and so does the
/// loss of one.
pub const SETTLE: Duration = Duration::from_millis(250);

/// The latest network. Each change is seen once.
pub type NetworkWatch = watch::Receiver<Arc<Network>>;

/// Looks at the interfaces now and after each change, until nobody holds the receiver any more.
///
/// # Panics
/// Outside a tokio runtime.
#[must_use]
pub fn follow(source: impl InterfaceSource) -> NetworkWatch {
    let (sender, receiver) = watch::channel(Arc::new(source.scan().unwrap_or_default()));
    tokio::spawn(async move {
        let changes = async {
            loop {
                source.changed().await;
                tokio::time::sleep(SETTLE).await;
                let Some(network) = source.scan() else { continue };
                sender.send_if_modified(|known| {
                    let changed = **known != network;
                    if changed {
                        *known = Arc::new(network);
                    }
                    changed
                });
            }
        };
        tokio::select! {
            () = sender.closed() => {}
            () = changes => {}
        }
    });
    receiver
}
