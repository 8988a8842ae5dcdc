//! Named groups over daemons: founded, joined by a link, talked in, left, and had again after a crash.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    lifecycle::Process,
    support::{Answer, Api, EventStream, Node, eventually, stop, within},
};

async fn with_body(api: &Api, method: &str, path: &str, body: &Value) -> Answer {
    let mut headers = api.headers();
    headers.push(("Content-Type".to_owned(), "application/json".to_owned()));
    api.send(method, path, &headers, body.to_string().as_bytes()).await
}

async fn address_of(api: &Api) -> Vec<SocketAddr> {
    let status = api.get("/status").await.json();
    let all = status["external_addrs"].as_array().expect("a list").iter();
    all.map(|address| address.as_str().expect("text").parse().expect("an address")).collect()
}

async fn ok(answer: impl Future<Output = Answer>) -> Value {
    let answer = answer.await;
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    answer.json()
}

async fn found(api: &Api, name: &str, preset: &str) -> String {
    let body = json!({"name": name, "preset": preset, "display_name": "First"});
    ok(api.post("/groups", &body)).await["group_id"].as_str().expect("text").to_owned()
}

async fn invite(api: &Api, group: &str, uses: u32) -> String {
    let answer = ok(api.post(&format!("/groups/{group}/invite"), &json!({"uses": uses}))).await;
    answer["invite_link"].as_str().expect("text").to_owned()
}

async fn join(api: &Api, invite: &str) -> Answer {
    api.post("/groups/join", &json!({"invite": invite})).await
}

async fn say(api: &Api, group: &str, text: &str) {
    ok(api.post(&format!("/groups/{group}/send"), &json!({"body": text}))).await;
}

/// What is read in a group here, in its order.
async fn read(api: &Api, group: &str) -> Vec<String> {
    let answer = api.get(&format!("/groups/{group}/messages")).await;
    let json = answer.json();
    let texts = json["messages"].as_array().into_iter().flatten();
    texts.map(|text| text["body"].as_str().expect("text").to_owned()).collect()
}

async fn reads(api: &Api, group: &str, text: &str) {
    let what = format!("{text:?} is read");
    eventually(&what, || async { read(api, group).await.iter().any(|known| known == text) }).await;
}

async fn state_of(api: &Api, group: &str) -> Value {
    api.get(&format!("/groups/{group}/state")).await.json()
}

async fn agree(nodes: &[&Api], group: &str) {
    eventually("all have the same state and keys", || async {
        let mut seen = Vec::new();
        for api in nodes {
            let state = state_of(api, group).await;
            seen.push((state["state_hash"].clone(), state["security_binding"].clone()));
        }
        seen[0].0.is_string() && seen.iter().all(|state| *state == seen[0])
    })
    .await;
}

async fn members(api: &Api, group: &str) -> u64 {
    let answer = api.get(&format!("/groups/{group}/members")).await;
    answer.json()["member_count"].as_u64().unwrap_or(0)
}

#[tokio::test]
async fn three_daemons_talk_in_an_encrypted_group() {
    let nodes = Node::cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!("three nodes") };
    let mut events = EventStream::open(&two.api, "/groups/events", None).await;
    let group = found(&one.api, "Birds", "private_secure").await;
    let link = invite(&one.api, &group, 1).await;
    let joined = ok(join(&two.api, &link)).await;
    assert_eq!((&joined["group_id"], &joined["group_name"]), (&json!(group), &json!("Birds")));
    let again = join(&three.api, &link).await;
    assert_eq!((again.status, &again.json()["code"]), (403, &json!("recipient_rejected")));
    let link = invite(&one.api, &group, 5).await;
    ok(join(&three.api, &link)).await;
    agree(&[&one.api, &two.api, &three.api], &group).await;
    assert_eq!(members(&one.api, &group).await, 3);
    for (from, text) in [(one, "from one"), (two, "from two"), (three, "from three")] {
        say(&from.api, &group, text).await;
        for to in &nodes {
            reads(&to.api, &group, text).await;
        }
    }
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let event = events.next().await.expect("open");
        if event.data["event"] == "message" {
            heard.push(event.data["body"].as_str().expect("text").to_owned());
        }
    }
    assert_eq!(heard, ["from one", "from three"]);

    // Who is removed reads nothing more.
    let path = format!("/groups/{group}/members/{}", three.agent_id());
    ok(one.api.delete(&path)).await;
    agree(&[&one.api, &two.api], &group).await;
    say(&one.api, &group, "without three").await;
    reads(&two.api, &group, "without three").await;
    assert!(!read(&three.api, &group).await.contains(&"without three".to_owned()));
    let refused = three.api.post(&format!("/groups/{group}/send"), &json!({"body": "x"})).await;
    assert!(refused.status >= 400, "{refused:?}");
    stop(nodes).await;
}

#[tokio::test]
async fn roles_bans_and_requests_are_ruled_by_the_policy() {
    let nodes = Node::cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!("three nodes") };
    let group = found(&one.api, "Club", "public_request_secure").await;
    // It asks a member that it knows, who has to approve.
    let path = format!("/groups/{group}/requests");
    let body = json!({"member": one.agent_id(), "message": "please"});
    let asked = ok(two.api.post(&path, &body)).await;
    let request = asked["request_id"].as_str().expect("text").to_owned();
    eventually("the request is there", || async {
        one.api.get(&path).await.json()["requests"][0]["status"] == "pending"
    })
    .await;
    ok(one.api.post(&format!("{path}/{request}/approve"), &json!({}))).await;
    agree(&[&one.api, &two.api], &group).await;
    let twice = one.api.post(&format!("{path}/{request}/approve"), &json!({})).await;
    assert_eq!(twice.status, 409, "{twice:?}");
    // A member is no admin until it is made one.
    let ban = format!("/groups/{group}/ban/{}", three.agent_id());
    let refused = two.api.post(&ban, &json!({})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("not_permitted")));
    let role = format!("/groups/{group}/members/{}/role", two.agent_id());
    ok(with_body(&one.api, "PATCH", &role, &json!({"role": "admin"}))).await;
    agree(&[&one.api, &two.api], &group).await;
    let link = invite(&one.api, &group, 3).await;
    ok(two.api.post(&ban, &json!({}))).await;
    agree(&[&one.api, &two.api], &group).await;
    let banned = join(&three.api, &link).await;
    assert_eq!(banned.status, 403, "{banned:?}");
    ok(two.api.delete(&ban)).await;
    agree(&[&one.api, &two.api], &group).await;
    ok(join(&three.api, &link)).await;
    agree(&[&one.api, &two.api, &three.api], &group).await;
    // Who leaves is gone for the others, whose keys are others then.
    ok(three.api.delete(&format!("/groups/{group}"))).await;
    eventually("it is gone", || async { members(&one.api, &group).await == 2 }).await;
    agree(&[&one.api, &two.api], &group).await;
    assert_eq!(three.api.get(&format!("/groups/{group}")).await.status, 404);
    stop(nodes).await;
}

#[tokio::test]
async fn a_public_group_is_read_as_it_is_signed() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let group = found(&one.api, "News", "public_announce").await;
    let link = invite(&one.api, &group, 1).await;
    ok(join(&two.api, &link)).await;
    let body = json!({"body": "first", "kind": "announcement"});
    ok(one.api.post(&format!("/groups/{group}/send"), &body)).await;
    reads(&two.api, &group, "first").await;
    let refused = two.api.post(&format!("/groups/{group}/send"), &json!({"body": "no"})).await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("not_permitted")));
    stop(nodes).await;
}

#[tokio::test]
async fn a_killed_member_comes_back_into_its_group() {
    let mut one = Process::spawn(&[]).await;
    let two = Node::start(&address_of(&one.api()).await).await;
    eventually("they meet", || async { two.api.peers().await == 1 }).await;
    let group = found(&one.api(), "Kept", "private_secure").await;
    let link = invite(&one.api(), &group, 1).await;
    ok(join(&two.api, &link)).await;
    agree(&[&one.api(), &two.api], &group).await;
    say(&one.api(), &group, "before").await;
    reads(&two.api, &group, "before").await;
    one.kill();
    one.restart(&address_of(&two.api).await).await;
    let api = one.api();
    reads(&api, &group, "before").await;
    eventually("they meet again", || async { two.api.peers().await == 1 }).await;
    agree(&[&api, &two.api], &group).await;
    say(&api, &group, "after").await;
    reads(&two.api, &group, "after").await;
    say(&two.api, &group, "answer").await;
    reads(&api, &group, "answer").await;
    stop(vec![two]).await;
}

#[tokio::test]
async fn bad_requests_to_groups_are_told_apart() {
    let nodes = vec![Node::start(&[]).await];
    let api = &nodes[0].api;
    let group = found(api, "G", "private_secure").await;
    let unknown = format!("/groups/{}", "0".repeat(64));
    assert_eq!(api.get(&unknown).await.status, 404);
    assert_eq!(api.get("/groups/xyz").await.json()["code"], "invalid_hex");
    let cases = [
        ("POST", "/groups".to_owned(), json!({"name": ""}), 400),
        ("POST", "/groups".to_owned(), json!({"name": "x", "preset": "nope"}), 400),
        ("POST", "/groups/join".to_owned(), json!({"invite": "x0x://invite/!"}), 400),
        ("POST", format!("/groups/{group}/send"), json!({}), 400),
        ("POST", format!("/groups/{group}/members"), json!({"agent_id": "zz"}), 400),
        ("PATCH", format!("/groups/{group}/policy"), json!({"admission": "nope"}), 400),
    ];
    for (method, path, body, status) in cases {
        let answer = with_body(api, method, &path, &body).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {answer:?}");
        assert_eq!(answer.json()["ok"], json!(false));
    }
    stop(nodes).await;
}

async fn all_read(nodes: &[&Node], group: &str, text: &str) {
    for node in nodes {
        reads(&node.api, group, text).await;
    }
}

async fn has_none(node: &Node, group: &str, texts: &[&str]) {
    let known = read(&node.api, group).await;
    assert!(texts.iter().all(|text| !known.iter().any(|known| known == text)), "{known:?}");
}

/// Who is removed with a copy of its keys, banned, gone by itself, or back by another invite: each reads what was
/// written while it was in, and nothing else.
#[tokio::test]
async fn eight_daemons_read_what_was_written_while_they_were_in() {
    let mut nodes = Node::cluster(8).await;
    let group = found(&nodes[0].api, "Eight", "private_secure").await;
    let link = invite(&nodes[0].api, &group, 6).await;
    for node in &nodes[1..7] {
        ok(join(&node.api, &link)).await;
    }
    let apis: Vec<&Api> = nodes[..7].iter().map(|node| &node.api).collect();
    agree(&apis, &group).await;
    say(&nodes[3].api, &group, "of seven").await;
    all_read(&nodes[..7].iter().collect::<Vec<_>>(), &group, "of seven").await;
    // An admin that was promoted invites the last one, who reads nothing earlier.
    let role = format!("/groups/{group}/members/{}/role", nodes[1].agent_id());
    ok(with_body(&nodes[0].api, "PATCH", &role, &json!({"role": "admin"}))).await;
    agree(&apis, &group).await;
    let last = invite(&nodes[1].api, &group, 3).await;
    ok(join(&nodes[7].api, &last)).await;
    agree(&nodes.iter().map(|node| &node.api).collect::<Vec<_>>(), &group).await;
    for (n, node) in nodes.iter().enumerate() {
        say(&node.api, &group, &format!("by {n}")).await;
    }
    for n in 0..8 {
        all_read(&nodes.iter().collect::<Vec<_>>(), &group, &format!("by {n}")).await;
    }
    has_none(&nodes[7], &group, &["of seven"]).await;

    // The last one is removed while it is away: what it comes back with is all that it had as a member.
    let Node { daemon, directory, .. } = nodes.pop().expect("eight");
    let gone = daemon.agent().agent_id().to_string();
    within("it stops", daemon.shutdown()).await;
    ok(nodes[1].api.delete(&format!("/groups/{group}/members/{gone}"))).await;
    let banned = format!("/groups/{group}/ban/{}", nodes[6].agent_id());
    ok(nodes[1].api.post(&banned, &json!({}))).await;
    ok(nodes[5].api.delete(&format!("/groups/{group}"))).await;
    let stay: Vec<&Node> = nodes[..5].iter().collect();
    eventually("three are gone", || async { members(&nodes[0].api, &group).await == 5 }).await;
    let apis: Vec<&Api> = stay.iter().map(|node| &node.api).collect();
    agree(&apis, &group).await;
    say(&nodes[0].api, &group, "of five").await;
    all_read(&stay, &group, "of five").await;
    let mut config = x0x_daemon::Config::isolated(directory.path());
    config.bootstrap_peers = nodes[0].daemon.agent().local_addresses();
    let thief = Node::start_in(directory, config).await;
    eventually("it hears that it is removed", || async {
        let answer = thief.api.get(&format!("/groups/{group}/members")).await.json();
        let known = answer["members"].as_array().cloned().unwrap_or_default();
        !known.is_empty() && known.iter().all(|member| member["agent_id"] != json!(gone))
    })
    .await;
    // Whoever left comes back; whoever is banned does not.
    ok(join(&nodes[5].api, &last)).await;
    assert_eq!(join(&nodes[6].api, &last).await.status, 403);
    let stay: Vec<&Node> = nodes[..6].iter().collect();
    agree(&stay.iter().map(|node| &node.api).collect::<Vec<_>>(), &group).await;
    say(&nodes[4].api, &group, "of six").await;
    all_read(&stay, &group, "of six").await;
    all_read(&stay[..5], &group, "of seven").await;
    has_none(&nodes[5], &group, &["of seven", "by 0", "of five"]).await;
    has_none(&nodes[6], &group, &["of five", "of six"]).await;
    has_none(&thief, &group, &["of seven", "of five", "of six"]).await;
    reads(&thief.api, &group, "by 7").await;
    nodes.push(thief);
    stop(nodes).await;
}

/// Who came later reads what was written while the policy said so, and is told that a member handed it over.
#[tokio::test]
async fn who_comes_later_is_handed_what_the_policy_shares() {
    let nodes = Node::cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!("three nodes") };
    let group = found(&one.api, "Past", "private_secure").await;
    let link = invite(&one.api, &group, 2).await;
    ok(join(&two.api, &link)).await;
    agree(&[&one.api, &two.api], &group).await;
    say(&one.api, &group, "in confidence").await;
    reads(&two.api, &group, "in confidence").await;
    let path = format!("/groups/{group}/policy");
    let body = json!({"shares_history": true, "invite_role": "moderator"});
    ok(with_body(&one.api, "PATCH", &path, &body)).await;
    agree(&[&one.api, &two.api], &group).await;
    let told = one.api.get(&format!("/groups/{group}")).await.json();
    let policy = &told["policy"];
    assert_eq!(
        (&policy["shares_history"], &policy["invite_role"]),
        (&json!(true), &json!("moderator"))
    );
    let nobody = with_body(&one.api, "PATCH", &path, &json!({"invite_role": "guest"})).await;
    assert_eq!((nobody.status, &nobody.json()["code"]), (400, &json!("invalid_value")));
    for text in ["first", "second"] {
        say(&two.api, &group, text).await;
        reads(&one.api, &group, text).await;
    }
    let mut events = EventStream::open(&three.api, "/groups/events", None).await;
    ok(join(&three.api, &link)).await;
    eventually("what was before is here", || async {
        read(&three.api, &group).await == ["first", "second"]
    })
    .await;
    let handed = loop {
        let event = events.next().await.expect("an event").data;
        if event["event"] == json!("history") {
            break event;
        }
    };
    assert!(handed["author_agent_id"].is_string(), "{handed}");
    say(&three.api, &group, "third").await;
    reads(&one.api, &group, "third").await;
    let known = three.api.get(&format!("/groups/{group}/messages")).await.json();
    let known = known["messages"].as_array().expect("a list").clone();
    assert!(known[..2].iter().all(|text| text["author_agent_id"] == json!(two.agent_id())));
    assert!(known[..2].iter().all(|text| text["handed_by"].is_string()));
    assert_eq!((&known[2]["body"], &known[2]["handed_by"]), (&json!("third"), &json!(null)));
    stop(nodes).await;
}

/// Whoever is blocked here is not read here, and is again when it is not blocked any more; whose key is revoked
/// is removed by a member that may.
#[tokio::test]
async fn the_blocked_are_not_read_and_the_revoked_are_put_out() {
    let nodes = Node::cluster(3).await;
    let [one, two, three] = &nodes[..] else { unreachable!("three nodes") };
    let group = found(&one.api, "Trust", "private_secure").await;
    let link = invite(&one.api, &group, 2).await;
    for node in [two, three] {
        ok(join(&node.api, &link)).await;
    }
    let all = [&one.api, &two.api, &three.api];
    agree(&all, &group).await;
    let mut events = EventStream::open(&one.api, "/groups/events", None).await;
    let level = async |level: &str| {
        let body = json!({"agent_id": two.agent_id(), "level": level});
        assert_eq!(one.api.post("/contacts/trust", &body).await.status, 200);
    };
    level("blocked").await;
    say(&two.api, &group, "from the blocked").await;
    reads(&three.api, &group, "from the blocked").await;
    say(&three.api, &group, "from the other").await;
    reads(&one.api, &group, "from the other").await;
    let told = loop {
        let event = events.next().await.expect("an event").data;
        if event["event"] == json!("message") {
            break event;
        }
    };
    assert_eq!(told["body"], json!("from the other"));
    has_none(one, &group, &["from the blocked"]).await;
    level("known").await;
    reads(&one.api, &group, "from the blocked").await;

    let id = three.agent_id();
    let revoke = json!({"what": "agent", "id": id, "reason": "stolen"});
    assert_eq!(three.api.post("/identity/revoke", &revoke).await.status, 200);
    eventually("the revoked one is out", || async { members(&one.api, &group).await == 2 }).await;
    agree(&all[..2], &group).await;
    say(&one.api, &group, "without the revoked").await;
    reads(&two.api, &group, "without the revoked").await;
    has_none(three, &group, &["without the revoked"]).await;
    has_none(one, &group, &["from the other"]).await;
    stop(nodes).await;
}
