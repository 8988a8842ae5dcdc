//! Shape of an overlay.

use std::collections::{BTreeMap, BTreeSet};

use crate::NodeId;

/// Directed links between nodes, as each node sees its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    links: BTreeMap<NodeId, BTreeSet<NodeId>>,
}

/// Spread of the number of neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Degrees {
    /// Fewest neighbours.
    pub min: usize,
    /// Most neighbours.
    pub max: usize,
    /// Average number of neighbours.
    pub mean: f64,
}

impl Graph {
    /// Adds a node and the neighbours that it sees.
    pub fn insert(&mut self, node: NodeId, neighbours: impl IntoIterator<Item = NodeId>) {
        self.links.entry(node).or_default().extend(neighbours);
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.links.len()
    }

    /// Whether there is no node.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Sizes of the connected components over links that both ends see, largest first.
    #[must_use]
    pub fn components(&self) -> Vec<usize> {
        let mut unseen: BTreeSet<NodeId> = self.links.keys().copied().collect();
        let mut sizes = Vec::new();
        while let Some(start) = unseen.pop_first() {
            let (mut stack, mut size) = (vec![start], 0);
            while let Some(node) = stack.pop() {
                size += 1;
                for next in self.links.get(&node).into_iter().flatten() {
                    if self.sees(*next, node) && unseen.remove(next) {
                        stack.push(*next);
                    }
                }
            }
            sizes.push(size);
        }
        sizes.sort_unstable_by(|a, b| b.cmp(a));
        sizes
    }

    /// Whether every node reaches every other over links that both ends see.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.components().len() <= 1
    }

    /// Links that only one end sees, as (seer, seen).
    #[must_use]
    pub fn one_sided(&self) -> Vec<(NodeId, NodeId)> {
        let all = self.links.iter().flat_map(|(a, seen)| seen.iter().map(move |b| (*a, *b)));
        all.filter(|(a, b)| !self.sees(*b, *a)).collect()
    }

    /// Spread of the number of neighbours.
    #[must_use]
    pub fn degrees(&self) -> Degrees {
        let counts: Vec<usize> = self.links.values().map(BTreeSet::len).collect();
        let total: usize = counts.iter().sum();
        Degrees {
            min: counts.iter().copied().min().unwrap_or(0),
            max: counts.iter().copied().max().unwrap_or(0),
            mean: total as f64 / counts.len().max(1) as f64,
        }
    }

    fn sees(&self, a: NodeId, b: NodeId) -> bool {
        self.links.get(&a).is_some_and(|seen| seen.contains(&b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sided_links_do_not_connect() {
        let mut graph = Graph::default();
        graph.insert(0, [1, 2]);
        graph.insert(1, [0]);
        graph.insert(2, []);
        assert_eq!(graph.components(), [2, 1]);
        assert_eq!(graph.one_sided(), [(0, 2)]);
        graph.insert(2, [0]);
        assert!(graph.is_connected() && graph.one_sided().is_empty());
        let degrees = graph.degrees();
        assert_eq!((degrees.min, degrees.max), (1, 2));
        assert!((degrees.mean - 4.0 / 3.0).abs() < 1e-9);
    }
}
