//! Running a property over seeds, with a way back to the one that failed.

use std::env;

/// The variable that replays one seed.
const SEED_VARIABLE: &str = "X0X_SEED";
/// The variable that says how many seeds to run in place of a test's own count.
const COUNT_VARIABLE: &str = "X0X_SEEDS";

/// Runs `property` once for each seed below `count` (or below `X0X_SEEDS`), or only for the seed in
/// `X0X_SEED`. When it panics, prints the seed and the command that replays it.
///
/// # Panics
/// When one of the variables is not a number, or when the property does.
pub fn for_seeds(count: u64, property: impl Fn(u64)) {
    let variable = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds = match variable(SEED_VARIABLE) {
        Some(seed) => seed..seed + 1,
        None => 0..variable(COUNT_VARIABLE).unwrap_or(count),
    };
    for seed in seeds {
        let guard = Replay { seed };
        property(seed);
        drop(guard);
    }
}

struct Replay {
    seed: u64,
}

impl Drop for Replay {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let package = env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "<package>".to_owned());
        let thread = std::thread::current();
        let test = thread.name().filter(|name| *name != "main").unwrap_or("<test>");
        eprintln!("failed with seed {}; replay it with:", self.seed);
        eprintln!("    {SEED_VARIABLE}={} cargo nextest run -p {package} {test}", self.seed);
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, panic};

    use super::*;

    #[test]
    fn every_seed_runs_until_one_fails() {
        let seen = RefCell::new(Vec::new());
        for_seeds(3, |seed| seen.borrow_mut().push(seed));
        if env::var(SEED_VARIABLE).is_err() && env::var(COUNT_VARIABLE).is_err() {
            assert_eq!(*seen.borrow(), [0, 1, 2]);
        }
        let failed = panic::catch_unwind(|| for_seeds(1, |_| panic!("as the test wants")));
        assert!(failed.is_err());
    }
}
