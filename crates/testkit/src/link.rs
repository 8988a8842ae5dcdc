//! What lies between two nodes.

use std::{collections::BTreeSet, ops::Range, time::Duration};

use x0x_core::SeededRng;

use crate::NodeId;

/// How messages and sessions fare. The default is a reliable, ordered stream over 10–50 ms paths,
/// which is what a session's stream gives; the fault probabilities stress a machine beyond that.
#[derive(Debug, Clone)]
pub struct LinkModel {
    /// One-way delay, drawn for each message.
    pub latency: Range<Duration>,
    /// Probability that a message vanishes.
    pub loss: f64,
    /// Probability that a message overtakes or is overtaken by others of its session.
    pub reorder: f64,
    /// Probability that a message arrives twice.
    pub duplicate: f64,
    /// How long a dial without an answer takes to fail.
    pub dial_timeout: Duration,
    /// When a node notices that a crashed or unreachable peer is gone.
    pub detection: Range<Duration>,
}

impl Default for LinkModel {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10)..Duration::from_millis(50),
            loss: 0.0,
            reorder: 0.0,
            duplicate: 0.0,
            dial_timeout: Duration::from_secs(3),
            detection: Duration::from_secs(5)..Duration::from_secs(15),
        }
    }
}

/// Delays after which the copies of one message arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives once, after those sent before it.
    Ordered(Duration),
    /// It arrives at these times, whatever was sent before it.
    Unordered(Vec<Duration>),
}

/// A link model with the partitions in force.
#[derive(Debug, Clone)]
pub struct Network {
    model: LinkModel,
    /// Each set is cut off from everybody outside it.
    islands: Vec<BTreeSet<NodeId>>,
}

impl Network {
    /// A network without partitions.
    #[must_use]
    pub const fn new(model: LinkModel) -> Self {
        Self { model, islands: Vec::new() }
    }

    /// The model of every link.
    #[must_use]
    pub const fn model(&self) -> &LinkModel {
        &self.model
    }

    /// Changes the model for what is sent from now on.
    pub const fn model_mut(&mut self) -> &mut LinkModel {
        &mut self.model
    }

    /// Cuts these nodes off from all others.
    pub fn isolate(&mut self, nodes: impl IntoIterator<Item = NodeId>) {
        self.islands.push(nodes.into_iter().collect());
    }

    /// Removes every partition.
    pub fn heal(&mut self) {
        self.islands.clear();
    }

    /// Whether a partition lies between the two.
    #[must_use]
    pub fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.islands.iter().any(|island| island.contains(&a) != island.contains(&b))
    }

    /// Draws a delay.
    pub fn latency(&self, rng: &mut SeededRng) -> Duration {
        draw(&self.model.latency, rng)
    }

    /// Draws the time until a silent peer is noticed.
    pub fn detection(&self, rng: &mut SeededRng) -> Duration {
        draw(&self.model.detection, rng)
    }

    /// Decides what becomes of one message.
    pub fn fate(&self, rng: &mut SeededRng) -> Fate {
        let first = self.latency(rng);
        if rng.chance(self.model.loss) {
            return Fate::Lost;
        }
        let twice = rng.chance(self.model.duplicate);
        if !twice && !rng.chance(self.model.reorder) {
            return Fate::Ordered(first);
        }
        // Up to three more delays, so that it falls behind later messages.
        let late = first + self.latency(rng) * 3;
        Fate::Unordered(if twice { vec![first, late] } else { vec![late] })
    }
}

fn draw(range: &Range<Duration>, rng: &mut SeededRng) -> Duration {
    let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    Duration::from_micros(rng.range(micros(range.start), micros(range.end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_follow_the_probabilities() {
        let mut rng = SeededRng::from_number(3);
        let fates = |model: LinkModel, rng: &mut SeededRng| {
            let network = Network::new(model);
            (0..1000).map(|_| network.fate(rng)).collect::<Vec<_>>()
        };
        assert!(
            fates(LinkModel::default(), &mut rng).iter().all(|f| matches!(f, Fate::Ordered(_)))
        );
        let lossy = LinkModel { loss: 0.2, duplicate: 0.1, ..LinkModel::default() };
        let drawn = fates(lossy, &mut rng);
        let lost = drawn.iter().filter(|f| **f == Fate::Lost).count();
        let twice =
            drawn.iter().filter(|f| matches!(f, Fate::Unordered(t) if t.len() == 2)).count();
        assert!((120..280).contains(&lost), "{lost} of 1000 lost");
        assert!((40..130).contains(&twice), "{twice} of 1000 doubled");
        let range = LinkModel::default().latency;
        assert!(drawn.iter().all(|f| !matches!(f, Fate::Ordered(d) if !range.contains(d))));
    }

    #[test]
    fn partitions_cut_both_ways_until_healed() {
        let mut network = Network::new(LinkModel::default());
        network.isolate([0, 1]);
        assert!(network.is_cut(0, 2) && network.is_cut(2, 1));
        assert!(!network.is_cut(0, 1) && !network.is_cut(2, 3));
        network.heal();
        assert!(!network.is_cut(0, 2));
    }
}
