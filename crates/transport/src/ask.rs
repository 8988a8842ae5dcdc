//! How handles ask the task behind them.

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
