//! Messages of the control stream, and close codes.
//!
//! Decoding takes two steps: [`ControlIn::decode`] checks sizes and shapes, [`HelloIn::verify`] the
//! network and the signatures. Only a verified [`Hello`] reaches the session machine. The schema is
//! `docs/protocol/transport.proto`.

mod dialback;
mod proto;
mod punch;
mod relay;

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use bytes::Bytes;
use prost::Message;
use x0x_core::{
    AgentId, DecodeError, MAX_ADDRESSES, MachineId, WallTime, decode_bounded, fixed_bytes,
};
use x0x_identity::{
    BindingError, BindingPolicy, MAX_SIGNED_BINDING, Shown, SignedBinding, SignedBindingIn,
};

pub use self::{
    dialback::{DialBack, DialBackStep},
    punch::{MAX_WAIT_MS, Offer, Punch, Refusal, RoundId},
    relay::{ContextId, RelayRefusal, RelayStep},
};
use crate::MAX_AGENTS;

/// Version of the session protocol. Another one is refused like another network.
pub const VERSION: u32 = 1;
/// Largest hello in bytes: [`MAX_AGENTS`] bindings, the addresses, and room for fields to come.
pub const MAX_HELLO: usize = MAX_AGENTS * (MAX_SIGNED_BINDING + 8) + 1024;
/// Largest of the other control messages in bytes. An offer of eight IPv6 addresses takes 260.
pub const MAX_CONTROL: usize = 512;

/// BLAKE3 context under which a network's name becomes its tag.
const NETWORK_CONTEXT: &str = "x0x transport network id 1";

/// Which network a machine belongs to: machines of different networks refuse each other. Not the network's id,
/// which gossip signs in every run: a tag of the same name under a context of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NetworkTag([u8; 32]);

impl NetworkTag {
    /// The tag of a network's name.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(blake3::derive_key(NETWORK_CONTEXT, name.as_bytes()))
    }
}

impl fmt::Debug for NetworkTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkTag({})", MachineId::new(self.0).short())
    }
}

/// Random number of one run of a process: a peer with another one was restarted.
pub type Instance = [u8; 16];

/// What this end says of itself on a new link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HelloOut {
    /// The network.
    pub network: NetworkTag,
    /// This run of this process.
    pub instance: Instance,
    /// Encoded agent bindings; at most [`MAX_AGENTS`] are sent.
    pub bindings: Vec<Bytes>,
    /// Where this machine listens; at most [`MAX_ADDRESSES`] are sent.
    pub listen_addresses: Vec<SocketAddr>,
    /// Asks the arbiter to drop the session that it believes to have with this machine.
    pub replace: bool,
}

/// A message of the control stream, to send.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlOut {
    /// First on every link, from both ends.
    Hello(HelloOut),
    /// The arbiter chose this link to be its session of this number.
    Keep(u64),
    /// Asks for a [`ControlOut::Pong`].
    Ping(u64),
    /// Answers a ping with its nonce.
    Pong(u64),
    /// Where the receiver's packets come from.
    Observed {
        /// Counts this link's reports; the highest is the latest.
        seq: u64,
        /// The address seen.
        address: SocketAddr,
    },
    /// A step of an agreement to send at once.
    Punch(Punch),
    /// A step in the life of a relay's context.
    Relay(RelayStep),
    /// A step of a question whether a machine is reachable.
    DialBack(DialBackStep),
}

impl ControlOut {
    /// The wire form.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let kind = match self {
            Self::Hello(hello) => proto::Kind::Hello(hello.to_proto()),
            Self::Keep(number) => proto::Kind::Keep(proto::Keep { number: *number }),
            Self::Ping(nonce) => proto::Kind::Ping(proto::Ping { nonce: *nonce }),
            Self::Pong(nonce) => proto::Kind::Pong(proto::Pong { nonce: *nonce }),
            Self::Observed { seq, address } => {
                proto::Kind::Observed(proto::Observed { seq: *seq, address: pack(*address) })
            }
            Self::Punch(punch) => punch.to_proto(),
            Self::Relay(step) => step.to_proto(),
            Self::DialBack(step) => step.to_proto(),
        };
        proto::Control { kind: Some(kind) }.encode_to_vec().into()
    }
}

impl HelloOut {
    /// A hello without agents and addresses.
    #[must_use]
    pub const fn new(network: NetworkTag, instance: Instance) -> Self {
        Self {
            network,
            instance,
            bindings: Vec::new(),
            listen_addresses: Vec::new(),
            replace: false,
        }
    }

    fn to_proto(&self) -> proto::Hello {
        proto::Hello {
            version: VERSION,
            network: Bytes::copy_from_slice(&self.network.0),
            instance: Bytes::copy_from_slice(&self.instance),
            bindings: self.bindings.iter().take(MAX_AGENTS).cloned().collect(),
            listen: self.listen_addresses.iter().take(MAX_ADDRESSES).map(|a| pack(*a)).collect(),
            replace: self.replace,
        }
    }
}

/// A received control message: well-formed, not verified.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ControlIn {
    /// The peer introduces itself.
    Hello(Box<HelloIn>),
    /// The peer, as the arbiter, chose this link to be its session of this number.
    Keep(u64),
    /// To be answered.
    Ping(u64),
    /// Answers a ping.
    Pong(u64),
    /// Where the peer sees this machine.
    Observed {
        /// Counts the link's reports.
        seq: u64,
        /// The address, IPv4 in its own form.
        address: SocketAddr,
    },
    /// A step of an agreement to send at once.
    Punch(Box<Punch>),
    /// A step in the life of a relay's context.
    Relay(RelayStep),
    /// A step of a question whether a machine is reachable.
    DialBack(Box<DialBackStep>),
    /// Of a later version of the protocol; to be skipped.
    Unknown,
}

impl ControlIn {
    /// Reads a control message. Only the first one on a link, the hello, may be large.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &Bytes, first: bool) -> Result<Self, DecodeError> {
        let max = if first { MAX_HELLO } else { MAX_CONTROL };
        let control: proto::Control = decode_bounded(bytes.clone(), max)?;
        Ok(match control.kind {
            Some(proto::Kind::Hello(hello)) => Self::Hello(Box::new(HelloIn::from_proto(&hello)?)),
            Some(proto::Kind::Keep(keep)) => Self::Keep(keep.number),
            Some(proto::Kind::Ping(ping)) => Self::Ping(ping.nonce),
            Some(proto::Kind::Pong(pong)) => Self::Pong(pong.nonce),
            Some(proto::Kind::Observed(observed)) => {
                Self::Observed { seq: observed.seq, address: unpack(&observed.address)? }
            }
            Some(proto::Kind::PunchAsk(ask)) => punch(Punch::Ask(Offer::from_proto(&ask)?)),
            Some(proto::Kind::PunchForward(forward)) => {
                punch(Punch::Forward(Offer::from_proto(&forward)?))
            }
            Some(proto::Kind::PunchAccept(accept)) => {
                punch(Punch::Accept(Offer::from_proto(&accept)?))
            }
            Some(proto::Kind::PunchRefuse(refuse)) => punch(Punch::refuse_from_proto(&refuse)?),
            Some(proto::Kind::RelayOpen(open)) => Self::Relay(RelayStep::open_from_proto(&open)?),
            Some(proto::Kind::RelayIncoming(incoming)) => {
                Self::Relay(RelayStep::incoming_from_proto(&incoming)?)
            }
            Some(proto::Kind::RelayOk(ok)) => Self::Relay(RelayStep::ok_from_proto(ok)),
            Some(proto::Kind::RelayClose(close)) => Self::Relay(RelayStep::close_from_proto(close)),
            Some(proto::Kind::DialBackAsk(ask)) => {
                Self::DialBack(Box::new(DialBackStep::Ask(DialBack::from_proto(&ask)?)))
            }
            Some(proto::Kind::DialBackForward(ask)) => {
                Self::DialBack(Box::new(DialBackStep::Forward(DialBack::from_proto(&ask)?)))
            }
            None => Self::Unknown,
        })
    }
}

fn punch(punch: Punch) -> ControlIn {
    ControlIn::Punch(Box::new(punch))
}

/// A received hello: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct HelloIn {
    version: u32,
    network: NetworkTag,
    instance: Instance,
    bindings: Vec<SignedBindingIn>,
    listen_addresses: Vec<SocketAddr>,
    replace: bool,
}

/// A hello that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hello {
    /// This run of the peer's process.
    pub instance: Instance,
    /// The agents that it proved and that count here, each once.
    pub agents: Vec<AgentId>,
    /// Where it says that it listens. Its word only: it may name others' addresses.
    pub listen_addresses: Vec<SocketAddr>,
    /// It lost its session and asks for this link in its place.
    pub replace: bool,
    /// One of the agents is preferred here to strangers.
    pub preferred: bool,
}

/// A hello that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// Another version of the session protocol.
    #[error("session protocol version {0}")]
    Version(u32),
    /// Another network.
    #[error("another network")]
    Network,
    /// One of the bindings.
    #[error("binding: {0}")]
    Binding(#[from] BindingError),
    /// The machine is refused here.
    #[error("the machine is refused")]
    Refused,
}

impl HelloError {
    /// The code to close the link with.
    #[must_use]
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::Version(_) | Self::Network => CloseCode::WrongNetwork,
            Self::Binding(_) => CloseCode::Misbehaved,
            Self::Refused => CloseCode::Refused,
        }
    }
}

impl HelloIn {
    fn from_proto(hello: &proto::Hello) -> Result<Self, DecodeError> {
        if hello.bindings.len() > MAX_AGENTS {
            return Err(DecodeError::Field("bindings"));
        }
        if hello.listen.len() > MAX_ADDRESSES {
            return Err(DecodeError::Field("listen"));
        }
        // The other fields of another version mean what they like.
        let current = hello.version == VERSION;
        let bindings = hello.bindings.iter().filter(|_| current);
        Ok(Self {
            version: hello.version,
            network: NetworkTag(fixed_bytes(&hello.network, "network")?),
            instance: fixed_bytes(&hello.instance, "instance")?,
            bindings: bindings.map(|b| SignedBinding::decode(b)).collect::<Result<_, _>>()?,
            listen_addresses: hello.listen.iter().map(|a| unpack(a)).collect::<Result<_, _>>()?,
            replace: hello.replace,
        })
    }

    /// Checks the version, the network and each binding for the machine that proved its id on the
    /// link. The cheap checks come first. Agents that do not count by the policy are left out.
    ///
    /// # Errors
    /// [`HelloError`] with the first thing that is wrong.
    pub fn verify(
        self,
        network: NetworkTag,
        machine: MachineId,
        now: WallTime,
        policy: &dyn BindingPolicy,
    ) -> Result<Hello, HelloError> {
        if self.version != VERSION {
            return Err(HelloError::Version(self.version));
        }
        if self.network != network {
            return Err(HelloError::Network);
        }
        if policy.refuses(&machine) {
            return Err(HelloError::Refused);
        }
        let mut agents = Vec::with_capacity(self.bindings.len());
        for binding in self.bindings {
            let binding = binding.verify(machine, now)?.binding;
            if !agents.contains(&binding.agent) && policy.accepts(&binding, Shown::Session) {
                agents.push(binding.agent);
            }
        }
        let preferred = agents.iter().any(|agent| policy.prefers(agent));
        let Self { instance, listen_addresses, replace, .. } = self;
        Ok(Hello { instance, agents, listen_addresses, replace, preferred })
    }
}

/// IP then port, big-endian: 6 bytes for IPv4, 18 for IPv6.
pub(crate) fn pack(address: SocketAddr) -> Bytes {
    let mut bytes = match address.ip().to_canonical() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_be_bytes());
    bytes.into()
}

pub(crate) fn unpack(bytes: &[u8]) -> Result<SocketAddr, DecodeError> {
    let invalid = || DecodeError::Field("address");
    let (ip, port) = bytes.split_last_chunk::<2>().ok_or_else(invalid)?;
    let ip: IpAddr = match ip.len() {
        4 => Ipv4Addr::from(fixed_bytes::<4>(ip, "address")?).into(),
        16 => Ipv6Addr::from(fixed_bytes::<16>(ip, "address")?).into(),
        _ => return Err(invalid()),
    };
    Ok(SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*port)))
}

/// Why a connection is closed: the QUIC application error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum CloseCode {
    /// The machine is going away.
    Shutdown = 0,
    /// The arbiter keeps another connection to the same peer.
    Duplicate = 1,
    /// The peer broke a rule of the protocol.
    Misbehaved = 2,
    /// Another network id or protocol version.
    WrongNetwork = 3,
    /// Too many sessions.
    Limit = 4,
    /// The layer above asked for it.
    Disconnected = 5,
    /// The hello or the keep did not arrive in time.
    Timeout = 6,
    /// The peer, or an agent that it proved, is refused.
    Refused = 7,
}

impl CloseCode {
    /// The code with this number; an unknown number reads as [`CloseCode::Misbehaved`].
    #[must_use]
    pub fn from_wire(number: u64) -> Self {
        match number {
            0 => Self::Shutdown,
            1 => Self::Duplicate,
            3 => Self::WrongNetwork,
            4 => Self::Limit,
            5 => Self::Disconnected,
            6 => Self::Timeout,
            7 => Self::Refused,
            _ => Self::Misbehaved,
        }
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shutdown",
            Self::Duplicate => "duplicate connection",
            Self::Misbehaved => "protocol violation",
            Self::WrongNetwork => "wrong network",
            Self::Limit => "limit reached",
            Self::Disconnected => "disconnected",
            Self::Timeout => "timeout",
            Self::Refused => "refused",
        })
    }
}

#[cfg(test)]
mod tests;
