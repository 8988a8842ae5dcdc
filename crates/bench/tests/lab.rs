//! Scenarios of the lab in network namespaces, with the daemons of this build.

use std::path::Path;
use std::process::Command;

/// A public machine, a usual home, a home behind the provider's translator, and a network without UDP.
const KINDS: &str = "none,port-restricted,cgnat,udp-blocked";

#[test]
fn pairs_meet_through_translators() {
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("skipped: nft is not installed");
    }
    passes(&["nat", "--only", KINDS, "--one-way"]);
}

#[test]
fn nothing_of_a_hidden_group_is_on_the_wires() {
    passes(&["groups-hidden"]);
}

/// Runs a scenario, unless this place has none.
fn passes(scenario: &[&str]) {
    let bench = Path::new(env!("CARGO_BIN_EXE_x0x-bench"));
    let daemon = bench.with_file_name("x0xd");
    // A run over the whole workspace has built it; a run of this package alone has not.
    if !daemon.is_file() {
        return eprintln!("skipped: {} is not built", daemon.display());
    }
    if !rustix::process::geteuid().is_root() {
        return eprintln!("skipped: network namespaces need root");
    }
    let namespace = format!("x0xlab-probe-{}", std::process::id());
    let allowed = |verb| Command::new("ip").args(["netns", verb, &namespace]).status();
    if !allowed("add").is_ok_and(|status| status.success()) {
        return eprintln!("skipped: network namespaces are not allowed here");
    }
    let _ = allowed("delete");
    let mut lab = Command::new(bench);
    lab.arg("--daemon").arg(&daemon).arg("lab").args(scenario);
    let output = lab.output().expect("the lab starts");
    let shown = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&shown));
}
