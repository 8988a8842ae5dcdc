//! How handles ask the task behind them, and how it takes what is asked.

use tokio::sync::{mpsc, oneshot};

/// Hands a command with room for its answer to a task, waits for a place in its queue, and then for the
/// answer; `None` once the task has ended.
pub async fn ask<C, T>(
    commands: &mpsc::Sender<C>,
    command: impl FnOnce(oneshot::Sender<T>) -> C,
) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    commands.send(command(reply)).await.ok()?;
    answer.await.ok()
}

/// Adds what waits in a queue already, until `taken` has `most`: after a wait at several queues, so that
/// one that is full holds up no other.
pub fn fill<T>(queue: &mut mpsc::Receiver<T>, taken: &mut Vec<T>, most: usize) {
    while taken.len() < most
        && let Ok(next) = queue.try_recv()
    {
        taken.push(next);
    }
}
