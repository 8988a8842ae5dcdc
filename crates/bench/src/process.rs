//! CPU time and memory of a process, from Linux's `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// Clock ticks in a second, as `/proc` counts them on every Linux platform that we build for.
const TICKS: u64 = 100;

/// Time that a process has run so far. Two readings may be off by a tick, backwards too.
///
/// The threads' own counters are exact but forget threads that ended; the process' counter is
/// complete but counts ticks.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the listing and the reading.
        if let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) {
            let ran = text.split_whitespace().next().context("schedstat is empty")?;
            nanoseconds += ran.parse::<u64>()?;
        }
    }
    let ticks = parse_ticks(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
    Ok(Duration::from_nanos(nanoseconds).max(Duration::from_millis(ticks * 1000 / TICKS)))
}

/// User and system time, fields 14 and 15 of proc_pid_stat(5), counted behind the program's name.
fn parse_ticks(stat: &str) -> Result<u64> {
    let (_, fields) = stat.rsplit_once(')').context("no program name in /proc stat")?;
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let user = times.next().context("no user time in /proc stat")??;
    let system = times.next().context("no system time in /proc stat")??;
    Ok(user + system)
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
    fn ticks_are_counted_behind_the_name() {
        let stat = "7 (x) (0xd) S 1 7 7 0 -1 4194560 900 0 0 0 12 34 0 0 20 0 3 0 1 2 3";
        assert_eq!(parse_ticks(stat).unwrap(), 46);
        assert!(parse_ticks("7 (x0xd) S 1").is_err());
    }

    #[test]
    fn memory_is_read_in_mebibytes() {
        let memory = parse_memory("Name:\tx0xd\nVmRSS:\t   14336 kB\nRssAnon:\t    3072 kB\n");
        let memory = memory.unwrap();
        assert_eq!((memory.resident, memory.anonymous), (14.0, 3.0));
        assert!(parse_memory("").is_err());
    }
}
