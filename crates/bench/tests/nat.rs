//! Four places of the lab, with the daemons of this build: the pairs of them meet.

use std::path::Path;
use std::process::Command;

/// A public machine, a usual home, a home behind the provider's translator, and a network without UDP.
const KINDS: &str = "none,port-restricted,cgnat,udp-blocked";

#[test]
fn pairs_meet_through_translators() {
    let bench = Path::new(env!("CARGO_BIN_EXE_x0x-bench"));
    let daemon = bench.with_file_name("x0xd");
    // A run over the whole workspace has built it; a run of this package alone has not.
    if !daemon.is_file() {
        return eprintln!("skipped: {} is not built", daemon.display());
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: network namespaces need root");
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("skipped: nft is not installed");
    }
    let namespace = format!("x0xlab-probe-{}", std::process::id());
    let allowed = |verb| Command::new("ip").args(["netns", verb, &namespace]).status();
    if !allowed("add").is_ok_and(|status| status.success()) {
        return eprintln!("skipped: network namespaces are not allowed here");
    }
    let _ = allowed("delete");
    let mut lab = Command::new(bench);
    lab.arg("--daemon").arg(&daemon).args(["lab", "nat", "--only", KINDS, "--one-way"]);
    let output = lab.output().expect("the lab starts");
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}");
}
