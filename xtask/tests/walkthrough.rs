//! The README's walk-through runs, and the messages in it arrive.

use std::path::Path;
use std::process::Command;

#[test]
fn the_readme_walkthrough_runs() {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let programs = xtask.parent().expect("the program is in a folder");
    let mut command = Command::new(xtask);
    command.arg("demo");
    // A run over the whole workspace has built the programs beside this one; a run of this package
    // alone has not.
    if ["x0x", "x0xd"].iter().all(|program| programs.join(program).is_file()) {
        command.arg("--bin-dir").arg(programs);
    }
    let output = command.output().expect("the demo starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    // Printed by the receiving side; the sending command echoes with a `$` in front.
    let heard = |text: &str| stdout.lines().any(|line| !line.contains('$') && line.contains(text));
    assert!(heard("hello from alice"), "no gossip arrived:\n{stdout}\n{stderr}");
    assert!(heard("refused"), "a blocked agent was written to:\n{stdout}\n{stderr}");
    assert!(heard("only for bob"), "no direct message arrived:\n{stdout}\n{stderr}");
}
