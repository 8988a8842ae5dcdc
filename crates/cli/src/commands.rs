//! One file a noun. Commands print through `Output` and return how they failed.

mod agents;
mod catalog;
mod daemon;
mod direct;
mod pubsub;

use serde_json::{Value, json};
use x0x_api::Operation;
use x0x_api::types::AnnounceRequest;

use crate::args::{Arguments, Command, NetworkCommand, WsCommand};
use crate::client::{Call, Client};
use crate::discover::Target;
use crate::error::Result;
use crate::output::Output;

/// Runs a command.
pub(crate) fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    let Arguments { name, api, command, .. } = arguments;
    let name = name.as_deref();
    let client = || Target::find(api.as_deref(), name).map(Client::new);
    match command {
        Command::Start(options) => daemon::start(name, &options, output),
        Command::Stop => daemon::stop(&client()?, output),
        Command::Instances => daemon::instances(output),
        Command::Routes => catalog::routes(output),
        Command::Tree => catalog::tree(output),
        Command::Completions { shell } => catalog::completions(shell, output),
        Command::Health => show(&client()?, &Call::new(Operation::Health), output),
        Command::Status => show(&client()?, &Call::new(Operation::Status), output),
        Command::Agent => show(&client()?, &Call::new(Operation::Agent), output),
        Command::Announce { include_user, consent } => {
            let body =
                AnnounceRequest { include_user_identity: include_user, human_consent: consent };
            show(&client()?, &Call::new(Operation::Announce).body(&body)?, output)
        }
        Command::Peers => show(&client()?, &Call::new(Operation::Peers), output),
        Command::Network(NetworkCommand::Status) => {
            show(&client()?, &Call::new(Operation::NetworkStatus), output)
        }
        Command::Agents { command } => agents::run(&client()?, command, output),
        Command::Publish { topic, text } => pubsub::publish(&client()?, topic, &text, output),
        Command::Subscribe { topic, limit } => pubsub::subscribe(client()?, topic, limit, output),
        Command::Unsubscribe { id } => {
            show(&client()?, &Call::new(Operation::Unsubscribe).parameter("id", &id), output)
        }
        Command::Events(limit) => pubsub::events(&client()?, limit, output),
        Command::Direct(command) => direct::run(&client()?, command, output),
        Command::Ws(WsCommand::Sessions) => {
            show(&client()?, &Call::new(Operation::WsSessions), output)
        }
        Command::Ws(WsCommand::Direct) => {
            let url = client()?.url().replacen("http://", "ws://", 1) + "/ws/direct";
            let answer: Value = json!({ "ok": true, "url": url, "protocol": "ws" });
            output.say(&url, &answer)
        }
    }
}

/// Makes a call and prints its answer.
fn show(client: &Client, call: &Call, output: &mut Output) -> Result<()> {
    output.answer(&client.call(call)?)
}
