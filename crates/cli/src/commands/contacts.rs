//! `x0x contacts`, `x0x machines` and `x0x trust`: whom this agent trusts with what.

use serde_json::Value;
use x0x_api::Operation;
use x0x_api::types::{
    AddContactRequest, AddMachineRequest, EvaluateRequest, RevokeContactRequest, SetTrustRequest,
    UpdateContactRequest,
};

use super::{agents::waiting, show};
use crate::args::{ContactsCommand, MachinesCommand, TrustCommand};
use crate::client::{Call, Client};
use crate::error::{Failure, Result};
use crate::output::Output;

/// Runs a command of `x0x contacts`, the list without a word.
pub(super) fn run(
    client: &Client,
    command: Option<ContactsCommand>,
    output: &mut Output,
) -> Result<()> {
    let of = |operation, agent: &str| Call::new(operation).parameter("agent_id", agent);
    let call = match command {
        None | Some(ContactsCommand::List) => Call::new(Operation::Contacts),
        Some(ContactsCommand::Add { agent, trust, label }) => {
            let body = AddContactRequest { agent_id: agent, trust_level: trust, label };
            Call::new(Operation::AddContact).body(&body)?
        }
        Some(ContactsCommand::Update { agent, trust, identity_type }) => {
            let body = UpdateContactRequest { trust_level: trust, identity_type };
            of(Operation::UpdateContact, &agent).body(&body)?
        }
        Some(ContactsCommand::Remove { agent }) => of(Operation::RemoveContact, &agent),
        Some(ContactsCommand::Revoke { agent, reason }) => {
            of(Operation::RevokeContact, &agent).body(&RevokeContactRequest { reason })?
        }
        Some(ContactsCommand::Revocations { agent }) => of(Operation::ContactRevocations, &agent),
    };
    show(client, &call, output)
}

/// Runs a command of `x0x machines`.
pub(super) fn machines(
    client: &Client,
    command: MachinesCommand,
    output: &mut Output,
) -> Result<()> {
    let of = |operation, agent: &str| Call::new(operation).parameter("agent_id", agent);
    let one = |operation, agent: &str, machine: &str| {
        of(operation, agent).parameter("machine_id", machine)
    };
    let call = match command {
        MachinesCommand::Discovered { unfiltered: false } => {
            Call::new(Operation::DiscoveredMachines)
        }
        MachinesCommand::Discovered { unfiltered: true } => {
            Call::new(Operation::DiscoveredMachines).query("unfiltered", true.to_string())
        }
        MachinesCommand::Get { machine, wait } => {
            let call = Call::new(Operation::DiscoveredMachine).parameter("machine_id", &machine);
            waiting(call, wait)
        }
        MachinesCommand::List { agent } => of(Operation::ContactMachines, &agent),
        MachinesCommand::Add { agent, machine, label, pin } => {
            let body = AddMachineRequest { machine_id: machine, label, pinned: pin };
            of(Operation::AddMachine, &agent).body(&body)?
        }
        MachinesCommand::Remove { agent, machine } => {
            one(Operation::RemoveMachine, &agent, &machine)
        }
        MachinesCommand::Pin { agent, machine } => {
            let call = one(Operation::PinMachine, &agent, &machine);
            return pin(client, &call, output);
        }
        MachinesCommand::Unpin { agent, machine } => one(Operation::UnpinMachine, &agent, &machine),
    };
    show(client, &call, output)
}

/// Pins a contact; whoever believes that it is pinned must not be wrong.
fn pin(client: &Client, call: &Call, output: &mut Output) -> Result<()> {
    let answer = client.call(call)?;
    output.answer(&answer)?;
    if answer.get("pinned").and_then(Value::as_bool).unwrap_or_default() {
        return Ok(());
    }
    let text = "not pinned: the contact was never seen on this machine; \
                `x0x machines add --pin` pins it all the same";
    Err(Failure::Reported { text: text.to_owned(), answers: true })
}

/// Runs a command of `x0x trust`.
pub(super) fn trust(client: &Client, command: TrustCommand, output: &mut Output) -> Result<()> {
    let call = match command {
        TrustCommand::Set { agent, level } => {
            Call::new(Operation::SetTrust).body(&SetTrustRequest { agent_id: agent, level })?
        }
        TrustCommand::Evaluate { agent, machine } => {
            let body = EvaluateRequest { agent_id: agent, machine_id: machine };
            Call::new(Operation::EvaluateTrust).body(&body)?
        }
    };
    show(client, &call, output)
}
