//! One handler an operation.

mod card;
mod connectivity;
mod contacts;
mod direct;
mod discovery;
mod files;
mod gossip;
mod groups;
mod identity;
mod inbox;
mod letters;
mod machines;
mod network;
mod objects;
mod presence;
mod pubsub;
mod status;
pub(super) mod stores;
pub(super) mod tasks;
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

macro_rules! handlers {
    ($($operation:ident: $handler:path,)+) => {
        /// The handler of an operation. Without a wildcard: a new operation needs a line here.
        pub(super) fn handler(operation: Operation, method: Method) -> MethodRouter<Arc<App>> {
            match operation {
                $(Operation::$operation => route(method, $handler),)+
            }
        }
    };
}

handlers! {
    Health: status::health,
    Status: status::status,
    Shutdown: status::shutdown,
    Metrics: status::metrics,
    OpenApi: status::openapi,
    Agent: identity::agent,
    UserId: card::user_id,
    CreateUser: card::create_user,
    AgentCard: card::card,
    ImportCard: card::import_card,
    ExportKeys: card::export,
    ImportKeys: card::import,
    Introduction: card::introduction,
    RevokeIdentity: card::revoke,
    Revocations: contacts::all_revocations,
    Contacts: contacts::list,
    AddContact: contacts::add,
    SetTrust: contacts::set_trust,
    UpdateContact: contacts::update,
    RemoveContact: contacts::remove,
    RevokeContact: contacts::revoke,
    ContactRevocations: contacts::contact_revocations,
    ContactMachines: contacts::machines,
    AddMachine: contacts::add_machine,
    RemoveMachine: contacts::remove_machine,
    PinMachine: contacts::pin,
    UnpinMachine: contacts::unpin,
    EvaluateTrust: contacts::evaluate,
    Announce: identity::announce,
    Peers: network::peers,
    PeerHealth: network::health,
    ProbePeer: network::probe,
    NetworkStatus: connectivity::status,
    BootstrapCache: network::bootstrap_cache,
    PeerEvents: network::events,
    Connectivity: connectivity::connectivity,
    GossipDiagnostics: gossip::diagnostics,
    GroupDiagnostics: groups::state::diagnostics,
    DiscoveredAgents: discovery::list,
    DiscoveredAgent: discovery::get,
    Reachability: machines::reachability,
    AgentMachine: machines::of_agent,
    DiscoveredMachines: machines::list,
    DiscoveredMachine: machines::get,
    UserAgents: machines::user_agents,
    UserMachines: machines::user_machines,
    FindAgent: presence::find_agent,
    Presence: presence::all,
    PresenceOnline: presence::online,
    PresenceStatus: presence::status,
    PresenceFind: presence::find,
    PresenceFoaf: presence::foaf,
    PresenceEvents: presence::events,
    Publish: pubsub::publish,
    Subscribe: pubsub::subscribe,
    Subscriptions: pubsub::subscriptions,
    Unsubscribe: pubsub::unsubscribe,
    Events: pubsub::events,
    Connect: direct::connect,
    ConnectMachine: direct::connect_machine,
    DirectSend: direct::send,
    DirectConnections: direct::connections,
    DirectEvents: direct::events,
    DirectRequest: direct::request,
    DirectStatus: direct::status,
    DirectCancel: direct::cancel,
    DirectReceipts: direct::receipts,
    Inbox: inbox::peek,
    InboxWait: inbox::wait,
    InboxClaim: inbox::claim,
    InboxAck: inbox::ack,
    InboxRelease: inbox::release,
    InboxSeek: inbox::seek,
    InboxConsumers: inbox::consumers,
    InboxCreateConsumer: inbox::create_consumer,
    InboxRemoveConsumer: inbox::remove_consumer,
    History: inbox::history,
    Letters: letters::status,
    SendFile: files::send,
    Transfers: files::list,
    Transfer: files::show,
    AcceptFile: files::accept,
    RejectFile: files::reject,
    CancelFile: files::cancel,
    PauseFile: files::pause,
    ResumeFile: files::resume,
    FileEvents: files::events,
    TaskLists: tasks::lists,
    CreateTaskList: tasks::create,
    TaskListStatus: tasks::status,
    LeaveTaskList: tasks::leave,
    TaskListPolicy: tasks::policy,
    Tasks: tasks::show,
    AddTask: tasks::add,
    Task: tasks::get,
    ChangeTask: tasks::change,
    DeleteTask: tasks::delete,
    TaskEvents: tasks::events,
    Stores: stores::list,
    CreateStore: stores::create,
    StoreStatus: stores::status,
    LeaveStore: stores::leave,
    JoinStore: stores::join,
    StorePolicy: stores::policy,
    Keys: stores::keys,
    Value: stores::get,
    PutValue: stores::put,
    DeleteValue: stores::delete,
    WatchStore: stores::watch,
    Groups: groups::list,
    CreateGroup: groups::create,
    JoinGroup: groups::join,
    GroupEvents: groups::talk::events,
    Group: groups::show,
    ChangeGroup: groups::change,
    LeaveGroup: groups::leave,
    GroupMembers: groups::members,
    AddMember: groups::add,
    RemoveMember: groups::remove,
    SetRole: groups::set_role,
    Ban: groups::ban,
    Unban: groups::unban,
    GroupPolicy: groups::policy,
    DisplayName: groups::display_name,
    Invite: groups::invite,
    RevokeInvite: groups::revoke_invite,
    JoinRequests: groups::requests,
    AskToJoin: groups::ask,
    ApproveRequest: groups::approve,
    RejectRequest: groups::reject,
    GroupSend: groups::talk::send,
    GroupMessages: groups::talk::messages,
    GroupState: groups::state::show,
    SealState: groups::state::seal,
    WithdrawGroup: groups::state::withdraw,
    JoinOpenGroup: groups::enter,
    CancelRequest: groups::cancel,
    SetRoom: groups::set_room,
    HideMessage: groups::hide,
    DiscoverGroups: groups::cards::discover,
    NearbyGroups: groups::cards::nearby,
    CardSubscriptions: groups::cards::subscriptions,
    SubscribeCards: groups::cards::subscribe,
    UnsubscribeCards: groups::cards::unsubscribe,
    GroupCard: groups::cards::card,
    ImportGroupCard: groups::cards::import,
    SecureEncrypt: groups::keys::secure_encrypt,
    SecureDecrypt: groups::keys::secure_decrypt,
    MlsGroups: groups::keys::list,
    CreateMlsGroup: groups::keys::create,
    MlsGroup: groups::keys::show,
    AddMlsMember: groups::keys::add,
    RemoveMlsMember: groups::keys::remove,
    MlsEncrypt: groups::keys::encrypt,
    MlsDecrypt: groups::keys::decrypt,
    MlsWelcome: groups::keys::welcome,
    Ws: websocket::general,
    WsDirect: websocket::direct,
    WsSessions: websocket::sessions,
}

fn route<H: Handler<T, Arc<App>>, T: 'static>(
    method: Method,
    handler: H,
) -> MethodRouter<Arc<App>> {
    let filter = match method {
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    };
    on(filter, handler)
}
