//! What the kernel says about a process: CPU time and memory.

use std::fs;

use anyhow::Context;

/// Kernel clock ticks per second in `/proc/<pid>/stat`; fixed at 100 on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system CPU seconds so far.
///
/// Sums `schedstat` over the threads (nanoseconds) where the kernel offers it, since `stat` only
/// counts hundredths.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut nanos = 0_u64;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("schedstat");
        let Ok(text) = fs::read_to_string(path) else { return ticks(pid) };
        nanos += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanos as f64 / 1e9)
}

fn ticks(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses and may hold spaces.
    let fields = stat.rsplit_once(')').context("malformed stat")?.1;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |n: usize| -> f64 { fields.get(n).and_then(|f| f.parse().ok()).unwrap_or(0.0) };
    Ok((ticks(11) + ticks(12)) / TICKS_PER_SECOND)
}

/// Resident and resident anonymous memory in MiB.
pub(crate) fn memory_mib(pid: u32) -> anyhow::Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let field = |name: &str| -> f64 {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.trim_start_matches(':').split_whitespace().next())
            .and_then(|kib| kib.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 1024.0
    };
    Ok((field("VmRSS"), field("RssAnon")))
}

/// Bytes received so far on the loopback interface of this network namespace.
pub(crate) fn loopback_bytes() -> anyhow::Result<u64> {
    let table = fs::read_to_string("/proc/net/dev")?;
    let line = table.lines().find(|line| line.trim_start().starts_with("lo:")).context("no lo")?;
    let bytes = line.split_once(':').and_then(|(_, rest)| rest.split_whitespace().next());
    Ok(bytes.context("no count")?.parse()?)
}
