//! What the owner should look at: shown by `/status` and `x0x doctor`, and written to the log once each.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use x0x_agent::{Troubles, trust::Loaded};
use x0x_core::{AgentId, MachineId};

use crate::app::App;

/// How often the log looks for new ones.
const EVERY: Duration = Duration::from_secs(30);
/// Different texts that the log remembers; those beyond are said again.
const MAX_SAID: usize = 64;

/// Everything that is wrong now, in sentences for the owner.
pub(crate) fn of(app: &App) -> Vec<String> {
    let mut warnings = Vec::new();
    if app.agent.databases_damaged() > 0 {
        warnings.push(
            "The database was damaged and is set aside beside the new one as x0x.db.corrupt-*; \
             mail, letters and shared objects were carried over as far as they could be read."
                .to_owned(),
        );
    }
    if app.agent.storage_full() {
        let text =
            "the disk is full, or the database at its cap: mail and messages of topics are refused";
        warnings.push(text.to_owned());
    }
    match app.agent.trust().loaded() {
        Loaded::FromBackup { damaged } => {
            let where_to = damaged.as_ref().map(|path| format!(" ({})", path.display()));
            let where_to = where_to.unwrap_or_default();
            warnings.push(format!("contacts were damaged{where_to}; the backup is in use"));
        }
        Loaded::Lost { marker, .. } => {
            let text = format!(
                "contacts and their backup were damaged: who was known or blocked here is not any more; the damaged \
                 files are kept beside contacts.json. Remove {} once you have seen to it",
                marker.display()
            );
            warnings.push(text);
        }
        _ => {}
    }
    warnings.extend(moves(&app.agent.trust().refused_moves()));
    if let Some(number) = app.webhook.number() {
        let text = format!("the webhook does not take message #{number}, and those after it wait");
        warnings.push(text);
    }
    if app.agent.is_superseded() {
        warnings.push("this agent was moved to another machine; others refuse it here".to_owned());
    }
    if !app.api_address.ip().is_loopback() {
        let text = format!("the API at {} can be reached by other machines", app.api_address);
        warnings.push(text);
    }
    warnings.extend(network(&app.agent.troubles()));
    warnings
}

/// Contacts that a person pinned to a machine, and that say that they are on another.
fn moves(refused: &[(AgentId, MachineId)]) -> Option<String> {
    let (agent, machine) = refused.first()?;
    let others = match refused.len() - 1 {
        0 => String::new(),
        more => format!(", and {more} other contacts like it"),
    };
    Some(format!(
        "contact {agent} is pinned, and says that it moved to machine {machine}{others}: nothing from there is shown. \
         Ask its owner; `x0x machines add {agent} {machine} --pin` follows it"
    ))
}

/// What peers that were refused, or sessions that were taken, say of the configuration.
fn network(troubles: &Troubles) -> Vec<String> {
    let mut warnings = Vec::new();
    if troubles.contested > 0 {
        let text = "another running daemon has this machine's keys: peers give its sessions to that one and back; \
                    stop it, or give it keys of its own (x0xd --name)";
        warnings.push(text.to_owned());
    }
    if troubles.own_key > 0 {
        let text = "a dialled address is answered with this machine's own keys: a bootstrap peer that is this machine, \
                    or a second machine with a copy of its keys";
        warnings.push(text.to_owned());
    }
    if troubles.sessions == 0 && troubles.other_network > 0 {
        let text = "no peer took this machine in, and some that answered are of another network or protocol version: \
                    look at `network` in the configuration";
        warnings.push(text.to_owned());
    }
    warnings
}

/// Writes each warning to the log when it first holds, until the daemon stops.
pub(crate) async fn log(app: Arc<App>) {
    let mut said = BTreeSet::new();
    let mut beat = tokio::time::interval(EVERY);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while app.stop.run_until_cancelled(beat.tick()).await.is_some() {
        for warning in of(&app) {
            if !said.contains(&warning) {
                tracing::warn!("{warning}");
                if said.len() >= MAX_SAID {
                    said.clear();
                }
                said.insert(warning);
            }
        }
    }
}
