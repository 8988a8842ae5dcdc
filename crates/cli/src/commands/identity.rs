//! `x0x agent`, `x0x user-id` and `x0x identity`: who this agent is, and how others learn it.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::Context;
use qrcode::{QrCode, render::unicode::Dense1x2};
use x0x_api::types::{
    AgentCardResponse, CreateUserRequest, ExportRequest, ExportResponse, ImportCardRequest,
    ImportRequest, RevokeRequest,
};
use x0x_api::{Base64, Operation};

use super::show;
use crate::args::{AgentCommand, IdentityCommand, Revoked, UserIdCommand};
use crate::client::{Call, Client};
use crate::error::Result;
use crate::escape::escape;
use crate::output::Output;

/// Longest file that is read: a passphrase, or exported keys.
const MAX_FILE: u64 = 64 * 1024;

/// Runs a command of `x0x agent`, the ids without a word.
pub(super) fn agent(
    client: &Client,
    command: Option<AgentCommand>,
    output: &mut Output,
) -> Result<()> {
    let call = match command {
        None => Call::new(Operation::Agent),
        Some(AgentCommand::UserId) => Call::new(Operation::UserId),
        Some(AgentCommand::Card { display_name: name, qr, lan }) => {
            let call = Call::new(Operation::AgentCard);
            let call = if lan { call.query("lan", "true".to_owned()) } else { call };
            let call = match name {
                Some(name) => call.query("display_name", name),
                None => call,
            };
            return if qr { show_code(client, &call, output) } else { show(client, &call, output) };
        }
        Some(AgentCommand::Introduction { peer }) => {
            let call = Call::new(Operation::Introduction);
            match peer {
                Some(peer) => call.query("peer", peer),
                None => call,
            }
        }
        Some(AgentCommand::Import { card, trust }) => {
            let body = ImportCardRequest { card, trust_level: trust };
            Call::new(Operation::ImportCard).body(&body)?
        }
        Some(AgentCommand::ExportKeys { file, passphrase_file }) => {
            return export(client, &file, &passphrase_file, output);
        }
        Some(AgentCommand::ImportKeys { file, passphrase_file, replace }) => {
            let keys = Base64::encode(&read(&file)?);
            let body = ImportRequest { keys, passphrase: passphrase(&passphrase_file)?, replace };
            Call::new(Operation::ImportKeys).body(&body)?
        }
    };
    show(client, &call, output)
}

/// The short link as a code to scan, with the link below it.
fn show_code(client: &Client, call: &Call, output: &mut Output) -> Result<()> {
    let answer = client.call(call)?;
    let card: AgentCardResponse = serde_json::from_value(answer.clone()).context("not a card")?;
    let code = QrCode::new(&card.short_link).context("the link is too long for a code")?;
    let code = code.render::<Dense1x2>().build();
    output.report(&format!("{code}\n{}\n", escape(&card.short_link)), &answer)
}

fn export(client: &Client, file: &Path, passphrase_file: &Path, output: &mut Output) -> Result<()> {
    let body = ExportRequest { passphrase: passphrase(passphrase_file)? };
    let answer = client.call(&Call::new(Operation::ExportKeys).body(&body)?)?;
    let exported: ExportResponse = serde_json::from_value(answer).context("not exported keys")?;
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let name = file.display();
    let mut target = options.open(file).with_context(|| format!("cannot create {name}"))?;
    let written = target.write_all(&exported.keys.0).and_then(|()| target.sync_all());
    written.with_context(|| format!("cannot write {name}"))?;
    let text = format!("Keys of agent {} are in {name}.", exported.agent_id);
    let answer = serde_json::json!({
        "ok": true,
        "agent_id": exported.agent_id,
        "file": file,
    });
    output.say(&text, &answer)
}

/// The first line of a file, or of the standard input for `-`: arguments can be seen by others.
fn passphrase(path: &Path) -> Result<String> {
    let bytes = if path == Path::new("-") {
        let mut line = String::new();
        io::stdin().read_line(&mut line).context("cannot read the passphrase")?;
        line.into_bytes()
    } else {
        read(path)?
    };
    let text = String::from_utf8(bytes).context("the passphrase is not UTF-8")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let name = path.display();
    let file = std::fs::File::open(path).with_context(|| format!("cannot open {name}"))?;
    let mut bytes = Vec::new();
    let read = file.take(MAX_FILE).read_to_end(&mut bytes);
    read.with_context(|| format!("cannot read {name}"))?;
    Ok(bytes)
}

/// Runs a command of `x0x user-id`.
pub(super) fn user_id(client: &Client, command: UserIdCommand, output: &mut Output) -> Result<()> {
    let call = match command {
        UserIdCommand::Inspect => Call::new(Operation::UserId),
        UserIdCommand::Create { path } => {
            let path = path.map(std::path::absolute).transpose();
            let path = path.context("the path makes no sense")?;
            let path = path.map(|path| path.display().to_string());
            Call::new(Operation::CreateUser).body(&CreateUserRequest { path })?
        }
    };
    show(client, &call, output)
}

/// Runs a command of `x0x identity`.
pub(super) fn identity(
    client: &Client,
    command: IdentityCommand,
    output: &mut Output,
) -> Result<()> {
    let call = match command {
        IdentityCommand::Revocations => Call::new(Operation::Revocations),
        IdentityCommand::Revoke(Revoked { what, id, reason }) => {
            let body = RevokeRequest { what: what.into(), reason, id };
            Call::new(Operation::RevokeIdentity).body(&body)?
        }
    };
    show(client, &call, output)
}
