//! The schema. Field numbers are never reused.

use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Control {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 20, 21")]
    pub(super) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Kind {
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Keep(Keep),
    #[prost(message, tag = "3")]
    Ping(Ping),
    #[prost(message, tag = "4")]
    Pong(Pong),
    #[prost(message, tag = "5")]
    Observed(Observed),
    #[prost(message, tag = "6")]
    PunchAsk(Offer),
    #[prost(message, tag = "7")]
    PunchForward(Offer),
    #[prost(message, tag = "8")]
    PunchAccept(Offer),
    #[prost(message, tag = "9")]
    PunchRefuse(Refuse),
    #[prost(message, tag = "10")]
    RelayOpen(RelayOpen),
    #[prost(message, tag = "11")]
    RelayIncoming(RelayIncoming),
    #[prost(message, tag = "12")]
    RelayOk(RelayOk),
    #[prost(message, tag = "13")]
    RelayClose(RelayClose),
    #[prost(message, tag = "20")]
    DialBackAsk(DialBack),
    #[prost(message, tag = "21")]
    DialBackForward(DialBack),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct DialBack {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) round: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) seed: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) address: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Offer {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) round: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) peer: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) seed: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) addresses: Vec<Bytes>,
    #[prost(uint32, tag = "5")]
    pub(super) wait_ms: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Refuse {
    #[prost(bytes = "bytes", tag = "1")]
    pub(super) round: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) peer: Bytes,
    #[prost(uint32, tag = "3")]
    pub(super) why: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RelayOpen {
    #[prost(uint32, tag = "1")]
    pub(super) context: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) target: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct RelayIncoming {
    #[prost(uint32, tag = "1")]
    pub(super) context: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) from: Bytes,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct RelayOk {
    #[prost(uint32, tag = "1")]
    pub(super) context: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct RelayClose {
    #[prost(uint32, tag = "1")]
    pub(super) context: u32,
    #[prost(bool, tag = "2")]
    pub(super) from_relay: bool,
    #[prost(uint32, tag = "3")]
    pub(super) why: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hello {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) network: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    pub(super) instance: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "4")]
    pub(super) bindings: Vec<Bytes>,
    #[prost(bytes = "bytes", repeated, tag = "5")]
    pub(super) listen: Vec<Bytes>,
    #[prost(bool, tag = "6")]
    pub(super) replace: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Keep {
    #[prost(uint64, tag = "1")]
    pub(super) number: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Ping {
    #[prost(fixed64, tag = "1")]
    pub(super) nonce: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Pong {
    #[prost(fixed64, tag = "1")]
    pub(super) nonce: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Observed {
    #[prost(uint64, tag = "1")]
    pub(super) seq: u64,
    #[prost(bytes = "bytes", tag = "2")]
    pub(super) address: Bytes,
}
