//! What becomes of a session's publishes, told in their order.

use std::collections::VecDeque;

use futures_util::{FutureExt, future::BoxFuture};
use x0x_agent::{Accepted, AgentPublishError};
use x0x_api::{
    ErrorCode,
    ws::{FrameId, ServerFrame},
};

use crate::http::error::ApiError;

/// Most publishes whose fate is not known yet. Beyond it the session's next frames are not read.
const MAX_PENDING: usize = 4096;

/// Why a publish was not taken.
pub(super) type Refusal = (ErrorCode, String);

struct Pending {
    /// Its ordinal in the session, from 1.
    index: u64,
    id: Option<FrameId>,
    /// Publishes taken so far, with it.
    count: u64,
    /// Its client asked to be told that it is kept, too.
    ack: bool,
    fate: BoxFuture<'static, Result<(), Refusal>>,
}

/// Publishes that their client wants to know about, or has to.
#[derive(Default)]
pub(super) struct Publishes {
    /// Publishes seen.
    index: u64,
    /// Publishes taken.
    count: u64,
    pending: VecDeque<Pending>,
    /// Publishes refused since this was last asked.
    refused: u64,
}

impl Publishes {
    /// One more publish was seen; what follows is about it.
    pub(super) fn seen(&mut self) {
        self.index += 1;
    }

    /// It was taken; tell if it is not kept in the end, and when it is if that was asked.
    pub(super) fn accepted(&mut self, id: Option<FrameId>, accepted: Accepted, ack: bool) {
        self.count += 1;
        let fate = async move {
            let published = accepted.published().await;
            published.map(drop).map_err(|error| refusal(AgentPublishError::from(error)))
        };
        self.push(id, fate.boxed(), ack);
    }

    /// It was not taken.
    pub(super) fn refused(&mut self, id: Option<FrameId>, refusal: Refusal) {
        self.push(id, std::future::ready(Err(refusal)).boxed(), true);
    }

    fn push(
        &mut self,
        id: Option<FrameId>,
        fate: BoxFuture<'static, Result<(), Refusal>>,
        ack: bool,
    ) {
        self.pending.push_back(Pending { index: self.index, id, count: self.count, ack, fate });
    }

    /// Whether no more may be begun before some of them are settled.
    pub(super) fn is_full(&self) -> bool {
        self.pending.len() >= MAX_PENDING
    }

    /// Waits until the oldest is settled; what to tell of it and those behind it. Waits for ever while
    /// there is none. Cancel safe.
    pub(super) async fn settled(&mut self) -> Vec<ServerFrame> {
        let Some(front) = self.pending.front_mut() else { return std::future::pending().await };
        let fate = (&mut front.fate).await;
        self.tell(fate)
    }

    /// What is known without waiting.
    pub(super) fn ready(&mut self) -> Vec<ServerFrame> {
        let fate = self.pending.front_mut().and_then(|front| (&mut front.fate).now_or_never());
        fate.map_or_else(Vec::new, |fate| self.tell(fate))
    }

    /// What to tell of the oldest, whose fate this is, and of all behind it that are settled, too. Of
    /// those that were kept, the last stands for all before it.
    fn tell(&mut self, fate: Result<(), Refusal>) -> Vec<ServerFrame> {
        let mut frames = Vec::new();
        let mut kept = None;
        let mut next = Some(fate);
        while let Some(fate) = next
            && let Some(Pending { index, id, count, ack, .. }) = self.pending.pop_front()
        {
            match fate {
                Ok(()) if ack => kept = Some(ServerFrame::Published { id, count }),
                Ok(()) => {}
                Err((code, message)) => {
                    frames.extend(kept.take());
                    let index = id.is_none().then_some(index);
                    frames.push(ServerFrame::Error {
                        message,
                        code,
                        id,
                        index,
                        request_id: None,
                        topic: None,
                    });
                    self.refused += 1;
                }
            }
            next = self.pending.front_mut().and_then(|front| (&mut front.fate).now_or_never());
        }
        frames.extend(kept);
        frames
    }

    /// How many were refused since this was last asked.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }
}

/// A publish that failed, for people and programs.
pub(super) fn refusal(error: AgentPublishError) -> Refusal {
    let error = ApiError::from(error);
    (error.code(), format!("publish failed: {}", error.0))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A publish of an order that is told when the sender says so.
    fn pending(publishes: &mut Publishes, id: u64) -> oneshot::Sender<()> {
        taken(publishes, id, true)
    }

    fn taken(publishes: &mut Publishes, id: u64, ack: bool) -> oneshot::Sender<()> {
        let (done, fate) = oneshot::channel();
        publishes.seen();
        publishes.count += 1;
        let fate = async move { fate.await.map_err(|_| (ErrorCode::NotStored, "lost".to_owned())) };
        publishes.push(Some(FrameId::Number(id)), fate.boxed(), ack);
        done
    }

    fn published(id: u64, count: u64) -> ServerFrame {
        ServerFrame::Published { id: Some(FrameId::Number(id)), count }
    }

    #[tokio::test]
    async fn fates_are_told_in_order_and_together() {
        let mut publishes = Publishes::default();
        assert!(publishes.ready().is_empty());
        let first = pending(&mut publishes, 1);
        taken(&mut publishes, 2, false).send(()).expect("waited for");
        let second = pending(&mut publishes, 3);
        publishes.seen();
        publishes.refused(None, (ErrorCode::Busy, "busy".to_owned()));
        let third = pending(&mut publishes, 5);
        assert!(publishes.settled().now_or_never().is_none());
        second.send(()).expect("waited for");
        assert!(publishes.ready().is_empty(), "the first comes first");
        first.send(()).expect("waited for");
        let frames = publishes.settled().await;
        let [kept, ServerFrame::Error { code, id: None, index: Some(4), .. }] = &frames[..] else {
            panic!("unexpected {frames:?}");
        };
        assert_eq!((kept, *code), (&published(3, 3), ErrorCode::Busy));
        assert_eq!((publishes.take_refused(), publishes.take_refused()), (1, 0));
        drop(third);
        let lost = publishes.settled().await;
        assert!(matches!(&lost[..], [ServerFrame::Error { code: ErrorCode::NotStored, .. }]));
        assert!(publishes.settled().now_or_never().is_none());
    }

    #[tokio::test]
    async fn what_nobody_asked_about_is_told_only_when_it_is_lost() {
        let mut publishes = Publishes::default();
        taken(&mut publishes, 1, false).send(()).expect("waited for");
        assert!(publishes.settled().await.is_empty());
        drop(taken(&mut publishes, 2, false));
        let lost = publishes.settled().await;
        let [ServerFrame::Error { code: ErrorCode::NotStored, id, .. }] = &lost[..] else {
            panic!("unexpected {lost:?}");
        };
        assert_eq!((id, publishes.take_refused()), (&Some(FrameId::Number(2)), 1));
    }

    #[test]
    fn what_is_pending_is_bounded() {
        let mut publishes = Publishes::default();
        let done: Vec<_> = (0..MAX_PENDING as u64).map(|n| pending(&mut publishes, n)).collect();
        assert!(publishes.is_full());
        done.into_iter().for_each(|done| done.send(()).expect("waited for"));
        let last = MAX_PENDING as u64;
        assert_eq!(publishes.ready(), [published(last - 1, last)]);
        assert!(!publishes.is_full());
    }
}
