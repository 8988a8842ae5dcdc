//! Transfers between machines, over real sessions in memory and in virtual time.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use x0x_files::{
    AcceptRule, Change, ChangeTransferError, FilesConfig, Phase, SendFile, SendFileError,
    TransferId, Waiting,
    testing::{Fault, Hold, MemoryStore, Peer, agent, connect, pair, peer, peer_with},
    tree::GROUP,
};
use x0x_transport::{
    Transport as _,
    testing::{LinkModel, MemoryNetwork, eventually},
};
use x0x_trust::Reason;

fn content(groups: u64, extra: u64) -> Vec<u8> {
    let len = groups * GROUP + extra;
    (0..len).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

async fn offered(bob: &Peer, id: TransferId) {
    bob.wait_for(id, "the offer arrives", |info| info.record.phase == Phase::Offered).await;
}

async fn complete(peer: &Peer, id: TransferId) {
    peer.wait_for(id, "the transfer completes", |info| info.record.phase == Phase::Complete).await;
}

const ACCEPT: Change = Change::Accept { folder: None };

#[tokio::test(start_paused = true)]
async fn files_of_any_size_arrive_whole_beside_what_is_there() {
    let (alice, bob) = pair(1).await;
    bob.disk.put("/downloads/f.bin", b"mine");
    for (n, (groups, extra)) in
        [(0, 0), (0, 1), (1, 0), (1, 1), (3, 77), (130, 5)].into_iter().enumerate()
    {
        let bytes = content(groups, extra);
        alice.disk.put("/home/f.bin", bytes.clone());
        let id = alice.files.send(SendFile::new(bob.agent, "/home/f.bin")).await.expect("sent");
        offered(&bob, id).await;
        bob.files.change(id, ACCEPT).await.expect("accepted");
        complete(&bob, id).await;
        complete(&alice, id).await;
        let path = format!("/downloads/f ({}).bin", n + 2);
        assert_eq!(bob.disk.get(&path), Some(bytes), "{groups} groups and {extra} bytes");
        let info = bob.files.transfer(id).await.expect("known");
        assert_eq!(info.record.output.as_deref(), Some(Path::new(&path)));
        assert_eq!(
            (info.verified, info.record.size),
            (groups * GROUP + extra, groups * GROUP + extra)
        );
    }
    assert_eq!(bob.disk.get("/downloads/f.bin"), Some(b"mine".to_vec()));
    let left = bob.disk.paths().into_iter().filter(|p| p.to_string_lossy().contains("/."));
    assert_eq!(left.count(), 0, "no parts stay");
    let metrics = bob.files.metrics();
    assert_eq!(metrics.bytes_stored.value(), alice.files.metrics().bytes_sent.value());
    assert_eq!((metrics.received.value(), metrics.unasked.value()), (6, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_killed_at_any_write_goes_on_where_it_was() {
    let bytes = content(9, 5);
    let mut kills = 0;
    for write in 0..60 {
        let network = MemoryNetwork::new(write, LinkModel::default());
        let alice = peer(&network, 1, MemoryStore::new()).await;
        let mut bob = peer(&network, 2, MemoryStore::new()).await;
        connect(&alice, 2).await;
        alice.disk.put("/f", bytes.clone());
        let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
        offered(&bob, id).await;
        let (cut, dead) = (network.clone(), bob.machine);
        bob.disk.on_crash(move || cut.kill(dead));
        bob.disk.fail_after(write, Fault::Crash);
        // Whether that is still answered depends on the write.
        let _ = bob.files.change(id, ACCEPT).await;
        let mut stored = 0;
        let disk = bob.disk.clone();
        eventually("a crash or the end", async || {
            let info = bob.files.transfer(id).await;
            disk.has_crashed() || info.is_some_and(|info| info.record.phase == Phase::Complete)
        })
        .await;
        if bob.disk.has_crashed() {
            kills += 1;
            stored += bob.files.metrics().bytes_stored.value();
            let disk = bob.kill(&network).await;
            eventually("the loss shows", async || alice.node.session(dead).is_none()).await;
            bob = peer(&network, 2, disk).await;
            connect(&alice, 2).await;
            bob.wait_for(id, "the offer is there again", |_| true).await;
            if bob.files.transfer(id).await.is_some_and(|info| info.record.phase == Phase::Offered)
            {
                bob.files.change(id, ACCEPT).await.expect("accepted");
            }
        }
        complete(&bob, id).await;
        complete(&alice, id).await;
        assert_eq!(bob.disk.get("/downloads/f").as_ref(), Some(&bytes), "killed at write {write}");
        stored += bob.files.metrics().bytes_stored.value();
        assert!(stored <= bytes.len() as u64, "what was stored is not sent again: write {write}");
        let is_part = |path: &PathBuf| path.to_string_lossy().contains("/.");
        eventually(&format!("no parts stay after a kill at write {write}"), async || {
            !bob.disk.paths().iter().any(is_part)
        })
        .await;
    }
    assert!(kills > 20, "{kills}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_killed_half_way_goes_on() {
    let network = MemoryNetwork::new(3, LinkModel::default());
    let mut alice = peer(&network, 1, MemoryStore::new()).await;
    let bob = peer(&network, 2, MemoryStore::new()).await;
    connect(&alice, 2).await;
    let bytes = content(300, 5);
    alice.disk.put("/f", bytes.clone());
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    bob.files.change(id, ACCEPT).await.expect("accepted");
    for part in [20, 150] {
        bob.wait_for(id, "some of it is there", |info| info.verified > part * GROUP).await;
        let disk = alice.kill(&network).await;
        bob.wait_for(id, "the loss shows", |info| info.waiting == Some(Waiting::Peer)).await;
        alice = peer(&network, 1, disk).await;
        connect(&alice, 2).await;
    }
    complete(&bob, id).await;
    complete(&alice, id).await;
    assert_eq!(bob.disk.get("/downloads/f"), Some(bytes.clone()));
    assert_eq!(bob.files.metrics().bytes_stored.value(), bytes.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_partition_is_survived_and_the_peer_is_sought() {
    let network = MemoryNetwork::new(4, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let mut bob = peer(&network, 2, MemoryStore::new()).await;
    connect(&alice, 2).await;
    alice.disk.put("/f", content(400, 0));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    bob.files.change(id, ACCEPT).await.expect("accepted");
    bob.wait_for(id, "some of it is there", |info| info.verified > 20 * GROUP).await;
    network.partition(alice.machine, bob.machine);
    bob.wait_for(id, "the loss shows", |info| info.waiting == Some(Waiting::Peer)).await;
    assert_eq!(bob.seeks.recv().await, Some(alice.agent), "somebody is to find the sender");
    network.heal(alice.machine, bob.machine);
    connect(&alice, 2).await;
    complete(&alice, id).await;
    assert_eq!(bob.files.metrics().bytes_stored.value(), 400 * GROUP);
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_told_and_waited_for() {
    let (alice, bob) = pair(5).await;
    bob.disk.set_capacity(Some(60 * GROUP));
    alice.disk.put("/f", content(100, 0));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    let error = bob.files.change(id, ACCEPT).await.expect_err("there is no room");
    assert!(matches!(error, ChangeTransferError::NoSpace { needed, .. } if needed == 100 * GROUP));
    bob.disk.set_capacity(Some(200 * GROUP));
    bob.files.change(id, ACCEPT).await.expect("accepted");
    bob.wait_for(id, "some of it is there", |info| info.verified > 0).await;
    bob.disk.set_capacity(Some(60 * GROUP));
    bob.wait_for(id, "it waits for room", |info| info.waiting == Some(Waiting::Space)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    bob.disk.set_capacity(None);
    complete(&alice, id).await;
    assert_eq!(bob.disk.get("/downloads/f"), Some(content(100, 0)));
    assert!(bob.files.metrics().no_space.value() >= 1);
}

#[tokio::test(start_paused = true)]
async fn users_refuse_withdraw_pause_and_resume() {
    let (alice, bob) = pair(6).await;
    alice.disk.put("/f", content(200, 0));
    let send = async || alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    let phase = async |peer: &Peer, id, phase| {
        peer.wait_for(id, "the phase is right", |info| info.record.phase == phase).await;
    };
    let id = send().await;
    offered(&bob, id).await;
    let reject = Change::Reject { reason: "no\u{202e} thanks".into() };
    assert!(bob.files.change(id, reject.clone()).await.expect("rejected").told);
    phase(&alice, id, Phase::Rejected).await;
    let info = alice.files.transfer(id).await.expect("known");
    assert_eq!(info.record.reason.as_deref(), Some("no thanks"));
    let error = bob.files.change(id, ACCEPT).await;
    assert_eq!(error, Err(ChangeTransferError::NotPossible(Phase::Rejected)));

    let id = send().await;
    offered(&bob, id).await;
    alice.files.change(id, Change::Cancel).await.expect("cancelled");
    eventually("the offer is gone", async || bob.files.transfer(id).await.is_none()).await;
    assert_eq!(bob.files.change(id, ACCEPT).await, Err(ChangeTransferError::NotFound));

    let id = send().await;
    offered(&bob, id).await;
    assert_eq!(alice.files.change(id, ACCEPT).await, Err(ChangeTransferError::NotIncoming));
    bob.files.change(id, ACCEPT).await.expect("accepted");
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        one.wait_for(id, "it moves", |info| info.verified > 0 && info.verified < info.record.size)
            .await;
        one.files.change(id, Change::Pause).await.expect("paused");
        other.wait_for(id, "it is told", |info| info.waiting == Some(Waiting::PeerPaused)).await;
        let before = bob.files.metrics().bytes_stored.value();
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(bob.files.metrics().bytes_stored.value() <= before + 64 * GROUP, "it stands still");
        one.files.change(id, Change::Resume).await.expect("resumed");
    }
    complete(&alice, id).await;
    complete(&bob, id).await;
    assert_eq!(bob.disk.get("/downloads/f"), Some(content(200, 0)));
    let error = bob.files.change(id, reject).await;
    assert_eq!(error, Err(ChangeTransferError::NotPossible(Phase::Complete)));
}

#[tokio::test(start_paused = true)]
async fn changed_and_wrong_files_are_refused() {
    let (alice, bob) = pair(7).await;
    let wrong = |path: &str| SendFile::new(bob.agent, path);
    let error = alice.files.send(wrong("/none")).await.expect_err("no such file");
    assert!(matches!(error, SendFileError::Unreadable(_)));
    assert_eq!(alice.files.send(wrong("f")).await, Err(SendFileError::NotAbsolute));
    alice.disk.put("/f", content(300, 0));
    let own = SendFile::new(alice.agent, "/f");
    assert_eq!(alice.files.send(own).await, Err(SendFileError::Own));
    let mut stated = wrong("/f");
    stated.sha256 = Some([1; 32]);
    let id = alice.files.send(stated).await.expect("taken");
    alice.wait_for(id, "it fails", |info| info.record.phase == Phase::Failed).await;
    let id = alice.files.send(wrong("/f")).await.expect("sent");
    offered(&bob, id).await;
    bob.files.change(id, ACCEPT).await.expect("accepted");
    bob.wait_for(id, "it moves", |info| info.verified > 0).await;
    alice.disk.put("/f", content(299, 1));
    bob.wait_for(id, "it fails", |info| info.record.phase == Phase::Failed).await;
    assert!(bob.disk.get("/downloads/f").is_none());
    alice.policy.set(bob.agent, Reason::Blocked);
    assert_eq!(alice.files.send(wrong("/f")).await, Err(SendFileError::Forbidden(Reason::Blocked)));
}

#[tokio::test(start_paused = true)]
async fn rules_accept_by_trust_and_size_and_strangers_are_bounded() {
    let network = MemoryNetwork::new(8, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let mut config = FilesConfig::new(vec![agent(2)]);
    config.keep_free = 0;
    let rule = AcceptRule { folder: Some("/shared".into()), ..AcceptRule::trusted(2 * GROUP) };
    config.accept = vec![rule];
    let bob = peer_with(&network, 2, MemoryStore::new(), config).await;
    connect(&alice, 2).await;
    alice.disk.put("/small", content(2, 0));
    alice.disk.put("/large", content(2, 1));
    bob.policy.set(alice.agent, Reason::Trusted);
    let small = alice.files.send(SendFile::new(bob.agent, "/small")).await.expect("sent");
    complete(&bob, small).await;
    assert_eq!(bob.disk.get("/shared/small"), Some(content(2, 0)));
    let large = alice.files.send(SendFile::new(bob.agent, "/large")).await.expect("sent");
    offered(&bob, large).await;

    bob.policy.set(alice.agent, Reason::Blocked);
    let silent = alice.files.send(SendFile::new(bob.agent, "/small")).await.expect("sent");
    alice.wait_for(silent, "it is offered", |info| info.record.phase == Phase::Offered).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bob.files.transfer(silent).await.is_none(), "a blocked agent's offer is not seen");
    assert_eq!(bob.files.metrics().refused_trust.value(), 1);

    bob.policy.set(alice.agent, Reason::Unknown);
    let mut refused = 0;
    for _ in 0..8 {
        let id = alice.files.send(SendFile::new(bob.agent, "/small")).await.expect("sent");
        alice
            .wait_for(id, "an answer", |info| {
                info.record.phase == Phase::Rejected || info.record.phase == Phase::Offered
            })
            .await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let info = alice.files.transfer(id).await.expect("known");
        refused += u32::from(info.record.phase == Phase::Rejected);
    }
    assert_eq!(refused, 5, "four offers of a stranger are open at most, one of them from before");
}

/// A rule that finds the disk full asks it again, and meanwhile says what it waits for.
#[tokio::test(start_paused = true)]
async fn what_a_rule_accepts_waits_for_room() {
    let network = MemoryNetwork::new(8, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let mut config = FilesConfig::new(vec![agent(2)]);
    config.keep_free = 0;
    config.accept = vec![AcceptRule::trusted(200 * GROUP)];
    let bob = peer_with(&network, 2, MemoryStore::new(), config).await;
    connect(&alice, 2).await;
    bob.policy.set(alice.agent, Reason::Trusted);
    bob.disk.set_capacity(Some(60 * GROUP));
    alice.disk.put("/f", content(100, 0));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    bob.wait_for(id, "it waits for room", |info| info.waiting == Some(Waiting::Space)).await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    let info = bob.files.transfer(id).await.expect("known");
    assert_eq!((info.record.phase, info.waiting), (Phase::Offered, Some(Waiting::Space)));
    bob.disk.set_capacity(None);
    complete(&bob, id).await;
}

/// An accepted file that nobody sends holds its place and its room for a time, and then fails.
#[tokio::test(start_paused = true)]
async fn a_sender_that_never_comes_back_is_given_up() {
    let network = MemoryNetwork::new(6, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let bob = peer(&network, 2, MemoryStore::new()).await;
    connect(&alice, 2).await;
    alice.disk.put("/f", content(400, 0));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    bob.files.change(id, ACCEPT).await.expect("accepted");
    bob.wait_for(id, "some of it is there", |info| info.verified > 20 * GROUP).await;
    network.kill(alice.machine);
    let month = FilesConfig::new(Vec::new()).idle_ttl;
    tokio::time::sleep(month - Duration::from_secs(3600)).await;
    let info = bob.files.transfer(id).await.expect("known");
    assert_eq!(info.record.phase, Phase::Active, "{info:?}");
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let info = bob.files.transfer(id).await.expect("known");
    assert_eq!(info.record.phase, Phase::Failed, "{info:?}");
    assert!(info.record.reason.is_some_and(|reason| reason.contains("too long")));
}

#[tokio::test(start_paused = true)]
async fn many_files_share_the_way_and_nothing_waits_for_ever() {
    let network = MemoryNetwork::new(9, LinkModel::default());
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let bob = peer(&network, 2, MemoryStore::new()).await;
    let carol = peer(&network, 3, MemoryStore::new()).await;
    connect(&alice, 2).await;
    connect(&alice, 3).await;
    for bob in [&bob, &carol] {
        bob.policy.set(alice.agent, Reason::Known);
    }
    let mut ids = Vec::new();
    for n in 0..20 {
        alice.disk.put(format!("/f{n}"), content(12, n));
        for to in [&bob, &carol] {
            let id =
                alice.files.send(SendFile::new(to.agent, format!("/f{n}"))).await.expect("sent");
            ids.push((to, id));
        }
    }
    for (to, id) in &ids {
        offered(to, *id).await;
        to.files.change(*id, ACCEPT).await.expect("accepted");
    }
    for (to, id) in &ids {
        complete(to, *id).await;
    }
    for to in [&bob, &carol] {
        for n in 0..20 {
            assert_eq!(to.disk.get(format!("/downloads/f{n}")), Some(content(12, n)));
        }
        assert_eq!(to.files.metrics().unasked.value(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn writes_that_fail_are_tried_again_and_nothing_is_sent_twice() {
    for write in [0, 1, 2, 7, 40] {
        let (alice, bob) = pair(10 + write).await;
        alice.disk.put("/f", content(30, 7));
        let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
        offered(&bob, id).await;
        bob.files.change(id, ACCEPT).await.expect("accepted");
        bob.disk.fail_after(write, Fault::Short);
        complete(&bob, id).await;
        complete(&alice, id).await;
        assert_eq!(bob.disk.get("/downloads/f"), Some(content(30, 7)));
        assert!(bob.files.metrics().bytes_stored.value() <= 30 * GROUP + 7, "write {write}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_offer_is_made_when_its_tree_is_durable() {
    let (alice, bob) = pair(16).await;
    alice.disk.put("/f", content(300, 0));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    let unsynced = alice.disk.unsynced();
    assert!(unsynced.iter().all(|path| !path.starts_with("/state")), "{unsynced:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_disk_does_not_make_durable_is_written_again() {
    for failing in [1, 3] {
        let (alice, bob) = pair(20).await;
        alice.disk.put("/f", content(80, 7));
        let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
        offered(&bob, id).await;
        bob.disk.fail_syncs(failing);
        bob.files.change(id, ACCEPT).await.expect("accepted");
        complete(&bob, id).await;
        complete(&alice, id).await;
        assert_eq!(bob.disk.get("/downloads/f"), Some(content(80, 7)));
        let unsynced = bob.disk.unsynced();
        assert!(unsynced.iter().all(|path| !path.ends_with("f")), "{unsynced:?}");
        assert!(bob.files.metrics().disk_failed.value() > 0);
        assert!(bob.files.metrics().bytes_stored.value() <= 80 * GROUP + 7, "nothing came twice");
    }
}

#[tokio::test(start_paused = true)]
async fn many_files_over_a_slow_line_do_not_take_each_others_places() {
    // 64 KiB in a second: a group takes two.
    let latency = Duration::from_millis(500)..Duration::from_millis(501);
    let line = LinkModel { latency, window: 32 * 1024, ..LinkModel::default() };
    let network = MemoryNetwork::new(30, line);
    let alice = peer(&network, 1, MemoryStore::new()).await;
    let bob = peer(&network, 2, MemoryStore::new()).await;
    connect(&alice, 2).await;
    bob.policy.set(alice.agent, Reason::Known);
    let mut ids = Vec::new();
    for n in 0..20 {
        alice.disk.put(format!("/f{n}"), content(9, n));
        let file = SendFile::new(bob.agent, format!("/f{n}"));
        ids.push(alice.files.send(file).await.expect("sent"));
    }
    for id in &ids {
        offered(&bob, *id).await;
        bob.files.change(*id, ACCEPT).await.expect("accepted");
    }
    let all = async {
        while bob.files.metrics().received.value() < 20 {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), all).await.expect("in time");
    let metrics = bob.files.metrics();
    assert_eq!((metrics.stalled.value(), metrics.gave_way.value()), (0, 0));
    assert_eq!(metrics.unasked.value(), 0, "nothing is sent for nothing");
}

/// A transfer of 80 groups and a bit that the full disk of its recipient stops at the last of them.
async fn nearly_there(seed: u64) -> (Peer, Peer, TransferId) {
    let (alice, bob) = pair(seed).await;
    alice.disk.put("/f", content(80, 7));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    bob.disk.set_capacity(Some(80 * GROUP + 7));
    bob.files.change(id, ACCEPT).await.expect("accepted");
    bob.wait_for(id, "the disk is full", |info| info.waiting == Some(Waiting::Space)).await;
    bob.files.change(id, Change::Pause).await.expect("paused");
    bob.disk.set_capacity(None);
    (alice, bob, id)
}

// In real time, since a disk is held up.
#[tokio::test]
async fn a_pause_while_the_file_is_opened_is_no_failure_of_the_disk() {
    let (_alice, bob, id) = nearly_there(31).await;
    bob.disk.hold(Some(Hold::Reads));
    bob.files.change(id, Change::Resume).await.expect("resumed");
    eventually("the file is read", async || bob.disk.is_waited_for()).await;
    bob.files.change(id, Change::Pause).await.expect("paused");
    bob.files.change(id, Change::Resume).await.expect("resumed");
    bob.disk.hold(None);
    complete(&bob, id).await;
    assert_eq!(bob.disk.get("/downloads/f"), Some(content(80, 7)));
    assert_eq!(bob.files.metrics().disk_failed.value(), 0);
}

#[tokio::test]
async fn what_is_not_made_durable_in_a_pause_is_written_again() {
    let (alice, bob) = pair(32).await;
    alice.disk.put("/f", content(80, 7));
    let id = alice.files.send(SendFile::new(bob.agent, "/f")).await.expect("sent");
    offered(&bob, id).await;
    bob.disk.set_capacity(Some(80 * GROUP + 7));
    bob.disk.hold(Some(Hold::Syncs));
    bob.files.change(id, ACCEPT).await.expect("accepted");
    bob.wait_for(id, "the disk is full", |info| info.waiting == Some(Waiting::Space)).await;
    eventually("a part is to be durable", async || bob.disk.is_waited_for()).await;
    bob.files.change(id, Change::Pause).await.expect("paused");
    bob.disk.set_capacity(None);
    bob.disk.fail_syncs(1);
    bob.disk.hold(None);
    eventually("that fails", async || !bob.disk.is_waited_for()).await;
    bob.files.change(id, Change::Resume).await.expect("resumed");
    complete(&bob, id).await;
    let unsynced = bob.disk.unsynced();
    assert!(unsynced.iter().all(|path| !path.ends_with("f")), "{unsynced:?}");
    assert!(bob.files.metrics().bytes_stored.value() <= 80 * GROUP + 7, "nothing came twice");
}
