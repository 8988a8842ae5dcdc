//! Percentiles.

/// Counts of durations by millisecond, up to a minute.
#[derive(Debug, Clone)]
pub(super) struct Times {
    counts: Vec<u64>,
    total: u64,
}

const BUCKETS: usize = 60_001;

impl Default for Times {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0 }
    }
}

impl Times {
    pub(super) fn add(&mut self, micros: u64) {
        let bucket = usize::try_from(micros / 1000).unwrap_or(usize::MAX).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.total += 1;
    }

    /// In milliseconds; zero of nothing.
    pub(super) fn percentile(&self, share: f64) -> f64 {
        let rank = (self.total as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return bucket as f64;
            }
        }
        0.0
    }
}

/// A percentile of a few values; zero of none.
pub(super) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// The average of a few values; zero of none.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_count_from_the_smallest() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values, 1.0), 100.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
        let mut times = Times::default();
        (1..=100).for_each(|ms| times.add(ms * 1000));
        assert_eq!(times.percentile(0.99), 99.0);
    }
}
