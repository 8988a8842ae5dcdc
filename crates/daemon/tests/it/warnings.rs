//! What the owner is told of a configuration that cannot work.

use std::fs;

use serde_json::Value;
use x0x_agent::private_file::make_folder;
use x0x_daemon::Config;

use crate::support::{Node, eventually, stop};

async fn warns(node: &Node, of: &str) -> bool {
    let status = node.api.get("/status").await.json();
    let warnings = status["warnings"].as_array().expect("a list").clone();
    warnings.iter().filter_map(Value::as_str).any(|warning| warning.contains(of))
}

/// A copy, as on another machine: the keys themselves serve one daemon.
fn copy_keys(of: &Node, to: &Config) {
    let keys = Config::isolated(of.directory.path()).identity_dir;
    make_folder(&to.identity_dir).expect("a folder");
    for entry in fs::read_dir(keys).expect("the keys") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.identity_dir.join(entry.file_name())).expect("copied");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_network_is_named_as_long_as_nobody_takes_the_daemon_in() {
    let there = Node::start(&[]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::isolated(directory.path());
    config.bootstrap_peers = there.daemon.agent().local_addresses();
    config.network = Some("elsewhere".to_owned());
    let astray = Node::start_in(directory, config).await;
    eventually("the network is doubted", || warns(&astray, "`network`")).await;
    assert_eq!(astray.api.get("/status").await.json()["status"], "degraded");
    stop(vec![astray, there]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_daemons_with_the_same_keys_are_told_so() {
    let meeting = Node::start(&[]).await;
    let bootstrap = meeting.daemon.agent().local_addresses();
    let first = Node::start(&bootstrap).await;
    eventually("it has joined", || async { first.api.peers().await >= 1 }).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::isolated(directory.path());
    config.bootstrap_peers = bootstrap;
    copy_keys(&first, &config);
    let twin = Node::start_in(directory, config).await;
    eventually("one of them notices", || async {
        warns(&first, "this machine's keys").await || warns(&twin, "this machine's keys").await
    })
    .await;
    stop(vec![twin, first, meeting]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_its_keys_at_a_bootstrap_address_is_named() {
    let first = Node::start(&[]).await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut config = Config::isolated(directory.path());
    config.bootstrap_peers = first.daemon.agent().local_addresses();
    copy_keys(&first, &config);
    let twin = Node::start_in(directory, config).await;
    eventually("it is told", || warns(&twin, "own keys")).await;
    stop(vec![twin, first]).await;
}
