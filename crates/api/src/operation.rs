//! The operations, as a closed list.

macro_rules! operations {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal;)+) => {
        /// What an endpoint does. The daemon matches on it without a wildcard, so that an endpoint
        /// without a handler does not compile.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[expect(clippy::exhaustive_enums, reason = "every operation must have a handler")]
        pub enum Operation {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The OpenAPI operation id.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

operations! {
    /// `GET /health`
    Health = "health";
    /// `GET /status`
    Status = "status";
    /// `POST /shutdown`
    Shutdown = "shutdown";
    /// `GET /metrics`
    Metrics = "metrics";
    /// `GET /openapi.json`
    OpenApi = "openapi";
    /// `GET /agent`
    Agent = "agent";
    /// `GET /agent/user-id`
    UserId = "userId";
    /// `POST /agent/user-id`
    CreateUser = "createUser";
    /// `GET /agent/card`
    AgentCard = "agentCard";
    /// `POST /agent/card/import`
    ImportCard = "importCard";
    /// `POST /agent/export`
    ExportKeys = "exportKeys";
    /// `POST /agent/import`
    ImportKeys = "importKeys";
    /// `GET /introduction`
    Introduction = "introduction";
    /// `POST /announce`
    Announce = "announce";
    /// `POST /identity/revoke`
    RevokeIdentity = "revokeIdentity";
    /// `GET /identity/revocations`
    Revocations = "revocations";
    /// `GET /contacts`
    Contacts = "contacts";
    /// `POST /contacts`
    AddContact = "addContact";
    /// `POST /contacts/trust`
    SetTrust = "setTrust";
    /// `PATCH /contacts/{agent_id}`
    UpdateContact = "updateContact";
    /// `DELETE /contacts/{agent_id}`
    RemoveContact = "removeContact";
    /// `POST /contacts/{agent_id}/revoke`
    RevokeContact = "revokeContact";
    /// `GET /contacts/{agent_id}/revocations`
    ContactRevocations = "contactRevocations";
    /// `GET /contacts/{agent_id}/machines`
    ContactMachines = "contactMachines";
    /// `POST /contacts/{agent_id}/machines`
    AddMachine = "addMachine";
    /// `DELETE /contacts/{agent_id}/machines/{machine_id}`
    RemoveMachine = "removeMachine";
    /// `POST /contacts/{agent_id}/machines/{machine_id}/pin`
    PinMachine = "pinMachine";
    /// `DELETE /contacts/{agent_id}/machines/{machine_id}/pin`
    UnpinMachine = "unpinMachine";
    /// `POST /trust/evaluate`
    EvaluateTrust = "evaluateTrust";
    /// `GET /peers`
    Peers = "peers";
    /// `GET /peers/{peer_id}/health`
    PeerHealth = "peerHealth";
    /// `POST /peers/{peer_id}/probe`
    ProbePeer = "probePeer";
    /// `GET /network/status`
    NetworkStatus = "networkStatus";
    /// `GET /peers/events`
    PeerEvents = "peerEvents";
    /// `GET /network/bootstrap-cache`
    BootstrapCache = "bootstrapCache";
    /// `GET /diagnostics/connectivity`
    Connectivity = "connectivity";
    /// `GET /diagnostics/gossip`
    GossipDiagnostics = "gossipDiagnostics";
    /// `GET /agents/discovered`
    DiscoveredAgents = "discoveredAgents";
    /// `GET /agents/discovered/{agent_id}`
    DiscoveredAgent = "discoveredAgent";
    /// `GET /agents/reachability/{agent_id}`
    Reachability = "reachability";
    /// `GET /agents/{agent_id}/machine`
    AgentMachine = "agentMachine";
    /// `GET /machines/discovered`
    DiscoveredMachines = "discoveredMachines";
    /// `GET /machines/discovered/{machine_id}`
    DiscoveredMachine = "discoveredMachine";
    /// `GET /users/{user_id}/agents`
    UserAgents = "userAgents";
    /// `GET /users/{user_id}/machines`
    UserMachines = "userMachines";
    /// `POST /agents/find/{agent_id}`
    FindAgent = "findAgent";
    /// `GET /presence`
    Presence = "presence";
    /// `GET /presence/online`
    PresenceOnline = "presenceOnline";
    /// `GET /presence/status/{agent_id}`
    PresenceStatus = "presenceStatus";
    /// `GET /presence/find/{agent_id}`
    PresenceFind = "presenceFind";
    /// `GET /presence/foaf`
    PresenceFoaf = "presenceFoaf";
    /// `GET /presence/events`
    PresenceEvents = "presenceEvents";
    /// `POST /publish`
    Publish = "publish";
    /// `POST /subscribe`
    Subscribe = "subscribe";
    /// `DELETE /subscribe/{id}`
    Unsubscribe = "unsubscribe";
    /// `GET /events`
    Events = "events";
    /// `POST /agents/connect`
    Connect = "connect";
    /// `POST /machines/connect`
    ConnectMachine = "connectMachine";
    /// `POST /direct/send`
    DirectSend = "directSend";
    /// `GET /direct/connections`
    DirectConnections = "directConnections";
    /// `GET /direct/events`
    DirectEvents = "directEvents";
    /// `POST /direct/request`
    DirectRequest = "directRequest";
    /// `GET /direct/messages/{id}`
    DirectStatus = "directStatus";
    /// `DELETE /direct/messages/{id}`
    DirectCancel = "directCancel";
    /// `GET /direct/receipts`
    DirectReceipts = "directReceipts";
    /// `GET /inbox`
    Inbox = "inbox";
    /// `GET /inbox/wait`
    InboxWait = "inboxWait";
    /// `POST /inbox/claim`
    InboxClaim = "inboxClaim";
    /// `POST /inbox/ack`
    InboxAck = "inboxAck";
    /// `POST /inbox/release`
    InboxRelease = "inboxRelease";
    /// `POST /inbox/seek`
    InboxSeek = "inboxSeek";
    /// `GET /inbox/consumers`
    InboxConsumers = "inboxConsumers";
    /// `POST /inbox/consumers`
    InboxCreateConsumer = "inboxCreateConsumer";
    /// `DELETE /inbox/consumers/{name}`
    InboxRemoveConsumer = "inboxRemoveConsumer";
    /// `GET /history`
    History = "history";
    /// `GET /letters`
    Letters = "letters";
    /// `POST /files/send`
    SendFile = "sendFile";
    /// `GET /files/transfers`
    Transfers = "transfers";
    /// `GET /files/transfers/{id}`
    Transfer = "transfer";
    /// `POST /files/accept/{id}`
    AcceptFile = "acceptFile";
    /// `POST /files/reject/{id}`
    RejectFile = "rejectFile";
    /// `POST /files/cancel/{id}`
    CancelFile = "cancelFile";
    /// `POST /files/pause/{id}`
    PauseFile = "pauseFile";
    /// `POST /files/resume/{id}`
    ResumeFile = "resumeFile";
    /// `GET /files/events`
    FileEvents = "fileEvents";
    /// `GET /ws`
    Ws = "ws";
    /// `GET /ws/direct`
    WsDirect = "wsDirect";
    /// `GET /ws/sessions`
    WsSessions = "wsSessions";
}
