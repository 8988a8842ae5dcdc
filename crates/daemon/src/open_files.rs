//! How many files the process may have open: each connection is one, each peer and each use of the
//! database takes some.

/// Files that connections of the API leave to everything else.
pub(crate) const RESERVED: u64 = 512;

/// As many as the API needs at most, and what everything else does.
#[cfg(unix)]
const WANTED: u64 = 8192;

/// Raises the limit of this process as far as it may and as there is use for it: systems start
/// programs with few for the sake of old ones.
pub fn raise() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

        let limit = getrlimit(Resource::Nofile);
        let possible = limit.maximum.map_or(WANTED, |maximum| maximum.min(WANTED));
        if limit.current.is_none_or(|current| current >= possible) {
            return;
        }
        let raised = Rlimit { current: Some(possible), maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

/// How many there may be; `None` when there is no limit, or none that is known.
#[cfg(unix)]
pub(crate) fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// How many there may be: nothing is known of a limit.
#[cfg(not(unix))]
pub(crate) const fn limit() -> Option<u64> {
    None
}
