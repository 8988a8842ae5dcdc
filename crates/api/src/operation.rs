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
    /// `POST /announce`
    Announce = "announce";
    /// `GET /peers`
    Peers = "peers";
    /// `GET /network/status`
    NetworkStatus = "networkStatus";
    /// `GET /diagnostics/gossip`
    GossipDiagnostics = "gossipDiagnostics";
    /// `GET /agents/discovered`
    DiscoveredAgents = "discoveredAgents";
    /// `GET /agents/discovered/{agent_id}`
    DiscoveredAgent = "discoveredAgent";
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
    /// `POST /direct/send`
    DirectSend = "directSend";
    /// `GET /direct/connections`
    DirectConnections = "directConnections";
    /// `GET /direct/events`
    DirectEvents = "directEvents";
    /// `GET /ws`
    Ws = "ws";
    /// `GET /ws/direct`
    WsDirect = "wsDirect";
    /// `GET /ws/sessions`
    WsSessions = "wsSessions";
}
