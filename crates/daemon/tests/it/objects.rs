//! Task lists and key-value stores that daemons share.

use std::{collections::BTreeMap, net::SocketAddr};

use serde_json::{Value, json};

use crate::{
    lifecycle::Process,
    support::{Answer, Api, EventStream, Node, Ws, eventually, stop},
};

fn base64(text: &str) -> String {
    data_encoding::BASE64.encode(text.as_bytes())
}

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

async fn agent_of(api: &Api) -> String {
    api.get("/agent").await.json()["agent_id"].as_str().expect("text").to_owned()
}

/// Creates or joins an object, and gives its id.
async fn create(api: &Api, path: &str, body: &Value) -> String {
    let answer = api.post(path, body).await;
    assert!([200, 201].contains(&answer.status), "{answer:?}");
    answer.json()["id"].as_str().expect("text").to_owned()
}

async fn add(api: &Api, list: &str, title: &str) -> String {
    let answer = api.post(&format!("/task-lists/{list}/tasks"), &json!({"title": title})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["task_id"].as_str().expect("text").to_owned()
}

async fn act(api: &Api, list: &str, task: &str, action: &str) -> Answer {
    let path = format!("/task-lists/{list}/tasks/{task}");
    with_body(api, "PATCH", &path, &json!({"action": action})).await
}

async fn tasks(api: &Api, list: &str) -> Vec<Value> {
    let answer = api.get(&format!("/task-lists/{list}/tasks")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["tasks"].as_array().expect("a list").clone()
}

async fn has_state(api: &Api, list: &str, task: &str, state: &str) {
    let what = format!("the task is {state}");
    eventually(&what, || async {
        tasks(api, list).await.iter().any(|found| found["id"] == task && found["state"] == state)
    })
    .await;
}

async fn put(api: &Api, store: &str, key: &str, text: &str) -> Answer {
    let path = format!("/stores/{store}/{key}");
    with_body(api, "PUT", &path, &json!({"value": base64(text)})).await
}

async fn value(api: &Api, store: &str, key: &str) -> Option<String> {
    let answer = api.get(&format!("/stores/{store}/{key}")).await;
    (answer.status == 200).then(|| answer.json()["value"].as_str().expect("text").to_owned())
}

async fn same_hash(one: &Api, two: &Api, path: &str) {
    eventually("both hold the same", || async {
        let (one, two) = (one.get(path).await.json(), two.get(path).await.json());
        one["hash"].is_string() && one["hash"] == two["hash"]
    })
    .await;
}

#[tokio::test]
async fn two_daemons_share_a_task_list() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let body = json!({"name": "Chores", "topic": "chores"});
    assert_eq!(one.api.post("/task-lists", &body).await.status, 201);
    assert_eq!(two.cli(&["tasks", "create", "Chores", "chores"]).await["id"], "chores");
    let listed = one.api.get("/task-lists").await.json();
    let expected = json!([{"id": "chores", "topic": "chores", "name": "Chores"}]);
    assert_eq!((&listed["ok"], &listed["task_lists"]), (&json!(true), &expected));
    let mut events = EventStream::open(&one.api, "/task-lists/chores/events", None).await;
    let id = add(&one.api, "chores", "paint the fence").await;
    has_state(&two.api, "chores", &id, "empty").await;
    let task = &tasks(&two.api, "chores").await[0];
    assert_eq!((&task["title"], &task["priority"]), (&json!("paint the fence"), &json!(128)));
    assert_eq!((&task["description"], &task["assignee"]), (&json!(""), &Value::Null));
    let early = act(&two.api, "chores", &id, "complete").await;
    assert_eq!((early.status, &early.json()["code"]), (409, &json!("conflict")));
    two.cli(&["tasks", "claim", "chores", &id]).await;
    let claimed = format!("claimed:{}", two.agent_id());
    has_state(&one.api, "chores", &id, &claimed).await;
    assert_eq!(act(&one.api, "chores", &id, "claim").await.status, 409, "somebody holds it");
    let edit = json!({"title": "paint it red", "labels": ["home"], "priority": 200});
    let path = format!("/task-lists/chores/tasks/{id}");
    assert_eq!(with_body(&one.api, "PATCH", &path, &edit).await.json()["task"]["priority"], 200);
    assert_eq!(act(&two.api, "chores", &id, "complete").await.status, 200);
    has_state(&one.api, "chores", &id, &format!("done:{}", two.agent_id())).await;
    let shown = one.api.get(&path).await.json();
    let actions: Vec<_> =
        shown["history"].as_array().expect("a list").iter().map(|step| &step["action"]).collect();
    assert_eq!(actions, ["add", "claim", "edit", "complete"]);
    for expected in ["added", "claimed", "edited", "completed"] {
        let event = events.next().await.expect("open");
        assert_eq!((&*event.name, &event.data["event"]), ("task", &json!(expected)));
        assert_eq!(
            (&event.data["task_id"], &event.data["list_id"]),
            (&json!(id), &json!("chores"))
        );
        assert!(event.id.is_some());
    }
    same_hash(&one.api, &two.api, "/task-lists/chores").await;
    assert_eq!(one.api.delete(&path).await.status, 200);
    eventually("it is gone there", || async { tasks(&two.api, "chores").await.is_empty() }).await;
    stop(nodes).await;
}

#[tokio::test]
async fn bad_requests_to_task_lists_are_told_apart() {
    let nodes = vec![Node::start(&[]).await];
    let api = &nodes[0].api;
    let list = create(api, "/task-lists", &json!({"name": "L", "topic": "l"})).await;
    let id = add(api, &list, "t").await;
    let path = format!("/task-lists/{list}/tasks/{id}");
    let unknown = format!("/task-lists/{list}/tasks/{}", "0".repeat(64));
    let cases = [
        ("PATCH", "/task-lists/none/tasks/x", json!({"action": "claim"}), 404, "not_found"),
        ("PATCH", "/task-lists/l/tasks/x", json!({"action": "claim"}), 400, "invalid_hex"),
        ("PATCH", &path, json!({"action": "dance"}), 400, "invalid_value"),
        ("PATCH", &path, json!({}), 400, "bad_request"),
        ("PATCH", &path, json!({"action": "claim", "title": "x"}), 400, "bad_request"),
        ("PATCH", &path, json!({"action": "claim", "lease_ms": 1}), 400, "invalid_value"),
        ("PATCH", &unknown, json!({"action": "claim"}), 404, "not_found"),
        ("POST", "/task-lists/l/tasks", json!({"title": " "}), 400, "bad_request"),
        ("POST", "/task-lists", json!({"name": "x", "topic": "a/b"}), 400, "invalid_topic"),
        (
            "POST",
            "/task-lists",
            json!({"name": "x", "topic": "x", "policy": "append_only"}),
            400,
            "invalid_value",
        ),
    ];
    for (method, path, body, status, code) in cases {
        let answer = with_body(api, method, path, &body).await;
        assert_eq!(
            (answer.status, &answer.json()["code"]),
            (status, &json!(code)),
            "{path} {body}"
        );
    }
    assert_eq!(api.delete("/task-lists/l").await.status, 200);
    assert_eq!(api.get("/task-lists/l/tasks").await.status, 404);
    stop(nodes).await;
}

#[tokio::test]
async fn stores_compare_and_show_conflicts() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let store = create(&one.api, "/stores", &json!({"name": "Notes", "topic": "notes"})).await;
    assert_eq!(store, "notes");
    assert_eq!(two.api.post("/stores/notes/join", &json!({})).await.status, 200);
    let mut events = EventStream::open(&two.api, "/stores/notes/watch?prefix=k", None).await;
    let first = put(&one.api, "notes", "key", "1").await;
    assert_eq!(first.status, 200, "{first:?}");
    let version = first.json()["version"].clone();
    eventually("it arrives", || async {
        value(&two.api, "notes", "key").await == Some(base64("1"))
    })
    .await;
    let event = events.next().await.expect("open");
    assert_eq!((&*event.name, &event.data["event"]), ("store", &json!("put")));
    assert_eq!(event.data["version"], version);
    let changes = |when: Value| json!({"value": base64("2"), "if_version": when});
    let path = "/stores/notes/key";
    let stale = with_body(&two.api, "PUT", path, &changes(json!("absent"))).await;
    assert_eq!((stale.status, &stale.json()["code"]), (409, &json!("conflict")));
    assert_eq!(with_body(&two.api, "PUT", path, &changes(version)).await.status, 200);
    eventually("the change arrives", || async {
        value(&one.api, "notes", "key").await == Some(base64("2"))
    })
    .await;
    let found = one.api.get(path).await.json();
    assert_eq!(found["content_type"], "application/octet-stream");
    assert_eq!(found["author"], two.agent_id());
    assert!(found["created_at"].as_u64() < found["updated_at"].as_u64());
    let keys = one.api.get("/stores/notes/keys").await.json();
    assert_eq!((&keys["keys"][0]["key"], &keys["keys"][0]["size"]), (&json!("key"), &json!(1)));
    let large = json!({"value": base64(&"x".repeat(65_537))});
    let large = with_body(&one.api, "PUT", path, &large).await;
    assert_eq!((large.status, &large.json()["code"]), (413, &json!("payload_too_large")));
    assert!(large.json()["error"].as_str().expect("text").contains("value too large"));
    two.cli(&["store", "rm", "notes", "key"]).await;
    eventually("it is deleted", || async { value(&one.api, "notes", "key").await.is_none() }).await;
    assert_eq!(one.api.delete(path).await.status, 404);
    assert_eq!(one.api.get("/stores/none/keys").await.status, 404);
    same_hash(&one.api, &two.api, "/stores/notes").await;
    stop(nodes).await;
}

#[tokio::test]
async fn watchers_go_on_where_they_were() {
    let node = Node::start(&[]).await;
    create(&node.api, "/stores", &json!({"name": "Notes", "topic": "notes"})).await;
    create(&node.api, "/task-lists", &json!({"name": "Chores", "topic": "chores"})).await;
    let mut ws = Ws::open(&node.api, "/ws").await;
    let watch = |kind: &str, object: &str| json!({"type": "watch", "kind": kind, "object": object});
    for (kind, object) in [("store", "notes"), ("task_list", "chores")] {
        ws.send(&watch(kind, object)).await;
        let watching = json!({"type": "watching", "kind": kind, "object": object});
        assert_eq!(ws.next().await, watching);
    }
    let mut events = EventStream::open(&node.api, "/stores/notes/watch", None).await;
    assert_eq!(put(&node.api, "notes", "a", "1").await.status, 200);
    let frame = ws.next().await;
    assert_eq!((&frame["type"], &frame["object"]), (&json!("object"), &json!("notes")));
    assert_eq!((&frame["event"]["key"], &frame["event"]["event"]), (&json!("a"), &json!("put")));
    let number = frame["number"].as_u64().expect("a number");
    let event = events.next().await.expect("open");
    assert_eq!(event.id.as_deref(), Some(number.to_string().as_str()), "one place for both");
    drop(events);

    for key in ["b", "c"] {
        assert_eq!(put(&node.api, "notes", key, "1").await.status, 200);
        assert_eq!(ws.next().await["event"]["key"], key);
    }
    let after = number.to_string();
    let mut events = EventStream::open(&node.api, "/stores/notes/watch", Some(&after)).await;
    for key in ["b", "c"] {
        assert_eq!(events.next().await.expect("open").data["key"], key, "nothing was missed");
    }
    let mut again = watch("store", "notes");
    again["after"] = json!(number + 1);
    ws.send(&again).await;
    assert_eq!(ws.next().await["type"], "watching");
    assert_eq!(ws.next().await["event"]["key"], "c");
    let mut unknown = EventStream::open(&node.api, "/stores/notes/watch", Some("7")).await;
    assert_eq!(unknown.next().await.expect("open").name, "lagged", "a place of another run");

    let title = json!({"title": "Sweep"});
    assert_eq!(node.api.post("/task-lists/chores/tasks", &title).await.status, 201);
    assert_eq!(ws.next().await["event"]["event"], "added");
    ws.send(&json!({"type": "unwatch", "kind": "store", "object": "notes"})).await;
    assert_eq!(ws.next().await["type"], "unwatched");
    assert_eq!(put(&node.api, "notes", "d", "1").await.status, 200);
    ws.send(&watch("store", "none")).await;
    let failed = ws.next().await;
    assert_eq!((&failed["type"], &failed["code"]), (&json!("error"), &json!("not_found")));
    stop(vec![node]).await;
}

#[tokio::test]
async fn only_writers_write() {
    let nodes = Node::cluster(2).await;
    let [one, two] = &nodes[..] else { unreachable!("two nodes") };
    let body = json!({"name": "Mine", "topic": "mine", "policy": "signed"});
    let store = create(&one.api, "/stores", &body).await;
    assert_eq!(store, format!("mine@{}", one.agent_id()));
    assert_eq!(create(&two.api, &format!("/stores/{store}/join"), &json!({})).await, store);
    assert_eq!(put(&one.api, "mine", "key", "1").await.status, 200, "by its topic, too");
    eventually("it arrives", || async { value(&two.api, &store, "key").await.is_some() }).await;
    let refused = put(&two.api, &store, "key", "2").await;
    assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("not_permitted")));
    let policy = format!("/stores/{store}/policy");
    let grant = json!({"add_writers": [two.agent_id()]});
    assert_eq!(two.api.post(&policy, &grant).await.status, 403, "the owner decides");
    let status = one.api.post(&policy, &grant).await.json();
    assert_eq!(
        (&status["policy"], &status["writers"]),
        (&json!("allowlisted"), &json!([two.agent_id()]))
    );
    eventually("it may write", || async { put(&two.api, &store, "key", "2").await.status == 200 })
        .await;
    eventually("the owner has it", || async {
        value(&one.api, &store, "key").await == Some(base64("2"))
    })
    .await;
    let revoke = json!({"remove_writers": [two.agent_id()]});
    assert_eq!(one.api.post(&policy, &revoke).await.status, 200);
    eventually("it may not any more", || async {
        put(&two.api, &store, "key", "3").await.status == 403
    })
    .await;
    let own = json!({"name": "Each", "topic": "each", "policy": "self_keyed"});
    let each = create(&one.api, "/stores", &own).await;
    create(&two.api, &format!("/stores/{each}/join"), &json!({})).await;
    let key = format!("{}%2Fnote", two.agent_id());
    eventually("its own keys are its own", || async {
        put(&two.api, &each, &key, "x").await.status == 200
    })
    .await;
    assert_eq!(put(&one.api, &each, &key, "y").await.status, 403);
    let sealed = json!({"name": "S", "topic": "s", "policy": "encrypted"});
    let sealed = one.api.post("/stores", &sealed).await;
    assert_eq!((sealed.status, &sealed.json()["code"]), (409, &json!("needs_group")));
    stop(nodes).await;
}

#[tokio::test]
async fn who_joins_late_gets_everything() {
    let first = Node::start(&[]).await;
    let list = create(&first.api, "/task-lists", &json!({"name": "L", "topic": "late"})).await;
    for n in 0..50 {
        add(&first.api, &list, &n.to_string()).await;
    }
    let second = Node::start(&first.daemon.agent().local_addresses()).await;
    create(&second.api, "/task-lists", &json!({"name": "L", "topic": "late"})).await;
    eventually("all tasks are there", || async { tasks(&second.api, &list).await.len() == 50 })
        .await;
    let mut found = Vec::new();
    let mut path = format!("/task-lists/{list}/tasks?limit=20");
    loop {
        let page = second.api.get(&path).await.json();
        found.extend(page["tasks"].as_array().expect("a list").iter().cloned());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/task-lists/{list}/tasks?limit=20&cursor={next}");
    }
    let titles: Vec<_> = found.iter().map(|task| task["title"].as_str().expect("text")).collect();
    assert_eq!(titles, (0..50).map(|n| n.to_string()).collect::<Vec<_>>(), "in order");
    stop(vec![first, second]).await;
}

#[tokio::test]
async fn a_kill_loses_no_acknowledged_write() {
    let mut process = Process::spawn(&[]).await;
    let body = json!({"name": "Kept", "topic": "kept", "policy": "append_only"});
    let store = create(&process.api(), "/stores", &body).await;
    let list = create(&process.api(), "/task-lists", &json!({"name": "L", "topic": "l"})).await;
    let mut keys = Vec::new();
    for round in 0..3 {
        for n in 0..20 {
            let key = format!("{round}-{n:02}");
            assert_eq!(put(&process.api(), &store, &key, &key).await.status, 200);
            keys.push(key);
        }
        add(&process.api(), &list, &round.to_string()).await;
        process.kill();
        process.restart(&[]).await;
        let api = process.api();
        let path = format!("/stores/{store}/keys");
        let found = api.get(&path).await.json();
        let found = found["keys"].as_array().unwrap_or_else(|| panic!("no keys: {found}"));
        let found: Vec<_> = found.iter().map(|key| key["key"].as_str().expect("text")).collect();
        assert_eq!(found, keys);
        assert_eq!(tasks(&api, &list).await.len(), round + 1);
    }
    let names = process.api().get("/stores").await.json();
    assert_eq!(names["stores"][0]["name"], "Kept");
    assert_eq!(put(&process.api(), &store, "0-00", "again").await.status, 403, "values stay");
    assert_eq!(process.terminate().await, Some(0));
}

#[tokio::test]
async fn of_two_claims_in_a_partition_one_holds_and_the_other_is_told() {
    let mut one = Process::spawn(&[]).await;
    let mut two = Process::spawn(&address_of(&one.api()).await).await;
    let body = json!({"name": "L", "topic": "claims"});
    let list = create(&one.api(), "/task-lists", &body).await;
    create(&two.api(), "/task-lists", &body).await;
    let id = add(&one.api(), &list, "contested").await;
    has_state(&two.api(), &list, &id, "empty").await;
    // Each claims it while the other one is away.
    two.kill();
    let first = agent_of(&one.api()).await;
    assert_eq!(act(&one.api(), &list, &id, "claim").await.status, 200);
    one.kill();
    two.restart(&[]).await;
    let (loser, api) = (agent_of(&two.api()).await, two.api());
    assert_eq!(
        act(&api, &list, &id, "claim").await.status,
        200,
        "nobody holds it as far as it knows"
    );
    let mut events = EventStream::open(&api, &format!("/task-lists/{list}/events"), None).await;
    one.restart(&address_of(&api).await).await;
    let lost = loop {
        let event = events.next().await.expect("open");
        if event.data["event"] == "claim_lost" {
            break event.data;
        }
    };
    assert_eq!((&lost["agent"], &lost["holder"]), (&json!(loser), &json!(first)));
    for api in [one.api(), two.api()] {
        has_state(&api, &list, &id, &format!("claimed:{first}")).await;
        eventually("who lost is shown", || async {
            tasks(&api, &list).await[0]["claim"]["lost"] == json!([loser])
        })
        .await;
    }
    assert_eq!(act(&two.api(), &list, &id, "claim").await.status, 409);
    assert_eq!(one.terminate().await, Some(0));
    assert_eq!(two.terminate().await, Some(0));
}

/// Of what the process holds, what was put last.
async fn holds(api: &Api, store: &str, values: &BTreeMap<String, String>) {
    eventually("what was acknowledged is there", || async {
        for (key, text) in values {
            if value(api, store, key).await != Some(base64(text)) {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test]
async fn an_object_outlives_its_log_and_kills_of_its_owner() {
    let beside = Node::start(&[]).await;
    let bootstrap = beside.daemon.agent().local_addresses();
    let mut owner = Process::spawn(&bootstrap).await;
    let body = json!({"name": "Long", "topic": "long", "policy": "signed"});
    let store = create(&owner.api(), "/stores", &body).await;
    create(&beside.api, &format!("/stores/{store}/join"), &json!({})).await;
    let path = format!("/stores/{store}");
    let checkpoint = |api: Api| {
        let path = path.clone();
        async move { api.get(&path).await.json()["checkpoint"].as_u64().unwrap_or(0) }
    };
    let (mut values, mut puts) = (BTreeMap::new(), 0_usize);
    for number in 1..=3 {
        while checkpoint(owner.api()).await < number {
            let (key, text) = ((puts % 4).to_string(), format!("{puts:>49152}"));
            assert_eq!(put(&owner.api(), &store, &key, &text).await.status, 200);
            values.insert(key, text);
            puts += 1;
            assert!(puts < 500, "no checkpoint {number}");
        }
        owner.kill();
        owner.restart(&bootstrap).await;
        holds(&owner.api(), &store, &values).await;
        eventually("the checkpoint is kept", || async { checkpoint(owner.api()).await >= number })
            .await;
        same_hash(&owner.api(), &beside.api, &path).await;
    }
    assert!(checkpoint(beside.api.clone()).await >= 3);
    // What the second checkpoint covers is not in the log any more.
    let late = Node::start(&address_of(&owner.api()).await).await;
    create(&late.api, &format!("/stores/{store}/join"), &json!({})).await;
    holds(&late.api, &store, &values).await;
    same_hash(&owner.api(), &late.api, &path).await;
    assert_eq!(put(&owner.api(), &store, "last", "one").await.status, 200);
    values.insert("last".to_owned(), "one".to_owned());
    for node in [&beside, &late] {
        holds(&node.api, &store, &values).await;
    }
    stop(vec![beside, late]).await;
    assert_eq!(owner.terminate().await, Some(0));
}
