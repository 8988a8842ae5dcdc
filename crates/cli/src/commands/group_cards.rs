//! Finding groups by their cards, content for their members, and `x0x mls`.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;
use x0x_api::types::{
    CreateMlsGroupRequest, ImportGroupCardRequest, MlsAgentRequest, MlsDecryptRequest,
    MlsEncryptRequest, SecureContent, SecureEncryptRequest, SubscribeCardsRequest,
};
use x0x_api::{Base64, Operation, True};

use super::show;
use crate::args::{CardsCommand, MlsCommand};
use crate::client::{Call, Client};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Largest file that is read as a card or content.
const MAX_FILE: u64 = 1024 * 1024;

fn of(operation: Operation, id: &str) -> Call {
    Call::new(operation).parameter("id", id)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(MAX_FILE).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
    };
    read.map_err(|error| Failure::Other(anyhow::anyhow!("{}: {error}", file.display())))?;
    Ok(bytes)
}

/// What is meant by `TEXT` or `@FILE`.
fn content(text: &str) -> Result<String> {
    Ok(match text.strip_prefix('@') {
        Some(file) => Base64::encode(&read(Path::new(file))?),
        None => Base64::encode(text.as_bytes()),
    })
}

/// Runs a command of `x0x groups` that finds groups, or encrypts for one.
pub(super) fn cards(client: &Client, command: CardsCommand, output: &mut Output) -> Result<()> {
    let call = match command {
        CardsCommand::Discover { text } => {
            let call = Call::new(Operation::DiscoverGroups);
            match text {
                Some(text) => call.query("q", text),
                None => call,
            }
        }
        CardsCommand::Nearby => Call::new(Operation::NearbyGroups),
        CardsCommand::Subscriptions => Call::new(Operation::CardSubscriptions),
        CardsCommand::Subscribe { kind, key, shard } => Call::new(Operation::SubscribeCards)
            .body(&SubscribeCardsRequest { kind, key, shard })?,
        CardsCommand::Unsubscribe { kind, shard } => Call::new(Operation::UnsubscribeCards)
            .parameter("kind", &kind)
            .parameter("shard", &shard.to_string()),
        CardsCommand::Card { group } => of(Operation::GroupCard, &group),
        CardsCommand::Import { file } => {
            let shown: Value = serde_json::from_slice(&read(&file)?)?;
            let card = shown["card"].as_str().unwrap_or_default().to_owned();
            Call::new(Operation::ImportGroupCard).body(&ImportGroupCardRequest { card })?
        }
        CardsCommand::Encrypt { group, text } => of(Operation::SecureEncrypt, &group)
            .body(&SecureEncryptRequest { payload_b64: content(&text)? })?,
        CardsCommand::Decrypt { group, ciphertext, nonce, epoch } => {
            let body = SecureContent {
                ok: True::default(),
                ciphertext_b64: ciphertext,
                nonce_b64: nonce,
                secret_epoch: epoch,
            };
            of(Operation::SecureDecrypt, &group).body(&body)?
        }
    };
    show(client, &call, output)
}

/// Runs a command of `x0x mls`, the list without a word.
pub(super) fn mls(client: &Client, command: Option<MlsCommand>, output: &mut Output) -> Result<()> {
    let call = match command.unwrap_or(MlsCommand::List) {
        MlsCommand::List => Call::new(Operation::MlsGroups),
        MlsCommand::Create => {
            Call::new(Operation::CreateMlsGroup).body(&CreateMlsGroupRequest::default())?
        }
        MlsCommand::Show { group } => of(Operation::MlsGroup, &group),
        MlsCommand::Add { group, agent: agent_id } => {
            of(Operation::AddMlsMember, &group).body(&MlsAgentRequest { agent_id })?
        }
        MlsCommand::Remove { group, agent } => {
            of(Operation::RemoveMlsMember, &group).parameter("agent_id", &agent)
        }
        MlsCommand::Encrypt { group, text } => {
            let payload = Base64::encode(text.as_bytes());
            of(Operation::MlsEncrypt, &group).body(&MlsEncryptRequest { payload })?
        }
        MlsCommand::Decrypt { group, ciphertext, epoch } => {
            of(Operation::MlsDecrypt, &group).body(&MlsDecryptRequest { ciphertext, epoch })?
        }
        MlsCommand::Welcome { group, agent: agent_id } => {
            of(Operation::MlsWelcome, &group).body(&MlsAgentRequest { agent_id })?
        }
    };
    show(client, &call, output)
}
