//! The command against a stub daemon: calls, output in both forms, exit codes.
#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

mod failures;
mod stub;

use std::net::TcpListener;
use std::process::Output;

use serde_json::{Value, json};
use stub::{Canned, Stub, x0x};

const HEALTH: &str =
    r#"{"ok":true,"status":"healthy","version":"0.1.0","peers":2,"uptime_secs":9}"#;
const OK: &str = r#"{"ok":true}"#;

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn message(subscription: &str, text: &str) -> String {
    let payload = data_encoding::BASE64.encode(text.as_bytes());
    let event = json!({ "type": "message", "data": {
        "subscription_id": subscription, "topic": "chat", "payload": payload,
        "sender": "ab".repeat(32), "verified": true, "trust_level": null,
        "epoch": "00000000000000ff", "seq": 1, "cursor": "a-1",
    }});
    format!("id: 1\nevent: message\ndata: {event}\n\n")
}

#[test]
fn an_answer_is_lines_or_json() {
    let stub = Stub::start(&[("GET /health", Canned::json(200, HEALTH))]);
    let text = stub.run(&["health"]);
    assert_eq!(
        stdout(&text),
        "ok: true\npeers: 2\nstatus: healthy\nuptime_secs: 9\nversion: 0.1.0\n"
    );
    for arguments in [["--json", "health"], ["health", "--json"], ["--format=json", "health"]] {
        let json: Value = serde_json::from_str(&stdout(&stub.run(&arguments))).unwrap();
        assert_eq!(json["peers"], 2);
    }
}

#[test]
fn one_field_is_printed_bare() {
    let stub = Stub::start(&[("GET /health", Canned::json(200, HEALTH))]);
    assert_eq!(stdout(&stub.run(&["health", "--field", "status"])), "healthy\n");
    assert_eq!(stdout(&stub.run(&["health", "--field", "peers"])), "2\n");
    assert_eq!(stdout(&stub.run(&["health", "--json", "--field", "status"])), "\"healthy\"\n");
    let absent = stub.run(&["health", "--field", "moons"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("no field `moons`"));
}

const NETWORK: &str = r#"{"ok":true,"local_addr":"127.0.0.1:9","external_addrs":[],
    "nat_type":"Unknown","has_global_address":false,"can_receive_direct":null,"connected_peers":2,
    "direct_connections":2,"relayed_connections":0,"hole_punch_success_rate":0.0,"is_relaying":false,
    "relay_sessions":0,"is_coordinating":false,"coordination_sessions":0,"avg_rtt_ms":0,
    "uptime_secs":1}"#;

fn gossip() -> Value {
    let (one, two, topic) = ("ab".repeat(32), "cd".repeat(32), "ef".repeat(32));
    let numbers = |names: &[&str]| -> Value {
        names.iter().map(|name| ((*name).to_owned(), json!(0))).collect()
    };
    json!({
        "ok": true,
        "stats": numbers(&[
            "publish_total", "publish_failed", "incoming_total", "incoming_decoded",
            "incoming_decode_failed", "delivered_to_subscriber", "slow_subscriber_dropped",
            "subscriber_channel_closed", "in_flight_decode", "decode_to_delivery_drops",
        ]),
        "tree": numbers(&[
            "duplicates", "announced", "prunes_sent", "prunes_received", "grafts_sent",
            "grafts_received",
        ]),
        "reconciliation": numbers(&[
            "comparisons", "missing", "asked", "asked_by_peers", "given_up", "promises_broken",
            "lost",
        ]),
        "neighbors": [one], "passive": [two],
        "links": [{"peer": one, "neighbor": true, "topics": 3, "penalty": 0, "rtt_us": 1234,
                   "broken_promises": 0, "slow": false}],
        "topics": [
            {"topic": "chat\u{7}", "topic_id": topic, "subscriptions": 1, "eager": 1, "lazy": 2,
             "authors": 4, "messages": 50, "bytes": 600, "missing": 0, "equal": 2,
             "congested": false},
            {"topic": null, "topic_id": topic, "subscriptions": 0, "eager": 0, "lazy": 0,
             "authors": 1, "messages": 1, "bytes": 9, "missing": 1, "equal": 0,
             "congested": true},
        ],
    })
}

#[test]
fn a_card_is_shown_as_a_code_to_scan() {
    let id = "ab".repeat(32);
    let card = json!({
        "ok": true, "link": "x0x://agent/long", "short_link": format!("x0x://agent/{}", "q".repeat(150)),
        "card": { "display_name": "", "agent_id": id, "machine_id": id, "addresses": [],
                  "created_at": 1, "expires_at": 2 },
    });
    let stub = Stub::start(&[("GET /agent/card", Canned::json(200, &card.to_string()))]);
    let text = stdout(&stub.run(&["agent", "card", "--qr"]));
    assert!(text.lines().count() > 20, "{text}");
    assert!(!text.contains('\\'), "{text}");
    assert_eq!(text.lines().last(), card["short_link"].as_str());
    let json: Value =
        serde_json::from_str(&stdout(&stub.run(&["agent", "card", "--qr", "--json"]))).unwrap();
    assert_eq!(json["link"], "x0x://agent/long");
}

#[test]
fn an_answer_of_no_is_a_failure() {
    let (agent, machine) = ("ab".repeat(32), "cd".repeat(32));
    let find = format!("POST /agents/find/{agent}");
    let pin = format!("POST /contacts/{agent}/machines/{machine}/pin");
    for yes in [true, false] {
        let found = json!({ "ok": true, "found": yes }).to_string();
        let pinned = json!({ "ok": true, "pinned": yes }).to_string();
        let stub =
            Stub::start(&[(&find, Canned::json(200, &found)), (&pin, Canned::json(200, &pinned))]);
        for (arguments, said) in
            [(vec!["find", &agent], "found"), (vec!["machines", "pin", &agent, &machine], "pinned")]
        {
            let output = stub.run(&arguments);
            assert_eq!(output.status.code(), Some(i32::from(!yes)), "{arguments:?}");
            assert!(stdout(&output).contains(&format!("{said}: {yes}")), "{arguments:?}");
            assert_eq!(stderr(&output).contains(said), !yes, "{arguments:?}");
        }
    }
}

#[test]
fn whom_a_walk_does_not_find_is_a_failure() {
    let agent = "ab".repeat(32);
    let walk = format!("GET /presence/find/{agent}?ttl=2&timeout_ms=500");
    for (found, code) in [(json!({ "agent_id": agent }), 0), (Value::Null, 1)] {
        let answer = json!({ "ok": true, "agent": found }).to_string();
        let stub = Stub::start(&[(&walk, Canned::json(200, &answer))]);
        let output =
            stub.run(&["presence", "find", &agent, "--ttl", "2", "--timeout-ms", "500", "--json"]);
        assert_eq!(output.status.code(), Some(code), "{found}");
        assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap()["agent"], found);
    }
}

#[test]
fn network_and_topics_are_tables_or_json() {
    let stub = Stub::start(&[
        ("GET /network/status", Canned::json(200, NETWORK)),
        ("GET /diagnostics/gossip", Canned::json(200, &gossip().to_string())),
    ]);
    let text = stdout(&stub.run(&["network"]));
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "listening 127.0.0.1:9, seen as -");
    assert_eq!(lines[1], "2 sessions, 1 neighbours, 1 more machines known");
    assert_eq!(lines[4], "abababababababab  neighbour  1.234 ms  3       0");
    let json: Value = serde_json::from_str(&stdout(&stub.run(&["network", "--json"]))).unwrap();
    assert_eq!(json["status"]["connected_peers"], 2);
    assert_eq!(json["links"][0]["rtt_us"], 1234);
    let text = stdout(&stub.run(&["topics"]));
    let cells = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let lines: Vec<_> = text.lines().map(cells).collect();
    assert_eq!(lines[1], ["chat\\u{7}", "1", "1", "2", "4", "50", "600", "0"]);
    assert_eq!(lines[2][0], "(efefefefefefefef)");
    let bytes = stdout(&stub.run(&["topics", "--field", "topics.0.bytes"]));
    assert_eq!(bytes, "600\n");
}

#[test]
fn every_call_goes_where_the_table_says_with_the_token() {
    let id = "cd".repeat(32);
    let calls: [(&[&str], &str, Value); 31] = [
        (&["status"], "GET /status", Value::Null),
        (&["agent"], "GET /agent", Value::Null),
        (
            &["announce", "--include-user", "--consent"],
            "POST /announce",
            json!({ "include_user_identity": true, "human_consent": true }),
        ),
        (&["peers"], "GET /peers", Value::Null),
        (&["network", "status"], "GET /network/status", Value::Null),
        (&["network", "cache"], "GET /network/bootstrap-cache", Value::Null),
        (&["peers", "health", "x/y"], "GET /peers/x%2Fy/health", Value::Null),
        (
            &["peers", "probe", "ab", "--timeout-ms", "7"],
            "POST /peers/ab/probe?timeout_ms=7",
            Value::Null,
        ),
        (&["diagnostics", "gossip"], "GET /diagnostics/gossip", Value::Null),
        (&["agents"], "GET /agents/discovered", Value::Null),
        (
            &["agents", "list", "--unfiltered"],
            "GET /agents/discovered?unfiltered=true",
            Value::Null,
        ),
        (
            &["agents", "get", "x/y", "--wait", "3"],
            "GET /agents/discovered/x%2Fy?wait=3",
            Value::Null,
        ),
        (
            &["publish", "chat", "hi"],
            "POST /publish",
            json!({ "topic": "chat", "payload": "aGk=" }),
        ),
        (
            &["publish", "chat", "hi", "--retention", "latest"],
            "POST /publish",
            json!({ "topic": "chat", "payload": "aGk=", "retention": "latest" }),
        ),
        (&["subscriptions"], "GET /subscribe", Value::Null),
        (&["unsubscribe", "0123"], "DELETE /subscribe/0123", Value::Null),
        (&["direct", "connect", &id], "POST /agents/connect", json!({ "agent_id": id })),
        (
            &["direct", "send", &id, "hi", "--require-ack-ms", "500"],
            "POST /direct/send",
            json!({ "agent_id": id, "payload": "aGk=", "require_ack_ms": 500 }),
        ),
        (
            &["direct", "send", &id, "hi", "--queue", "--read-receipt", "--lifetime", "60"],
            "POST /direct/send",
            json!({
                "agent_id": id, "payload": "aGk=", "queue": true, "read_receipt": true,
                "lifetime_secs": 60,
            }),
        ),
        (
            &["direct", "send", &id, "hi", "--session"],
            "POST /direct/send",
            json!({ "agent_id": id, "payload": "aGk=", "class": "session" }),
        ),
        (
            &["direct", "connect-machine", &id],
            "POST /machines/connect",
            json!({ "machine_id": id }),
        ),
        (&["direct", "status", "0a"], "GET /direct/messages/0a", Value::Null),
        (&["direct", "cancel", "0a"], "DELETE /direct/messages/0a", Value::Null),
        (
            &["inbox", "ack", "3", "4", "--consumer", "c"],
            "POST /inbox/ack",
            json!({ "consumer": "c", "numbers": [3, 4] }),
        ),
        (
            &["inbox", "ack", "--through", "9"],
            "POST /inbox/ack",
            json!({ "consumer": "default", "through": 9 }),
        ),
        (
            &["inbox", "release", "3"],
            "POST /inbox/release",
            json!({ "consumer": "default", "numbers": [3] }),
        ),
        (
            &["inbox", "seek", "oldest"],
            "POST /inbox/seek",
            json!({ "consumer": "default", "start": "oldest" }),
        ),
        (&["inbox", "consumers"], "GET /inbox/consumers", Value::Null),
        (
            &["inbox", "create-consumer", "c", "--start", "latest"],
            "POST /inbox/consumers",
            json!({ "consumer": "c", "start": "latest" }),
        ),
        (&["inbox", "remove-consumer", "c"], "DELETE /inbox/consumers/c", Value::Null),
        (&["ws", "sessions"], "GET /ws/sessions", Value::Null),
    ];
    for (arguments, line, body) in calls {
        let stub = Stub::start(&[(line, Canned::json(200, OK))]);
        let output = stub.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "ok: true\n", "{arguments:?}");
        let seen = stub.seen();
        assert_eq!(seen.len(), 1, "{arguments:?}");
        assert_eq!(seen[0].authorization.as_deref(), Some("Bearer secret"));
        let sent = serde_json::from_str(&seen[0].body).unwrap_or(Value::Null);
        assert_eq!(sent, body, "{arguments:?}");
        let media_type = (!body.is_null()).then_some("application/json");
        assert_eq!(seen[0].media_type.as_deref(), media_type, "{arguments:?}");
    }
}

#[test]
fn stop_waits_until_the_daemon_is_gone() {
    let answer = Canned::json(200, r#"{"ok":true,"message":"shutting down"}"#);
    // The stub knows no /health: a daemon that has stopped answering.
    let stub = Stub::start(&[("POST /shutdown", answer)]);
    let output = stub.run(&["stop"]);
    assert_eq!(stdout(&output), "Daemon shutting down.\n", "{}", stderr(&output));
    let lines: Vec<_> = stub.seen().into_iter().map(|request| request.line).collect();
    assert_eq!(lines, ["POST /shutdown", "GET /health"]);
}

#[test]
fn a_refusal_is_told_and_exits_1() {
    let body = r#"{"ok":false,"error":"agent is \u001b[31mblocked","code":"forbidden_origin"}"#;
    let stub = Stub::start(&[("GET /peers", Canned::json(403, body))]);
    let output = stub.run(&["peers"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr(&output), "error: agent is \\u{1b}[31mblocked (HTTP 403)\n");
    assert_eq!(stdout(&output), "");
}

#[test]
fn an_answer_that_is_not_json_fails_and_an_empty_one_does_not() {
    let stub = Stub::start(&[
        ("GET /peers", Canned::json(200, "<html>")),
        ("GET /agent", Canned::json(200, "")),
    ]);
    let output = stub.run(&["peers"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("failed to parse response"));
    assert_eq!(stdout(&stub.run(&["agent"])), "ok: true\n");
}

#[test]
fn without_a_daemon_the_exit_code_is_2_and_the_text_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    // A port that was free a moment ago; nothing listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let unknown = "nowhere.invalid:1".to_owned();
    for address in [address, unknown] {
        let output = x0x(home.path()).args(["--api", &address, "health"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(stderr(&output), format!("error: http://{address} does not answer\n"));
    }
    let output = x0x(home.path()).args(["--name", "bob", "health"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("Start it with: x0x --name bob start"));
    let usage = x0x(home.path()).args(["--api", "garbage", "health"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(stderr(&usage).contains("HOST:PORT"), "{}", stderr(&usage));
    let usage = x0x(home.path()).args(["--name", "../bob", "health"]).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_named_instance_is_found_by_its_files() {
    let stub = Stub::start(&[("GET /health", Canned::json(200, HEALTH))]);
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data/x0x-alice");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("api.port"), stub.address.to_string()).unwrap();
    std::fs::write(data.join("api-token"), "from-file").unwrap();
    let lock = std::fs::File::create(data.join("x0xd.lock")).unwrap();
    // Nobody holds the lock, so whoever listens is not the daemon, and gets no token.
    let output = x0x(home.path()).args(["health", "--name", "alice"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stub.seen().is_empty());
    lock.lock().unwrap();
    let output = x0x(home.path()).args(["health", "--name", "alice"]).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stub.seen()[0].authorization.as_deref(), Some("Bearer from-file"));

    // Its address alone is enough: it is an instance of this user.
    let api = stub.address.to_string();
    let output = x0x(home.path()).args(["--api", &api, "health"]).output().unwrap();
    assert!(!stderr(&output).contains("not the address of a running instance"));
    assert_eq!(stub.seen()[0].authorization.as_deref(), Some("Bearer from-file"));

    let output = x0x(home.path()).env("X0X_NAME", "alice").arg("health").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let output = x0x(home.path()).env("X0X_DATA_DIR", &data).arg("health").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));

    let stale = home.path().join("data/x0x-stale");
    std::fs::create_dir_all(&stale).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    std::fs::write(stale.join("api.port"), &free).unwrap();
    let output = x0x(home.path()).args(["instances"]).output().unwrap();
    let expected = [("alice", stub.address.to_string(), "running"), ("stale", free, "stale")];
    for (line, (name, api, status)) in stdout(&output).lines().skip(1).zip(&expected) {
        let words: Vec<_> = line.split_whitespace().collect();
        assert_eq!(words, [*name, api.as_str(), *status]);
    }
    assert_eq!(stdout(&output).lines().count(), 3);
}

#[test]
fn subscribe_prints_the_messages_of_its_stream() {
    let events = message("77", "hi\u{202e} there") + ": done\n\n";
    let stub = Stub::start(&[
        ("GET /events?topic=chat", Canned::events(&events)),
        ("GET /events?topic=chat&since=now", Canned::events(&events)),
    ]);
    let output = stub.run(&["subscribe", "chat", "--count", "1"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), "[chat] abababababababab: hi\\u{202e} there\n");
    // The subscription is the stream's: a command that is killed leaves none behind.
    assert_eq!(stub.seen().len(), 1);

    let output = stub.run(&["subscribe", "chat", "--since", "now", "--json"]);
    let text = stdout(&output);
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["data"]["topic"], "chat");
    assert_eq!((&lines[1]["ok"], lines.len()), (&json!(false), 2), "the failure is the last line");
    assert_eq!(output.status.code(), Some(1), "the stream ended before the user did");
    assert!(stderr(&output).contains("the daemon closed the stream"));
}

/// Ctrl-C is how a person ends a subscription, SIGTERM how a program does: nothing went wrong.
#[cfg(unix)]
#[test]
fn an_interrupt_ends_a_subscription_well() {
    for signal in ["-INT", "-TERM"] {
        end_by(signal);
    }
}

#[cfg(unix)]
fn end_by(signal: &str) {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let events = Canned::endless_events(&message("77", "hi"));
    let stub = Stub::start(&[("GET /events?topic=chat", events)]);
    let mut command = stub.command(&["subscribe", "chat"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    // The first message shows that the command is past its set-up.
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "[chat] abababababababab: hi\n");
    let killed = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn direct_events_are_printed_and_lag_is_told() {
    let payload = data_encoding::BASE64.encode(b"psst");
    let message = json!({
        "sender": "ef".repeat(32), "machine_id": "01".repeat(32), "payload": payload,
        "received_at": 5, "verified": true, "trust_decision": null,
    });
    let events =
        format!("event: gap\ndata: {{\"missed\":4}}\n\nevent: direct_message\ndata: {message}\n\n");
    let stub = Stub::start(&[("GET /direct/events", Canned::events(&events))]);
    let output = stub.run(&["direct", "events", "--count", "1"]);
    assert_eq!(stdout(&output), "#- efefefefefefefef (unknown): psst\n");
    assert!(stderr(&output).contains("4 messages were missed"));
}

#[test]
fn hostile_mail_is_shown_as_text() {
    let payload = data_encoding::BASE64.encode("a\u{1b}[2J\u{202e}b\nc".as_bytes());
    let message = json!({
        "sender": "ef".repeat(32), "machine_id": "01".repeat(32), "payload": payload,
        "received_at": 5, "verified": true, "trust_decision": null, "trust_level": "known",
        "request_id": "00".repeat(16), "number": 7,
    });
    let answer = json!({
        "ok": true, "consumer": "default", "messages": [message], "missed": 2, "cursor": 6,
    });
    let line = "GET /inbox?consumer=default&limit=50";
    let stub = Stub::start(&[(line, Canned::json(200, &answer.to_string()))]);
    let output = stub.run(&["inbox"]);
    let expected = "#7 efefefefefefefef (known): a\\u{1b}[2J\\u{202e}b\\nc\n";
    assert_eq!(stdout(&output), expected);
    assert!(stderr(&output).contains("2 messages are not kept any more"));
}

#[test]
fn a_wait_in_vain_has_an_exit_code_of_its_own() {
    let answer = json!({
        "ok": true, "consumer": "default", "messages": [], "missed": 0, "cursor": 0, "more": false
    });
    let line = "GET /inbox/wait?consumer=default&limit=50&timeout_ms=0";
    let stub = Stub::start(&[(line, Canned::json(200, &answer.to_string()))]);
    let output = stub.run(&["inbox", "wait", "--timeout", "0", "--ack"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing came in time") && stdout(&output).is_empty());
    assert_eq!(stub.seen().len(), 1, "and nothing is acknowledged");
    let output = stub.run(&["--json", "inbox", "wait", "--timeout", "0"]);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(serde_json::from_str::<Value>(&stdout(&output)).unwrap(), answer);
}

#[test]
fn workers_that_share_a_consumer_name_themselves() {
    let claimed = json!({"ok": true, "consumer": "c", "messages": [], "missed": 0, "cursor": 0});
    let stub = Stub::start(&[
        ("POST /inbox/claim", Canned::json(200, &claimed.to_string())),
        ("POST /inbox/ack", Canned::json(200, OK)),
        ("POST /inbox/release", Canned::json(200, OK)),
    ]);
    for arguments in [
        &["inbox", "claim", "--consumer", "c", "--owner", "ann"][..],
        &["inbox", "ack", "7", "--consumer", "c", "--owner", "ann"],
        &["inbox", "release", "7", "--consumer", "c", "--owner", "ann"],
    ] {
        assert!(stub.run(arguments).status.success(), "{arguments:?}");
    }
    let seen = stub.seen();
    assert!(seen.iter().all(|seen| seen.body.contains(r#""owner":"ann""#)), "{seen:?}");
    assert_eq!(seen.len(), 3);
    let usage = stub.run(&["inbox", "ack", "--through", "7", "--owner", "ann"]);
    assert_eq!(usage.status.code(), Some(2), "all up to a number is nobody's alone");
}

#[test]
fn the_catalogue_needs_no_daemon() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| stdout(&x0x(home.path()).args(arguments).output().unwrap());
    let routes = run(&["routes"]);
    assert!(routes.starts_with("METHOD"));
    assert!(routes.ends_with(&format!("{} endpoints total\n", x0x_api::ENDPOINTS.len())));
    let rows: Value = serde_json::from_str(&run(&["routes", "--json"])).unwrap();
    assert_eq!(rows[0]["path"], "/health");
    assert!(run(&["tree"]).contains("├── status"));
    let tree: Value = serde_json::from_str(&run(&["tree", "--json"])).unwrap();
    assert_eq!(tree["name"], "x0x");
    assert!(run(&["completions", "bash"]).contains("_x0x"));
    assert!(run(&["--help"]).contains("Exit codes"));
}

#[test]
fn the_direct_socket_has_an_address() {
    let stub = Stub::start(&[]);
    let output = stub.run(&["ws", "direct"]);
    assert_eq!(stdout(&output), format!("ws://{}/ws/direct\n", stub.address));
}

/// A reader that goes away ends the command, and is no failure of it.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_not_an_error() {
    use std::process::{Command, Stdio};

    let shell = format!(
        "'{}' completions bash | true; echo \"${{PIPESTATUS[0]}}\"",
        env!("CARGO_BIN_EXE_x0x")
    );
    let output = Command::new("bash").arg("-c").arg(shell).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(stdout(&output), "0\n");
    assert_eq!(stderr(&output), "");
}
