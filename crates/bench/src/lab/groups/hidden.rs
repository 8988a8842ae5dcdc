//! A hidden group among daemons that are not in it: every packet between them is taken and searched, and what a
//! stranger has on its disk.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use x0x_api::Operation;
use x0x_api::types::{
    ChangeGroupRequest, CreateGroupRequest, GroupMembersResponse, GroupRevisionResponse,
    GroupStateResponse, RoomRequest,
};

use super::{PATIENCE, missing, promote};
use crate::capture::{Capture, Captured, contains};
use crate::groups::{agree, call, found_as, join, say};
use crate::lab::namespaces::Network;
use crate::node::Node;
use crate::report::{Report, Target};

/// Members, the last of which is removed.
const MEMBERS: usize = 4;
/// All daemons; the others are neighbours that are not in the group.
const DAEMONS: u8 = 6;
/// Words that nothing else says.
const NAME: &str = "Zilpzalp-9c41-name";
const DESCRIPTION: &str = "Girlitz-77d0-description";
const RENAMED: &str = "Wiedehopf-b15e-renamed";
const ROOM: &str = "Neuntoeter-2a86-room";
const TOPIC: &str = "Pirol-e03f-topic";
const TEXT: &str = "Rotmilan-51c8-text";
/// What is sent in the clear, to see that the search finds what is there.
const CONTROL: &str = "Kormoran-d4b2-control";
/// A port at which nobody listens.
const NOWHERE: u16 = 9;

pub(in crate::lab) async fn run(daemon: &Path, report: &mut Report) -> Result<()> {
    let run = "hidden group";
    eprintln!("{run}");
    let folder = tempfile::tempdir()?;
    let mut network = Network::new()?;
    let capture = Capture::begin(&network.hub())?;
    let mut nodes: Vec<Node> = Vec::new();
    for number in 0..DAEMONS {
        let bootstrap = match nodes.first() {
            Some(first) => Some(first.udp_address().await?),
            None => None,
        };
        let place = network.place(0, number)?;
        let home = folder.path().join(number.to_string());
        nodes.push(Node::start_in(place, daemon, &home, bootstrap).await?.0);
    }
    let (group, secrets) = live(daemon, folder.path(), &mut nodes, report, run).await?;
    // A name that is sent in the clear has to be found, and all that the daemons sent has to be there.
    let socket = nodes[0].place.udp(SocketAddr::from((nodes[0].place.address(), 0))).await?;
    socket.send_to(CONTROL.as_bytes(), (nodes[1].place.address(), NOWHERE)).await?;
    let mut sent = 0;
    for node in &nodes {
        sent += node.network_bytes().await?;
    }
    let captured = tokio::task::spawn_blocking(|| capture.end()).await??;
    judge(&captured, &secrets, sent, report, run);
    let stranger = folder.path().join((DAEMONS - 1).to_string());
    let member = folder.path().join("0");
    let (at_stranger, _) = files_with(&stranger, &secrets)?;
    let (_, of_group) = files_with(&member, &[("group id", bytes_of(&group)?)])?;
    report.figure(run, "a stranger's files", at_stranger as f64, "", Target::AtMost(0.0));
    report.note(run, "a member's files that name the group", of_group as f64, "");
    Ok(())
}

/// What a group goes through, and what must be on no wire.
async fn live(
    daemon: &Path,
    folder: &Path,
    nodes: &mut [Node],
    report: &mut Report,
    run: &str,
) -> Result<(String, Vec<(&'static str, Vec<u8>)>)> {
    let request = CreateGroupRequest {
        name: NAME.to_owned(),
        description: DESCRIPTION.to_owned(),
        ..CreateGroupRequest::default()
    };
    let (group, link) = found_as(&nodes[0], &request, MEMBERS as u32).await?;
    for node in &nodes[1..MEMBERS] {
        join(node, &link).await?;
    }
    let id = [("id", group.as_str())];
    let members: Vec<&Node> = nodes[..MEMBERS].iter().collect();
    agree(&members, &group, PATIENCE).await?;
    promote(members[0], &group, &members[1].agent_id().await?).await?;
    let mut said = Vec::new();
    for (n, node) in members.iter().enumerate() {
        said.push(format!("{TEXT} {n}"));
        say(&mut node.http().await?, &group, &said[n]).await?;
    }
    let mut http = members[1].http().await?;
    let renamed = ChangeGroupRequest { name: Some(RENAMED.to_owned()), ..Default::default() };
    let _: GroupRevisionResponse = call(&mut http, Operation::ChangeGroup, &id, &renamed).await?;
    let room = RoomRequest { topic: TOPIC.to_owned(), closed: false };
    let _: GroupRevisionResponse =
        call(&mut http, Operation::SetRoom, &[id[0], ("room", ROOM)], &room).await?;
    let mut lacking = missing(&members, &group, &said).await?;
    let last = members[MEMBERS - 1].agent_id().await?;
    let _: GroupMembersResponse =
        call(&mut http, Operation::RemoveMember, &[id[0], ("agent_id", &last)], &()).await?;
    // One is away while others write, and catches up.
    let home = folder.join("2");
    let (place, first) = (nodes[2].place.clone(), nodes[0].udp_address().await?);
    nodes[2].end();
    said.push(format!("{TEXT} while one is away"));
    say(&mut nodes[0].http().await?, &group, &said[MEMBERS]).await?;
    nodes[2] = Node::start_in(place, daemon, &home, Some(first)).await?.0;
    let members: Vec<&Node> = nodes[..MEMBERS - 1].iter().collect();
    agree(&members, &group, PATIENCE).await?;
    lacking += missing(&members, &group, &said).await?;
    report.figure(run, "texts missing at members", lacking as f64, "", Target::AtMost(0.0));
    let state: GroupStateResponse =
        call(&mut nodes[0].http().await?, Operation::GroupState, &id, &()).await?;
    let keys = state.mls_group_id.context("the group has no keys")?;
    let mut secrets: Vec<(&str, Vec<u8>)> =
        [("name", NAME), ("description", DESCRIPTION), ("new name", RENAMED), ("room", ROOM)]
            .into_iter()
            .chain([("room's topic", TOPIC), ("texts", TEXT)])
            .map(|(what, words)| (what, words.as_bytes().to_vec()))
            .collect();
    for (what, hex) in [("group id", &group), ("id of its keys", &keys)] {
        secrets.extend([(what, bytes_of(hex)?), (what, hex.as_bytes().to_vec())]);
    }
    secrets.push(("end of the invite", link.as_bytes()[link.len() - 32..].to_vec()));
    Ok((group, secrets))
}

fn judge(
    captured: &Captured,
    secrets: &[(&'static str, Vec<u8>)],
    sent: u64,
    report: &mut Report,
    run: &str,
) {
    let mut with_secrets = 0;
    for (what, secret) in secrets {
        let packets = captured.packets_with(secret);
        if packets > 0 {
            eprintln!("{packets} packets have the group's {what}");
        }
        with_secrets += packets;
    }
    let control = captured.packets_with(CONTROL.as_bytes());
    let taken = captured.bytes() as f64;
    report.note(run, "taken from the wires", taken / 1024.0, "KiB");
    report.note(run, "sent by the daemons", sent as f64 / 1024.0, "KiB");
    let each = taken / sent as f64;
    report.figure(run, "taken of what was sent", each, "×", Target::AtLeast(1.0));
    report.figure(run, "packets with the control", control as f64, "", Target::AtLeast(1.0));
    report.figure(run, "packets with secrets", with_secrets as f64, "", Target::AtMost(0.0));
}

/// How often files below a folder have one of the secrets, and how many files.
fn files_with(folder: &Path, secrets: &[(&'static str, Vec<u8>)]) -> Result<(usize, usize)> {
    let (mut found, mut files) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            let below = files_with(&entry.path(), secrets)?;
            (found, files) = (found + below.0, files + below.1);
        } else if kind.is_file() {
            let bytes = fs::read(entry.path())?;
            let here = secrets.iter().filter(|(_, secret)| contains(&bytes, secret)).count();
            (found, files) = (found + here, files + usize::from(here > 0));
        }
    }
    Ok((found, files))
}

/// Bytes that hexadecimal digits stand for.
fn bytes_of(hex: &str) -> Result<Vec<u8>> {
    let pairs = (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16));
    pairs.collect::<Result<_, _>>().context("not hexadecimal")
}
