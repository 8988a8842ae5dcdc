//! Stores and a task list that daemons share, while daemons are killed or cut off from one another.

pub(super) mod kills;
pub(super) mod split;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;
use crate::http::{Answer, Http};
use crate::node::Node;

/// Stores of a run. The log of an object is bounded, and what is written alone takes a signature of its own there.
const STORES: usize = 4;
/// Most writes to one object in a run: within its log, each with a signature.
const MAX_WRITES: u64 = 3500;
/// The task list.
const LIST: &str = "/task-lists/lab-tasks";
/// How long one call may take.
const CALL: Duration = Duration::from_secs(10);
/// How often replicas are looked at while they are to become equal.
const LOOK: Duration = Duration::from_millis(20);

fn store(number: u64) -> String {
    format!("/stores/lab-{}", number % STORES as u64)
}

/// All objects by their paths.
fn objects() -> Vec<String> {
    (0..STORES as u64).map(store).chain([LIST.to_owned()]).collect()
}

/// Creates or joins all objects on a daemon.
async fn join(node: &Node) -> Result<()> {
    let mut http = node.http().await?;
    for object in objects() {
        let (kind, topic) = object.rsplit_once('/').context("a path")?;
        let body = json!({"name": topic, "topic": topic});
        let answer = send(&mut http, "POST", kind, &body).await?;
        if !matches!(answer.status, 200 | 201) {
            bail!("{object} was not created: {}", String::from_utf8_lossy(&answer.body));
        }
    }
    Ok(())
}

async fn send(http: &mut Http, method: &str, path: &str, body: &Value) -> Result<Answer> {
    let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
    timeout(CALL, http.send(method, path, &body)).await?
}

async fn put(http: &mut Http, number: u64, key: &str, text: &str) -> Result<Answer> {
    let body = json!({"value": x0x_api::Base64::encode(text.as_bytes())});
    send(http, "PUT", &format!("{}/{key}", store(number)), &body).await
}

/// The hash of each object on a daemon, while it says them.
async fn hashes(node: &Node) -> Result<Vec<String>> {
    let mut http = node.http().await?;
    let mut found = Vec::new();
    for object in objects() {
        let answer = send(&mut http, "GET", &object, &Value::Null).await?;
        let status: Value = answer.read()?;
        let hash = status["hash"].as_str().with_context(|| format!("{object} has no hash"))?;
        found.push(hash.to_owned());
    }
    Ok(found)
}

/// Waits until all daemons hold the same of all objects. None when that took too long.
async fn equal(nodes: &[&Node]) -> Option<Duration> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        let found = futures_util::future::join_all(nodes.iter().map(|node| hashes(node))).await;
        let found: Option<BTreeSet<Vec<String>>> = found.into_iter().map(Result::ok).collect();
        if found.is_some_and(|found| found.len() == 1) {
            return Some(since.elapsed());
        }
        sleep(LOOK).await;
    }
    None
}

/// All items of a listing.
async fn all(node: &Node, path: &str, field: &str) -> Result<Vec<Value>> {
    let mut http = node.http().await?;
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = format!("{path}?limit=1000{cursor}");
        let page: Value = send(&mut http, "GET", &page, &Value::Null).await?.read()?;
        items.extend(page[field].as_array().context("a list")?.iter().cloned());
        let Some(next) = page["next"].as_str() else { return Ok(items) };
        cursor = format!("&cursor={next}");
    }
}

/// Keys of all stores on a daemon, each with its store.
async fn keys(node: &Node) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for number in 0..STORES as u64 {
        let path = store(number);
        for item in all(node, &format!("{path}/keys"), "keys").await? {
            found.insert(format!("{path}/{}", item["key"].as_str().context("a key")?));
        }
    }
    Ok(found)
}

/// Ids of the tasks on a daemon.
async fn tasks(node: &Node) -> Result<BTreeSet<String>> {
    let found = all(node, &format!("{LIST}/tasks"), "tasks").await?;
    let id = |task: &Value| Some(task["id"].as_str()?.to_owned());
    found.iter().map(|task| id(task).context("a task without id")).collect()
}
