//! The real program: start, files, signals, refusals.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;
use x0x_api::instance::EXIT_CONFIG;

use crate::support::{Api, EventStream, Node, Ws, eventually, stop, within};

/// A daemon in a process of its own.
pub(crate) struct Process {
    directory: TempDir,
    child: Child,
    api: Option<Api>,
}

impl Process {
    /// Starts `x0xd` with everything below a temporary directory, and waits until it answers.
    pub(crate) async fn spawn(bootstrap: &[SocketAddr]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let child = launch(&directory, "127.0.0.1:0", bootstrap);
        let mut process = Self { directory, child, api: None };
        process.wait_for_api().await;
        process
    }

    /// Starts it again, with the files that it left.
    pub(crate) async fn restart(&mut self, bootstrap: &[SocketAddr]) {
        self.child = launch(&self.directory, "127.0.0.1:0", bootstrap);
        self.wait_for_api().await;
    }

    async fn wait_for_api(&mut self) {
        let data = self.data();
        let read = || {
            let address = fs::read_to_string(data.join("api.port")).ok()?.parse().ok()?;
            Some(Api::new(address, &fs::read_to_string(data.join("api-token")).ok()?))
        };
        eventually("the API listens", || async {
            match read() {
                Some(api) => tokio::net::TcpStream::connect(api.address).await.is_ok(),
                None => false,
            }
        })
        .await;
        self.api = read();
    }

    pub(crate) fn api(&self) -> Api {
        self.api.clone().expect("it has started")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// SIGKILL: no chance to clean up.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// SIGSTOP, or SIGCONT: the process stands still, with its connections open.
    pub(crate) fn stand_still(&self, still: bool) {
        signal(&self.child, if still { "STOP" } else { "CONT" });
    }

    /// SIGTERM, and its exit code.
    pub(crate) async fn terminate(mut self) -> Option<i32> {
        signal(&self.child, "TERM");
        self.exit().await
    }

    async fn exit(&mut self) -> Option<i32> {
        let mut code = None;
        eventually("the process ends", || {
            let status = self.child.try_wait().expect("a child");
            code = status.and_then(|status| status.code());
            std::future::ready(status.is_some())
        })
        .await;
        code
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status();
    assert!(status.expect("kill runs").success());
}

fn program(directory: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_x0xd"));
    command.env_clear().env("HOME", directory.path()).stdin(Stdio::null());
    command
}

fn launch(directory: &TempDir, bind: &str, bootstrap: &[SocketAddr]) -> Child {
    let base = directory.path();
    let peers: Vec<String> = bootstrap.iter().map(|peer| format!("'{peer}'")).collect();
    let text = format!(
        "bind_address = '{bind}'\napi_address = '127.0.0.1:0'\ndata_dir = '{}'\n\
         identity_dir = '{}'\nbootstrap_peers = [{}]\n",
        base.join("data").display(),
        base.join("identity").display(),
        peers.join(", "),
    );
    let path = base.join("config.toml");
    fs::write(&path, text).expect("written");
    program(directory).arg("--config").arg(path).spawn().expect("x0xd starts")
}

fn run(directory: &TempDir, arguments: &[&str]) -> Output {
    program(directory).args(arguments).output().expect("x0xd runs")
}

fn hang_ups_are_ignored() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_none_or(|mask| mask & 1 == 1)
}

#[tokio::test]
async fn signals_and_shutdown_are_graceful() {
    for how in ["TERM", "INT", "HUP", "POST"] {
        if how == "HUP" && hang_ups_are_ignored() {
            eprintln!("skipped: what runs this test ignores SIGHUP, and so does what it starts");
            continue;
        }
        let mut process = Process::spawn(&[]).await;
        let port_file = process.data().join("api.port");
        let mut events = EventStream::open(&process.api(), "/events", None).await;
        let mut ws = Ws::open(&process.api(), "/ws").await;
        if how == "POST" {
            let answer = process.api().post("/shutdown", &json!({})).await;
            assert_eq!(answer.status, 200);
        } else {
            signal(&process.child, how);
        }
        assert_eq!(events.next().await, None, "{how}");
        assert_eq!(ws.try_next().await, None, "{how}");
        assert_eq!(process.exit().await, Some(0), "{how}");
        assert!(!port_file.exists(), "{how}");
    }
}

#[tokio::test]
async fn a_restart_keeps_identity_and_token() {
    let mut process = Process::spawn(&[]).await;
    let (token, agent) = (process.api().token, process.api().get("/agent").await.json());
    process.kill();
    assert!(process.data().join("api.port").exists(), "nobody cleaned up");
    process.restart(&[]).await;
    assert_eq!(process.api().token, token);
    assert_eq!(process.api().get("/agent").await.json(), agent);
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test]
async fn a_second_daemon_over_the_same_data_is_refused() {
    let process = Process::spawn(&[]).await;
    let config = process.directory.path().join("config.toml");
    let arguments = ["--config", config.to_str().expect("text")];
    let output = run(&process.directory, &arguments);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("another x0xd (process "), "{text}");
    assert!(text.contains(&process.child.id().to_string()), "{text}");
    assert!(process.data().join("api.port").exists(), "the first one's file stays");
    assert_eq!(process.terminate().await, Some(0));
}

/// Two daemons with the same keys would take each other's messages.
#[tokio::test]
async fn a_second_daemon_with_the_same_keys_is_refused() {
    let process = Process::spawn(&[]).await;
    let config = process.directory.path().join("config.toml");
    let other = process.directory.path().join("elsewhere");
    let (config, data) = (config.to_str().expect("text"), other.to_str().expect("text"));
    let output = run(&process.directory, &["--config", config, "--data-dir", data]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("uses the keys in"), "{text}");
    assert_eq!(process.terminate().await, Some(0));
}

/// Who has another key is another agent, and gets nothing of the first one's.
#[tokio::test]
async fn data_are_not_handed_to_another_key() {
    let mut process = Process::spawn(&[]).await;
    process.kill();
    let config = process.directory.path().join("config.toml");
    let keys = process.directory.path().join("identity");
    let (key, kept) = (keys.join("agent.key"), keys.join("kept"));
    let refused = |what: &str| {
        let output = run(&process.directory, &["--config", config.to_str().expect("text")]);
        assert_eq!(output.status.code(), Some(1), "{what}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("agent-id") && text.contains(what), "{text}");
    };
    fs::rename(&key, &kept).expect("moved");
    refused("its key is gone");
    assert!(!key.exists(), "none is made in its place");
    // One bit of the seed makes the key of somebody else.
    let mut bytes = fs::read(&kept).expect("the key");
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    fs::copy(&kept, &key).expect("its permissions, too");
    fs::write(&key, &bytes).expect("changed");
    refused("the key is of");
    fs::rename(&kept, &key).expect("back");
    process.restart(&[]).await;
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let node = Node::start(&[]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let port = node.api.address.port().to_string();
    let output = run(&directory, &["--name", "other", "--api-port", &port]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("cannot listen") && text.contains(&port), "{text}");
    stop(vec![node]).await;
}

#[test]
fn bad_configurations_and_flags_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("bad.toml");
    let file = path.to_str().expect("text");
    for (text, part) in [
        ("heartbeat_interval_secs = 'often'", "heartbeat_interval_secs"),
        ("api_address = '0.0.0.0:1'", "allow_remote_api"),
        ("broken", "bad.toml"),
    ] {
        fs::write(&path, text).expect("written");
        let output = run(&directory, &["--config", file]);
        assert_eq!(output.status.code(), Some(EXIT_CONFIG.into()), "{text}");
        let shown = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(shown.contains(part), "{shown}");
        assert_eq!(shown.lines().next().and_then(|line| line.split(' ').next()), Some("error:"));
    }
    let missing = run(&directory, &["--config", "/nonexistent.toml"]);
    assert_eq!(missing.status.code(), Some(EXIT_CONFIG.into()));
    let misnamed = run(&directory, &["--name", "../x"]);
    assert_eq!(misnamed.status.code(), Some(EXIT_CONFIG.into()));
    assert_eq!(run(&directory, &["--dance"]).status.code(), Some(2));
}

#[test]
fn questions_about_the_program_need_no_daemon() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let output = run(&directory, &["--version"]);
    let version = format!("x0xd {}\n", x0x_api::VERSION);
    assert_eq!(String::from_utf8_lossy(&output.stdout), version);
    let output = run(&directory, &["--check", "--name", "alice"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("x0x-alice"), "{text}");
    assert!(run(&directory, &["--list"]).status.success());
    let path = directory.path().join("odd.toml");
    fs::write(&path, "colour = 'blue'").expect("written");
    let output = run(&directory, &["--check", "--config", path.to_str().expect("text")]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && text.contains("`colour`"), "{text}");
}

#[tokio::test]
async fn a_named_instance_lives_in_its_own_places() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let base = directory.path().join("share");
    let mut command = program(&directory);
    command.env("XDG_DATA_HOME", &base).args(["--name", "alice", "--bind", "127.0.0.1:0"]);
    let child = command.spawn().expect("x0xd starts");
    let mut process = Process { directory, child, api: None };
    let data = base.join("x0x-alice");
    eventually("the port file is there", || async { data.join("api.port").exists() }).await;
    let list = program(&process.directory).env("XDG_DATA_HOME", &base).arg("--list").output();
    let list = String::from_utf8_lossy(&list.expect("runs").stdout).into_owned();
    assert!(list.contains("alice") && list.contains("running"), "{list}");
    assert!(process.directory.path().join(".x0x-alice").is_dir());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path| fs::metadata(path).expect("exists").permissions().mode() & 0o777;
        assert_eq!(mode(data.join("api-token")), 0o600);
        assert_eq!(mode(data.clone()), 0o700);
    }
    signal(&process.child, "TERM");
    assert_eq!(within("the end", process.exit()).await, Some(0));
}
