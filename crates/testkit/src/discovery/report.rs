//! What a run measured.

use std::{fmt, time::Duration};

/// How soon ends were seen, and how often they were seen wrongly, by one kind of viewer.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Sight {
    /// From a kill until a viewer that saw the agent online saw it offline.
    pub detected: Vec<Duration>,
    /// Viewers that had not seen it when the agent came back.
    pub undetected: u64,
    /// Times that an agent which was there all the while was seen offline.
    pub false_offline: u64,
    /// Times that it was seen as overdue.
    pub false_away: u64,
    /// Time that agents were seen online, of all viewers together.
    pub online: Duration,
}

impl Sight {
    /// False alarms in an hour of seeing one agent.
    #[must_use]
    pub fn false_rate(&self) -> f64 {
        let hours = self.online.as_secs_f64() / 3600.0;
        if hours > 0.0 { self.false_offline as f64 / hours } else { 0.0 }
    }
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Report {
    /// Nodes that ran at a time, at the end.
    pub nodes: usize,
    /// Share of them that lied or was silent.
    pub bad: f64,
    /// The seed.
    pub seed: u64,
    /// Nodes killed, and nodes that left.
    pub killed: u64,
    /// See [`killed`](Self::killed).
    pub left: u64,
    /// How long each search took that found its agent.
    pub found: Vec<Duration>,
    /// Searches that did not find an agent that was there all the while.
    pub missed: u64,
    /// Dials that searches and filings took.
    pub dials: u64,
    /// By viewers with a session.
    pub linked: Sight,
    /// By viewers that others told.
    pub told: Sight,
    /// Bytes of presence that a node sent in a second, in the mean.
    pub presence_bytes: f64,
}

/// The value that this share of the sorted values does not exceed.
pub(super) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let place = (values.len() as f64 * share) as usize;
    values.get(place.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

impl Report {
    /// The share of searches that found their agent.
    #[must_use]
    pub fn find_success(&self) -> f64 {
        let all = self.found.len() as u64 + self.missed;
        if all == 0 { 0.0 } else { self.found.len() as f64 / all as f64 }
    }

    /// The heads of the columns of [`Display`](fmt::Display).
    pub const COLUMNS: &'static str = "\
| nodes | bad | seed | killed, left | finds | found | p50 / p99 ms | dials per find and filing | \
linked: ends seen, p50 / p99 / max s, unseen | linked: false offline, per hour | \
told: ends seen, p50 / p99 / max s, unseen | told: false offline, per hour | presence B/s |\n\
|---|---|---|---|---|---|---|---|---|---|---|---|---|";
}

fn sight(f: &mut fmt::Formatter<'_>, sight: &Sight) -> fmt::Result {
    let mut times = sight.detected.clone();
    let at = |times: &mut [Duration], share| quantile(times, share).as_secs_f64();
    let count = times.len();
    let (half, late, last) = (at(&mut times, 0.5), at(&mut times, 0.99), at(&mut times, 1.0));
    write!(f, " {count}, {half:.1} / {late:.1} / {last:.1}, {} |", sight.undetected)?;
    write!(f, " {}, {:.4} |", sight.false_offline, sight.false_rate())
}

/// A row of a table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut times = self.found.clone();
        let (half, late) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
        let finds = self.found.len() as u64 + self.missed;
        write!(
            f,
            "| {} | {:.0} % | {} | {}, {} | {finds} | {:.3} % | {} / {} | {:.1} |",
            self.nodes,
            self.bad * 100.0,
            self.seed,
            self.killed,
            self.left,
            self.find_success() * 100.0,
            half.as_millis(),
            late.as_millis(),
            self.dials as f64 / (finds + self.killed + self.left).max(1) as f64,
        )?;
        sight(f, &self.linked)?;
        sight(f, &self.told)?;
        write!(f, " {:.0} |", self.presence_bytes)
    }
}
