//! CPU time and memory of a process, from Linux's `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Time that the threads of a process have run so far, in nanoseconds precision.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            let ran = text.split_whitespace().next().context("schedstat is empty")?;
            nanoseconds += ran.parse::<u64>()?;
        }
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident memory in MiB: all of it, and the part that no file backs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    pub(crate) anonymous: f64,
}

/// The memory of a process now.
pub(crate) fn memory(pid: u32) -> Result<Memory> {
    parse_memory(&fs::read_to_string(format!("/proc/{pid}/status"))?)
}

fn parse_memory(status: &str) -> Result<Memory> {
    let mebibytes = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kibibytes = kibibytes.with_context(|| format!("no {name} in /proc status"))?;
        Ok(kibibytes.trim().parse::<f64>()? / 1024.0)
    };
    Ok(Memory { resident: mebibytes("VmRSS")?, anonymous: mebibytes("RssAnon")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        let memory = parse_memory("Name:\tx0xd\nVmRSS:\t   14336 kB\nRssAnon:\t    3072 kB\n");
        let memory = memory.unwrap();
        assert_eq!((memory.resident, memory.anonymous), (14.0, 3.0));
        assert!(parse_memory("").is_err());
    }
}
