//! What is told when nothing was done, and to whom the token goes.

use std::net::TcpListener;
use std::process::Output;

use serde_json::{Value, json};

use super::stub::{Canned, Stub, x0x};
use super::{HEALTH, OK, stderr, stdout};

fn failure(output: &Output) -> (Value, Value) {
    let text = stdout(output);
    assert_eq!(text.lines().count(), 1, "{text}");
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(body["ok"], false, "{body}");
    (body["code"].clone(), body["error"].clone())
}

/// Whoever reads JSON gets JSON, also when nothing was done.
#[test]
fn with_json_every_failure_is_an_answer() {
    let refused = r#"{"ok":false,"error":"topic is empty","code":"invalid_topic"}"#;
    let odd = r#"{"ok":false,"error":"busy","code":"moons","detail":"too many"}"#;
    let stub = Stub::start(&[
        ("POST /publish", Canned::json(400, refused)),
        ("GET /peers", Canned::json(503, odd)),
        ("GET /agent", Canned::json(500, "<html>")),
    ]);
    let output = stub.run(&["--json", "publish", "", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(failure(&output), (json!("invalid_topic"), json!("topic is empty")));
    assert_eq!(stderr(&output), "error: topic is empty (HTTP 400)\n", "people are told as before");
    let output = stub.run(&["--format=json", "peers"]);
    assert_eq!(failure(&output), (json!("moons"), json!("busy: too many")));
    let output = stub.run(&["agent", "--json"]);
    assert_eq!(failure(&output), (json!("failed"), json!("Internal Server Error")));

    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| x0x(home.path()).args(arguments).output().unwrap();
    let output = run(&["--json", "health"]);
    assert_eq!((output.status.code(), failure(&output).0), (Some(2), json!("not_running")));
    let output = run(&["dance", "--json"]);
    assert_eq!((output.status.code(), failure(&output).0), (Some(2), json!("usage")));
    assert!(stderr(&output).contains("dance"));
    assert_eq!(stdout(&run(&["dance"])), "");
    assert_eq!(run(&["--json", "--help"]).status.code(), Some(0));
}

/// Nobody learns the token by being called.
#[test]
fn the_token_goes_to_the_running_instance_alone() {
    let stub = Stub::start(&[
        ("GET /health", Canned::json(200, HEALTH)),
        ("GET /status", Canned::json(200, OK)),
    ]);
    let other = Stub::start(&[
        ("GET /health", Canned::json(200, HEALTH)),
        ("GET /status", Canned::json(200, OK)),
    ]);
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data/x0x");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("api.port"), stub.address.to_string()).unwrap();
    std::fs::write(data.join("api-token"), "from-file").unwrap();
    let lock = std::fs::File::create(data.join("x0xd.lock")).unwrap();
    let status =
        |api: &str| x0x(home.path()).args(["--json", "--api", api, "status"]).output().unwrap();
    let foreign = other.address.to_string();
    let own = stub.address.to_string();
    // Nobody holds the lock: whoever listens at the old address is not the daemon either.
    for api in [&foreign, &own] {
        let output = status(api);
        assert_eq!((output.status.code(), failure(&output).0), (Some(1), json!("no_token")));
    }
    lock.lock().unwrap();
    let output = status(&foreign);
    let (code, text) = failure(&output);
    assert_eq!(code, json!("no_token"));
    assert!(text.as_str().unwrap().contains("X0X_API_TOKEN"), "{text}");
    assert!(other.seen().is_empty(), "it was not even called");
    let health = x0x(home.path()).args(["--api", &foreign, "health"]).output().unwrap();
    assert!(health.status.success(), "what needs no token needs none");
    assert_eq!(other.seen()[0].authorization, None);
    let named = format!("localhost:{}", stub.address.port());
    for api in [own.as_str(), &named] {
        assert!(status(api).status.success(), "{api}");
    }
    let seen = stub.seen();
    assert!(seen.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer from-file")));
    assert_eq!(seen.len(), 2);
    let mut given = x0x(home.path());
    given.env("X0X_API_TOKEN", "given").args(["--api", &foreign, "status"]);
    assert!(given.output().unwrap().status.success());
    assert_eq!(other.seen()[0].authorization.as_deref(), Some("Bearer given"));
}

/// A daemon that has no time for a new connection is not one that is to be started.
#[test]
fn a_daemon_that_runs_and_does_not_answer_is_busy() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data/x0x");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("api.port"), address.to_string()).unwrap();
    std::fs::write(data.join("api-token"), "from-file").unwrap();
    std::fs::write(data.join("x0xd.lock"), "77").unwrap();
    let lock = std::fs::File::open(data.join("x0xd.lock")).unwrap();
    lock.lock().unwrap();
    let run = |arguments: &[&str]| x0x(home.path()).args(arguments).output().unwrap();
    let output = run(&["--json", "status"]);
    assert_eq!(output.status.code(), Some(2));
    let told = "Daemon runs (process 77) but does not answer";
    assert_eq!(failure(&output), (json!("busy"), json!(told)));
    let list: Value = serde_json::from_str(&stdout(&run(&["--json", "instances"]))).unwrap();
    assert_eq!(list["instances"][0]["status"], "busy");
    lock.unlock().unwrap();
    assert_eq!(failure(&run(&["--json", "status"])).0, json!("not_running"));
    let list: Value = serde_json::from_str(&stdout(&run(&["--json", "instances"]))).unwrap();
    assert_eq!(list["instances"][0]["status"], "stale");
}

#[cfg(unix)]
#[test]
fn the_doctor_names_what_is_wrong() {
    use std::os::unix::fs::PermissionsExt;

    let status = json!({
        "ok": true, "status": "degraded", "version": "0.1.0", "uptime_secs": 9, "peers": 0,
        "api_address": "127.0.0.1:9", "external_addrs": [], "agent_id": "ab".repeat(32),
        "warnings": ["the moon is full"],
    });
    let stub = Stub::start(&[
        ("GET /health", Canned::json(200, HEALTH)),
        ("GET /status", Canned::json(200, &status.to_string())),
    ]);
    let home = tempfile::tempdir().unwrap();
    let (data, keys) = (home.path().join("data/x0x"), home.path().join(".x0x"));
    let private = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let doctor = || x0x(home.path()).args(["--json", "doctor"]).output().unwrap();
    let verdicts = |output: &Output| -> Vec<(String, String)> {
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let checks = report["checks"].as_array().unwrap().iter();
        checks.map(|check| (text(&check["name"]), text(&check["status"]))).collect()
    };
    let has = |output: &Output, name: &str, status: &str| {
        let found = verdicts(output);
        assert!(found.contains(&(name.to_owned(), status.to_owned())), "{name}: {found:?}");
    };
    let output = doctor();
    assert_eq!(output.status.code(), Some(2), "nothing runs");
    has(&output, "daemon", "failed");

    for folder in [&data, &keys] {
        std::fs::create_dir_all(folder).unwrap();
        private(folder, 0o700);
    }
    let lock = std::fs::File::create(data.join("x0xd.lock")).unwrap();
    lock.lock().unwrap();
    std::fs::write(data.join("api.port"), stub.address.to_string()).unwrap();
    for (file, mode) in [(data.join("api-token"), 0o600), (keys.join("machine.key"), 0o640)] {
        std::fs::write(&file, "secret").unwrap();
        private(&file, mode);
    }
    let output = doctor();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    has(&output, "keys", "failed");
    assert!(stdout(&output).contains("machine.key"));
    has(&output, "token", "ok");
    has(&output, "daemon", "ok");
    has(&output, "peers", "warning");

    private(&keys.join("machine.key"), 0o600);
    private(&data.join("api-token"), 0o644);
    let output = doctor();
    assert_eq!(output.status.code(), Some(1));
    has(&output, "keys", "ok");
    has(&output, "token", "failed");

    private(&data.join("api-token"), 0o600);
    let output = doctor();
    assert_eq!(output.status.code(), Some(0), "what is only a warning is no failure");
    assert!(stdout(&output).contains("the moon is full"));
    let text = x0x(home.path()).arg("doctor").output().unwrap();
    assert!(stdout(&text).lines().any(|line| line.starts_with("warning  peers")), "{text:?}");
}
