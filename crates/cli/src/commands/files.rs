//! `x0x send-file`, `receive-file`, `transfers` and what is done with a transfer.

use std::fs;
use std::path::Path;

use anyhow::{Context, anyhow};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::json;
use x0x_api::Operation;
use x0x_api::event::{LAGGED, TRANSFER};
use x0x_api::types::{
    AcceptFileRequest, RejectFileRequest, SendFileRequest, SendFileResponse, Transfer,
    TransferDirection, TransferResponse, TransferState, TransferStatus, TransfersResponse,
};

use super::pubsub::short;
use super::show;
use crate::args::{AcceptFileArguments, ReceiveFileArguments, SendFileArguments};
use crate::client::{Call, Client};
use crate::error::{Failure, Result};
use crate::escape::escape;
use crate::events::{EventReader, ServerEvent};
use crate::output::{Output, table};

const BAR: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}";

/// Offers a file, and waits for it to arrive if asked to.
pub(super) fn send(
    client: &Client,
    arguments: SendFileArguments,
    output: &mut Output,
) -> Result<()> {
    let SendFileArguments { agent, path, filename, media_type, wait } = arguments;
    // The daemon has another working directory, and follows no links.
    let path =
        fs::canonicalize(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let body = SendFileRequest {
        agent_id: agent,
        path: Some(text(&path)?),
        sha256: None,
        filename,
        media_type,
    };
    let call = Call::new(Operation::SendFile).body(&body)?;
    if !wait {
        return show(client, &call, output);
    }
    // Listened to before there is anything to hear.
    let events = client.stream(Operation::FileEvents)?;
    let sent: SendFileResponse = client.fetch(&call)?;
    follow(look_at(client), events, vec![sent.transfer_id], output)
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| anyhow!("{} is not Unicode", path.display()))?;
    Ok(text.to_owned())
}

fn folder(path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let absolute =
        std::path::absolute(path).with_context(|| format!("{} is no folder", path.display()))?;
    Ok(Some(text(&absolute)?))
}

/// Lists the transfers.
pub(super) fn list(client: &Client, output: &mut Output) -> Result<()> {
    let answer = client.call(&Call::new(Operation::Transfers))?;
    let parsed: TransfersResponse = serde_json::from_value(answer.clone())?;
    let mut rows =
        vec![["ID", "FROM/TO", "STATE", "DONE", "SIZE", "NAME"].map(str::to_owned).to_vec()];
    rows.extend(parsed.transfers.iter().map(row));
    output.report(&table(&rows), &answer)
}

fn row(transfer: &Transfer) -> Vec<String> {
    let arrow = match transfer.direction {
        TransferDirection::Sending => "to",
        _ => "from",
    };
    let done = match transfer.total_size {
        0 => 100,
        size => u128::from(transfer.bytes_transferred) * 100 / u128::from(size),
    };
    vec![
        transfer.transfer_id.clone(),
        format!("{arrow} {}", short(&transfer.remote_agent_id.to_string())),
        state(transfer),
        format!("{done} %"),
        transfer.total_size.to_string(),
        transfer.filename.clone(),
    ]
}

fn state(transfer: &Transfer) -> String {
    let state = serde_json::to_value(transfer.state).unwrap_or_default();
    state.as_str().unwrap_or("unknown").replace('_', " ")
}

/// Accepts an offered file, and waits for it if asked to.
pub(super) fn accept(
    client: &Client,
    arguments: AcceptFileArguments,
    output: &mut Output,
) -> Result<()> {
    let AcceptFileArguments { id, output_dir, wait } = arguments;
    let call = accept_call(&id, output_dir.as_deref())?;
    if !wait {
        return show(client, &call, output);
    }
    let events = client.stream(Operation::FileEvents)?;
    client.call(&call)?;
    follow(look_at(client), events, vec![id], output)
}

fn accept_call(id: &str, output_dir: Option<&Path>) -> Result<Call> {
    let body = AcceptFileRequest { output_dir: folder(output_dir)? };
    Call::new(Operation::AcceptFile).parameter("id", id).body(&body)
}

/// Lists the offers that wait, or accepts those of an agent and waits for them.
pub(super) fn receive(
    client: &Client,
    arguments: ReceiveFileArguments,
    output: &mut Output,
) -> Result<()> {
    let ReceiveFileArguments { accept_from, wait, output_dir } = arguments;
    // Listened to before there is anything to hear.
    let mut events = client.stream(Operation::FileEvents)?;
    let mut waiting = offers(client, accept_from.as_deref())?;
    let Some(agent) = accept_from else {
        let mut rows = vec![["ID", "FROM", "SIZE", "NAME"].map(str::to_owned).to_vec()];
        rows.extend(waiting.iter().map(|transfer| {
            let from = transfer.remote_agent_id.to_string();
            let size = transfer.total_size.to_string();
            vec![transfer.transfer_id.clone(), from, size, transfer.filename.clone()]
        }));
        let answer = json!({ "ok": true, "transfers": waiting });
        return output.report(&table(&rows), &answer);
    };
    if waiting.is_empty() {
        if !wait {
            return Err(Failure::Other(anyhow!("{agent} offers no file; --wait waits for one")));
        }
        eprintln!("waiting for a file; Ctrl-C ends");
    }
    while waiting.is_empty() {
        next_event(&mut events)?;
        waiting = offers(client, Some(&agent))?;
    }
    for transfer in &waiting {
        client.call(&accept_call(&transfer.transfer_id, output_dir.as_deref())?)?;
    }
    let ids = waiting.into_iter().map(|transfer| transfer.transfer_id).collect();
    follow(look_at(client), events, ids, output)
}

/// The files that are offered, by anyone or by one agent.
fn offers(client: &Client, agent: Option<&str>) -> Result<Vec<Transfer>> {
    let answer: TransfersResponse = client.fetch(&Call::new(Operation::Transfers))?;
    let mut offers = answer.transfers;
    let by = agent.map(str::to_lowercase);
    offers.retain(|transfer| {
        transfer.state == TransferState::Offered
            && transfer.direction == TransferDirection::Receiving
            && by.as_ref().is_none_or(|by| transfer.remote_agent_id.to_string() == *by)
    });
    Ok(offers)
}

fn next_event(events: &mut EventReader) -> Result<ServerEvent> {
    let event = events.next().context("the stream of events broke off")?;
    Ok(event.ok_or_else(|| anyhow!("the daemon ended; transfers go on when it runs"))?)
}

/// Refuses an offered file.
pub(super) fn reject(
    client: &Client,
    id: &str,
    reason: Option<String>,
    output: &mut Output,
) -> Result<()> {
    let call = Call::new(Operation::RejectFile).parameter("id", id);
    show(client, &call.body(&RejectFileRequest { reason })?, output)
}

/// One transfer, by its id.
pub(super) fn status(client: &Client, id: &str, output: &mut Output) -> Result<()> {
    show(client, &Call::new(Operation::Transfer).parameter("id", id), output)
}

/// How a transfer stands.
fn look_at(client: &Client) -> impl FnMut(&str) -> Result<Transfer> {
    |id| {
        let answer: TransferResponse =
            client.fetch(&Call::new(Operation::Transfer).parameter("id", id))?;
        Ok(answer.transfer)
    }
}

/// Shows the progress of transfers until each has ended.
fn follow(
    mut look: impl FnMut(&str) -> Result<Transfer>,
    mut events: EventReader,
    mut ids: Vec<String>,
    output: &mut Output,
) -> Result<()> {
    let bars = Bars::new(&ids)?;
    // What ended before the stream was open, or while it was not read in time, is not told on it.
    let mut missed = true;
    while !ids.is_empty() {
        if std::mem::take(&mut missed) {
            for id in ids.clone() {
                note(&bars, &look(&id)?, &mut ids, output)?;
            }
            continue;
        }
        let event = next_event(&mut events)?;
        if event.name == TRANSFER {
            let transfer: Transfer = serde_json::from_str(&event.data)?;
            note(&bars, &transfer, &mut ids, output)?;
        }
        missed = event.name == LAGGED;
    }
    Ok(())
}

/// Takes note of a transfer's state; one that has ended leaves `ids`, or is the failure.
fn note(
    bars: &Bars,
    transfer: &Transfer,
    ids: &mut Vec<String>,
    output: &mut Output,
) -> Result<()> {
    if !ids.contains(&transfer.transfer_id) {
        return Ok(());
    }
    bars.show(transfer);
    match transfer.status {
        TransferStatus::Complete => {
            ids.retain(|id| *id != transfer.transfer_id);
            let place = transfer.output_path.as_deref().unwrap_or(&transfer.filename);
            output.say(place, &serde_json::to_value(transfer)?)
        }
        TransferStatus::Failed | TransferStatus::Rejected => {
            let why = transfer.error.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
            let what = format!("{} is {}{why}", transfer.filename, state(transfer));
            Err(Failure::Other(anyhow!(escape(&what))))
        }
        _ => Ok(()),
    }
}

/// A bar for each transfer, on a terminal.
struct Bars(Vec<(String, ProgressBar)>);

impl Bars {
    fn new(ids: &[String]) -> Result<Self> {
        let all = MultiProgress::new();
        let style = ProgressStyle::with_template(BAR).context("the bar's template")?;
        let bar = |id: &String| {
            let bar = all.add(ProgressBar::new(0).with_style(style.clone()));
            (id.clone(), bar)
        };
        Ok(Self(ids.iter().map(bar).collect()))
    }

    fn show(&self, transfer: &Transfer) {
        let Some((_, bar)) = self.0.iter().find(|(id, _)| *id == transfer.transfer_id) else {
            return;
        };
        bar.set_length(transfer.total_size);
        bar.set_prefix(escape(&transfer.filename));
        bar.set_position(transfer.bytes_transferred);
        bar.set_message(state(transfer));
        if matches!(
            transfer.status,
            TransferStatus::Complete | TransferStatus::Failed | TransferStatus::Rejected
        ) {
            bar.abandon();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(status: &str) -> Transfer {
        serde_json::from_value(json!({
            "transfer_id": "1", "direction": "Receiving", "remote_agent_id": "00".repeat(32),
            "filename": "f", "total_size": 1, "bytes_transferred": 0, "status": status,
            "state": "active", "sha256": "", "blake3": "", "error": null, "started_at": 0,
            "started_at_unix_ms": 0, "chunk_size": 1, "total_chunks": 1,
        }))
        .unwrap()
    }

    #[test]
    fn an_end_among_missed_events_is_seen() {
        let mut answers = ["InProgress", "Complete"].into_iter();
        let look = |_: &str| Ok(transfer(answers.next().unwrap()));
        let events = EventReader::new("event: lagged\ndata: {\"missed\":9}\n\n".as_bytes());
        let mut output = Output::to_stdout(true, None);
        assert!(follow(look, events, vec!["1".to_owned()], &mut output).is_ok());
        assert_eq!(answers.next(), None);
    }
}
