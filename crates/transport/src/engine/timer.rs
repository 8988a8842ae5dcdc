//! Timers of connections that let a node at rest sleep: what is seconds away is due together with
//! what else is, and an old deadline that has moved far away wakes nobody any more.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use quinn::{AsyncTimer, AsyncUdpSocket, Runtime, TokioRuntime};
use tokio::time::{Sleep, sleep_until};

/// A deadline at least this far away is for keeping alive or for giving up, never for recovery from
/// loss (RFC 9002), so it may be somewhat late.
const FAR: Duration = Duration::from_secs(2);
/// Far deadlines are put off to the next multiple of this.
const GRID: Duration = Duration::from_millis(512);

/// Tokio's runtime with such timers. All connections of one engine share its grid.
#[derive(Debug)]
pub(super) struct CalmRuntime {
    origin: Instant,
}

impl CalmRuntime {
    pub(super) fn new() -> Self {
        Self { origin: TokioRuntime.now() }
    }
}

impl Runtime for CalmRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        let due = due(self.origin, self.now(), deadline);
        Box::pin(CalmTimer { origin: self.origin, sleep: Box::pin(sleep_until(due.into())) })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(future);
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

/// When a deadline is acted upon: at once when it is near, else on the grid.
fn due(origin: Instant, now: Instant, deadline: Instant) -> Instant {
    if deadline.saturating_duration_since(now) < FAR {
        return deadline;
    }
    let step = GRID.as_nanos();
    let beyond = deadline.saturating_duration_since(origin).as_nanos() % step;
    let late = if beyond == 0 { 0 } else { step - beyond };
    deadline + Duration::from_nanos(u64::try_from(late).unwrap_or(0))
}

#[derive(Debug)]
struct CalmTimer {
    origin: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl AsyncTimer for CalmTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        let due = due(self.origin, TokioRuntime.now(), deadline);
        let armed = self.sleep.deadline().into_std();
        if due.saturating_duration_since(armed) >= FAR {
            // A deadline that is only moved still wakes the process at the old one.
            self.sleep.set(sleep_until(due.into()));
        } else {
            self.sleep.as_mut().reset(due.into());
        }
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<()> {
        Future::poll(self.sleep.as_mut(), context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn far_deadlines_meet_on_the_grid_and_near_ones_are_kept() {
        let origin = TokioRuntime.now();
        let now = origin + Duration::from_millis(100);
        let at = |millis| due(origin, now, origin + Duration::from_millis(millis)) - origin;
        for near in [0, 90, 100, 700, 2_099] {
            assert_eq!(at(near), Duration::from_millis(near));
        }
        for (far, met) in [(2_100, 2_560), (2_560, 2_560), (2_561, 3_072), (7_100, 7_168)] {
            assert_eq!(at(far), Duration::from_millis(met), "{far}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_moves_there_and_back_fires_when_it_should() {
        let runtime = CalmRuntime::new();
        let start = runtime.now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut timer = runtime.new_timer(after(300));
        for (deadline, fires) in [(7_000, 7_168), (9_000, 9_000), (9_300, 9_300), (13_000, 13_312)]
        {
            timer.as_mut().reset(after(20_000));
            timer.as_mut().reset(after(deadline));
            poll_fn(|context| timer.as_mut().poll(context)).await;
            assert_eq!((runtime.now() - start).as_millis(), fires);
        }
    }
}
