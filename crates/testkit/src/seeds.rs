//! Running a property over seeds, with a way back to the one that failed.

use std::env;

/// The variable that replays one seed.
const SEED_VARIABLE: &str = "X0X_SEED";

/// Runs `property` once for each seed below `count`, or only for the seed in `X0X_SEED`. When it
/// panics, prints the seed and the command that replays it.
///
/// # Panics
/// When `X0X_SEED` is not a number, or when the property does.
pub fn for_seeds(count: u64, property: impl Fn(u64)) {
    let seeds = match env::var(SEED_VARIABLE) {
        Ok(text) => {
            let seed: u64 = text.parse().expect("X0X_SEED is a number");
            seed..seed + 1
        }
        Err(_) => 0..count,
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
        if env::var(SEED_VARIABLE).is_err() {
            assert_eq!(*seen.borrow(), [0, 1, 2]);
        }
        let failed = panic::catch_unwind(|| for_seeds(1, |_| panic!("as the test wants")));
        assert!(failed.is_err());
    }
}
