//! `x0x start`: the daemon in the background, and what it says there.

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

/// The command beside `x0xd`, which it starts, with everything below a folder.
fn x0x(folder: &Path, arguments: &[&str]) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_x0xd")).with_file_name("x0x");
    let mut command = Command::new(program);
    command.env_clear().env("HOME", folder).stdin(Stdio::null());
    command.args(["--json", "--config"]).arg(folder.join("config.toml")).args(arguments);
    command.output().expect("x0x runs; build it with: cargo build -p x0x-cli")
}

fn configure(folder: &Path, api: &str) {
    let text = format!(
        "bind_address = '127.0.0.1:0'\napi_address = '{api}'\ndata_dir = '{}'\nidentity_dir = '{}'\n",
        folder.join("data").display(),
        folder.join("identity").display(),
    );
    fs::write(folder.join("config.toml"), text).expect("written");
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Stops the daemon that a test leaves behind.
struct Running<'a>(&'a Path);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        x0x(self.0, &["stop"]);
    }
}

#[test]
fn a_daemon_in_the_background_leaves_its_reason_and_names_its_log() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let folder = temp.path();
    let log = folder.join("data/x0xd.log");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    configure(folder, &address);
    let output = x0x(folder, &["start"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let failure = json(&output);
    let error = failure["error"].as_str().expect("text");
    assert!(error.contains("cannot listen") && error.contains(&address), "{error}");
    assert!(error.contains(&log.display().to_string()), "{error}");
    assert_eq!((&failure["ok"], &failure["code"]), (&false.into(), &"failed".into()));
    let said = fs::read_to_string(&log).expect("there");
    assert!(said.contains("cannot listen"), "{said}");
    drop(taken);

    // Only the daemon knows what its settings may be.
    configure(folder, "192.0.2.1:0");
    let output = x0x(folder, &["start"]);
    assert_eq!(json(&output)["code"], "invalid_config", "{output:?}");

    configure(folder, "127.0.0.1:0");
    let output = x0x(folder, &["start"]);
    let _running = Running(folder);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(json(&output)["log"], log.display().to_string());
    assert_eq!(json(&x0x(folder, &["status"]))["log"], log.display().to_string());
    assert!(!fs::read_to_string(&log).expect("there").contains("cannot listen"), "begun anew");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&log).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    #[cfg(target_os = "linux")]
    {
        let pid = json(&output)["pid"].as_u64().expect("its process");
        let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(environment.contains("MALLOC_MMAP_THRESHOLD_="), "{environment}");
    }
    // As an operator with a configuration file asks: it says where the data and with it the token is.
    let shown = x0x(folder, &["diagnostics", "connectivity"]);
    assert_eq!(shown.status.code(), Some(0), "{shown:?}");
    let again = x0x(folder, &["start"]);
    assert_eq!(json(&again)["already_running"], true);
}
