//! One file a noun. Commands print through `Output` and return how they failed.

mod agents;
mod catalog;
mod contacts;
mod daemon;
mod direct;
mod doctor;
mod files;
mod group_cards;
mod groups;
mod identity;
mod inbox;
mod netcheck;
mod network;
mod objects;
mod presence;
mod pubsub;
mod watch;

use serde_json::{Value, json};
use x0x_api::types::{AnnounceRequest, PublishRequest};
use x0x_api::{Base64, Operation};

use crate::args::{Arguments, Command, Keep, WsCommand};
use crate::client::{Call, Client};
use crate::discover::Target;
use crate::error::Result;
use crate::output::Output;

/// Runs a command.
pub(crate) fn run(arguments: Arguments, output: &mut Output) -> Result<()> {
    let Arguments { name, config, api, command, .. } = arguments;
    let (name, config) = (name.as_deref(), config.as_deref());
    let client = || Target::find(api.as_deref(), name, config).map(Client::new);
    match command {
        Command::Start(options) => daemon::start(name, config, &options, output),
        Command::Stop => daemon::stop(&client()?, output),
        Command::Instances => daemon::instances(output),
        Command::Doctor => doctor::run(name, config, client(), output),
        Command::Routes => catalog::routes(output),
        Command::Tree => catalog::tree(output),
        Command::Completions { shell } => catalog::completions(shell, output),
        Command::Health => show(&client()?, &Call::new(Operation::Health), output),
        Command::Status => show(&client()?, &Call::new(Operation::Status), output),
        Command::Agent { command } => identity::agent(&client()?, command, output),
        Command::UserId(command) => identity::user_id(&client()?, command, output),
        Command::Identity(command) => identity::identity(&client()?, command, output),
        Command::Contacts { command } => contacts::run(&client()?, command, output),
        Command::Machines(command) => contacts::machines(&client()?, command, output),
        Command::Trust(command) => contacts::trust(&client()?, command, output),
        Command::Announce { include_user, consent } => {
            show(&client()?, &announce(include_user, consent)?, output)
        }
        Command::Peers { command } => network::peers(&client()?, command.as_ref(), output),
        Command::Network { command } => network::run(&client()?, command.as_ref(), output),
        Command::Netcheck => netcheck::run(&client()?, output),
        Command::Topics => network::topics(&client()?, output),
        Command::Diagnostics(command) => network::diagnose(&client()?, &command, output),
        Command::Agents { command } => agents::run(&client()?, command, output),
        Command::Users(command) => agents::users(&client()?, command, output),
        Command::Find { agent } => presence::find(&client()?, &agent, output),
        Command::Presence { command } => presence::run(&client()?, command, output),
        Command::Publish { topic, text, retention } => {
            show(&client()?, &publish(topic, &text, retention)?, output)
        }
        Command::Subscribe { topic, since, limit } => {
            pubsub::subscribe(&client()?, topic, since, limit, output)
        }
        Command::Subscriptions => show(&client()?, &Call::new(Operation::Subscriptions), output),
        Command::Unsubscribe { id } => {
            show(&client()?, &Call::new(Operation::Unsubscribe).parameter("id", &id), output)
        }
        Command::Events(limit) => pubsub::events(&client()?, limit, output),
        Command::Direct(command) => direct::run(&client()?, command, output),
        Command::SendFile(arguments) => files::send(&client()?, arguments, output),
        Command::ReceiveFile(arguments) => files::receive(&client()?, arguments, output),
        Command::Transfers => files::list(&client()?, output),
        Command::TransferStatus { id } => files::status(&client()?, &id, output),
        Command::AcceptFile(arguments) => files::accept(&client()?, arguments, output),
        Command::RejectFile { id, reason } => files::reject(&client()?, &id, reason, output),
        Command::CancelFile { id } => {
            show(&client()?, &Call::new(Operation::CancelFile).parameter("id", &id), output)
        }
        Command::PauseFile { id } => {
            show(&client()?, &Call::new(Operation::PauseFile).parameter("id", &id), output)
        }
        Command::ResumeFile { id } => {
            show(&client()?, &Call::new(Operation::ResumeFile).parameter("id", &id), output)
        }
        Command::Inbox { command } => inbox::run(&client()?, command, output),
        Command::History(arguments) => inbox::history(&client()?, arguments, output),
        Command::Letters => show(&client()?, &Call::new(Operation::Letters), output),
        Command::Watch(arguments) => watch::run(client, arguments),
        Command::Tasks { command } => objects::tasks(&client()?, command, output),
        Command::Store { command } => objects::store(&client()?, command, output),
        Command::Groups { command } => groups::groups(&client()?, command, output),
        Command::Mls { command } => group_cards::mls(&client()?, command, output),
        Command::Ws(command) => ws(&client()?, &command, output),
    }
}

/// Makes a call and prints its answer.
fn show(client: &Client, call: &Call, output: &mut Output) -> Result<()> {
    output.answer(&client.call(call)?)
}

fn publish(topic: String, text: &str, retention: Keep) -> Result<Call> {
    let payload = Base64::encode(text.as_bytes());
    let retention = retention.into();
    let body = PublishRequest { topic, payload, retention, require_ack_ms: None };
    Call::new(Operation::Publish).body(&body)
}

fn announce(include_user_identity: bool, human_consent: bool) -> Result<Call> {
    Call::new(Operation::Announce).body(&AnnounceRequest { include_user_identity, human_consent })
}

/// Runs a command of `x0x ws`.
fn ws(client: &Client, command: &WsCommand, output: &mut Output) -> Result<()> {
    match command {
        WsCommand::Sessions => show(client, &Call::new(Operation::WsSessions), output),
        WsCommand::Direct => {
            let url = client.url().replacen("http://", "ws://", 1) + "/ws/direct";
            let answer: Value = json!({ "ok": true, "url": url, "protocol": "ws" });
            output.say(&url, &answer)
        }
    }
}
