//! The lab: real daemons through trouble, with every delivery counted.
//!
//! A scenario passes when each subscriber has every message once, in its author's order.

mod files;
mod groups;
mod letters;
mod mail;
mod namespaces;
mod nat;
mod nine;
mod objects;
mod partition;
mod presence;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Subcommand;
use tokio::time::Instant;

pub(crate) use self::nat::Meeting;
use crate::report::{Report, Target};
use crate::socket::Subscriber;

/// Bytes of every message.
const SIZE: usize = 256;

/// How long the last deliveries may take before they count as lost.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the daemons go through.
#[derive(Subcommand, Debug, Clone)]
pub(crate) enum Scenario {
    /// Nine daemons on loopback: one is stopped for 20 s, one killed and restarted, one joins late
    Nine {
        /// Messages published over 25 s
        #[arg(long, default_value_t = 5000)]
        messages: u64,
    },
    /// Two daemons that are killed again and again while one sends the other direct messages
    Mail {
        /// How often
        #[arg(long, default_value_t = 200)]
        kills: u32,
        /// Decides when, and which of them
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// A large file, then ten at once, while both ends are killed and the link between them is cut.
    /// Needs root
    Files {
        /// Size in MiB
        #[arg(long, default_value_t = 1024)]
        mebibytes: u64,
    },
    /// Five daemons that write to shared stores and a task list, while one after the other is killed
    Objects {
        /// Seconds of that
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Decides when, and which of them
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Eight daemons that write to shared stores and a task list, four on each side of a link that is cut twice.
    /// Needs root
    ObjectsSplit {
        /// Writes of all together
        #[arg(long, default_value_t = 10_000)]
        operations: u64,
        /// Seconds of writing, a third of them without the link
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Decides what is written
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Eight members of an encrypted group, one after the other of which is killed while it writes and commits
    Groups {
        /// How often
        #[arg(long, default_value_t = 200)]
        kills: u32,
        /// Decides when, and which of them
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Eight members of an encrypted group, four on each side of a link that is cut, while both sides add and remove
    /// somebody. Needs root
    GroupsSplit {
        /// Seconds without the link
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// A hidden group of four, with two neighbours that are not in it: every packet is taken and searched for what
    /// it says. Needs root
    GroupsHidden,
    /// A recipient that is away while its sender ends and a holder of its letters is killed
    Letters {
        /// Minutes for which it is away
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Ten daemons in network namespaces, five on each side of a link that is cut and mended.
    /// Needs root
    Partition {
        /// Seconds without the link
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Pairs of daemons behind address translators of all kinds, that meet by the id of an agent.
    /// Needs root and nft
    Nat {
        /// These kinds only
        #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,...")]
        only: Vec<nat::Kind>,
        /// How often each pair meets
        #[arg(long, default_value_t = 1)]
        runs: u32,
        /// Each pair of different kinds in one direction only
        #[arg(long)]
        one_way: bool,
    },
    /// A file between two daemons while the path of their session is upgraded, blocked, moved, and loses its relay.
    /// Needs root and nft
    Paths {
        /// Size in MiB
        #[arg(long, default_value_t = 64)]
        mebibytes: u64,
    },
    /// Two daemons that lose 0, 1, 5, 10 and 30 % of all packets each way, and two whose packets take long.
    /// Needs root and nft
    Loss,
    /// Five contacts on a machine that is fully busy, one of which stands still for 5 s again and
    /// again, and one of which is killed in the end
    Presence {
        /// Minutes of that
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
}

/// Runs a scenario; false when something was lost, doubled, out of order or late.
pub(crate) async fn run(daemon: &Path, scenario: &Scenario, report: &mut Report) -> Result<bool> {
    match scenario {
        Scenario::Nine { messages } => nine::run(daemon, *messages, report).await?,
        Scenario::Mail { kills, seed } => mail::run(daemon, *kills, *seed, report).await?,
        Scenario::Files { mebibytes } => files::run(daemon, *mebibytes, report).await?,
        Scenario::Objects { seconds, seed } => {
            objects::kills::run(daemon, *seconds, *seed, report).await?;
        }
        Scenario::ObjectsSplit { operations, seconds, seed } => {
            objects::split::run(daemon, (*operations, *seconds, *seed), report).await?;
        }
        Scenario::Groups { kills, seed } => groups::kills(daemon, *kills, *seed, report).await?,
        Scenario::GroupsSplit { seconds } => {
            groups::split(daemon, Duration::from_secs(*seconds), report).await?;
        }
        Scenario::GroupsHidden => groups::hidden::run(daemon, report).await?,
        Scenario::Letters { minutes } => letters::run(daemon, *minutes, report).await?,
        Scenario::Partition { seconds } => {
            partition::run(daemon, Duration::from_secs(*seconds), report).await?;
        }
        Scenario::Nat { only, runs, one_way } => {
            let pairs = nat::Pairs { only, runs: *runs, one_way: *one_way };
            nat::run(daemon, pairs, report).await?;
        }
        Scenario::Paths { mebibytes } => nat::paths::run(daemon, *mebibytes, report).await?,
        Scenario::Loss => nat::loss::run(daemon, report).await?,
        Scenario::Presence { minutes } => presence::run(daemon, *minutes, report).await?,
    }
    Ok(report.is_met())
}

/// A subscriber and what it is to have seen in the end.
struct Expected {
    subscriber: Subscriber,
    messages: u64,
}

/// Waits for all subscribers, and judges what they saw. `since` is when the last trouble ended.
async fn judge(
    run: &str,
    expected: &mut [Expected],
    since: Instant,
    heal: Option<Duration>,
    report: &mut Report,
) {
    let deadline = since + PATIENCE;
    let mut last = since;
    for Expected { subscriber, messages } in expected.iter_mut() {
        let left = deadline.saturating_duration_since(Instant::now());
        subscriber.received(*messages, left).await;
        last = last.max(subscriber.seen().last_arrival().unwrap_or(last));
    }
    let (mut missing, mut duplicates, mut disordered, mut lagged) = (0, 0, 0, 0);
    for Expected { subscriber, messages } in expected.iter() {
        let seen = subscriber.seen();
        missing += messages.saturating_sub(seen.arrivals.len() as u64);
        duplicates += seen.duplicates;
        disordered += seen.disordered;
        lagged += seen.lagged;
    }
    report.note(run, "subscribers", expected.len() as f64, "");
    for (name, count) in [
        ("messages missing", missing),
        ("duplicates", duplicates),
        ("out of author order", disordered),
        ("reported as missed", lagged),
    ] {
        report.figure(run, name, count as f64, "msg", Target::AtMost(0.0));
    }
    let elapsed = (last - since).as_secs_f64();
    match heal {
        Some(limit) => {
            let limit = Target::AtMost(limit.as_secs_f64());
            report.figure(run, "mended to complete", elapsed, "s", limit);
        }
        None => report.note(run, "last publish to complete", elapsed, "s"),
    }
}
