//! One handler an operation.

mod card;
mod contacts;
mod direct;
mod discovery;
mod gossip;
mod identity;
mod network;
mod presence;
mod pubsub;
mod status;
mod websocket;

use std::sync::Arc;

use axum::{
    Json,
    handler::Handler,
    routing::{MethodFilter, MethodRouter, on},
};
use x0x_api::{Method, Operation};

use super::error::ApiError;
use crate::app::App;

/// What a handler gives.
type Answer<T> = Result<Json<T>, ApiError>;

/// The handler of an operation. Without a wildcard: a new operation needs a line here.
pub(super) fn handler(operation: Operation, method: Method) -> MethodRouter<Arc<App>> {
    match operation {
        Operation::Health => route(method, status::health),
        Operation::Status => route(method, status::status),
        Operation::Shutdown => route(method, status::shutdown),
        Operation::Metrics => route(method, status::metrics),
        Operation::OpenApi => route(method, status::openapi),
        Operation::Agent => route(method, identity::agent),
        Operation::UserId => route(method, card::user_id),
        Operation::CreateUser => route(method, card::create_user),
        Operation::AgentCard => route(method, card::card),
        Operation::ImportCard => route(method, card::import_card),
        Operation::ExportKeys => route(method, card::export),
        Operation::ImportKeys => route(method, card::import),
        Operation::Introduction => route(method, card::introduction),
        Operation::RevokeIdentity => route(method, card::revoke),
        Operation::Revocations => route(method, contacts::all_revocations),
        Operation::Contacts => route(method, contacts::list),
        Operation::AddContact => route(method, contacts::add),
        Operation::SetTrust => route(method, contacts::set_trust),
        Operation::UpdateContact => route(method, contacts::update),
        Operation::RemoveContact => route(method, contacts::remove),
        Operation::RevokeContact => route(method, contacts::revoke),
        Operation::ContactRevocations => route(method, contacts::contact_revocations),
        Operation::ContactMachines => route(method, contacts::machines),
        Operation::AddMachine => route(method, contacts::add_machine),
        Operation::RemoveMachine => route(method, contacts::remove_machine),
        Operation::PinMachine => route(method, contacts::pin),
        Operation::UnpinMachine => route(method, contacts::unpin),
        Operation::EvaluateTrust => route(method, contacts::evaluate),
        Operation::Announce => route(method, identity::announce),
        Operation::Peers => route(method, network::peers),
        Operation::NetworkStatus => route(method, network::status),
        Operation::GossipDiagnostics => route(method, gossip::diagnostics),
        Operation::DiscoveredAgents => route(method, discovery::list),
        Operation::DiscoveredAgent => route(method, discovery::get),
        Operation::FindAgent => route(method, presence::find_agent),
        Operation::Presence => route(method, presence::all),
        Operation::PresenceOnline => route(method, presence::online),
        Operation::PresenceStatus => route(method, presence::status),
        Operation::PresenceFind => route(method, presence::find),
        Operation::PresenceFoaf => route(method, presence::foaf),
        Operation::PresenceEvents => route(method, presence::events),
        Operation::Publish => route(method, pubsub::publish),
        Operation::Subscribe => route(method, pubsub::subscribe),
        Operation::Unsubscribe => route(method, pubsub::unsubscribe),
        Operation::Events => route(method, pubsub::events),
        Operation::Connect => route(method, direct::connect),
        Operation::DirectSend => route(method, direct::send),
        Operation::DirectConnections => route(method, direct::connections),
        Operation::DirectEvents => route(method, direct::events),
        Operation::Ws => route(method, websocket::general),
        Operation::WsDirect => route(method, websocket::direct),
        Operation::WsSessions => route(method, websocket::sessions),
    }
}

fn route<H: Handler<T, Arc<App>>, T: 'static>(
    method: Method,
    handler: H,
) -> MethodRouter<Arc<App>> {
    let filter = match method {
        Method::Post => MethodFilter::POST,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    on(filter, handler)
}
