//! The announcement: an agent says where it is.
//!
//! It is the payload of an entry on the topic [`ANNOUNCE_TOPIC`], whose signature by the agent
//! covers it. What it says about the machine is proven by the binding in it.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use prost::Message;
use x0x_core::{
    AgentId, DecodeError, MAX_ADDRESSES, MachineId, UserId, WallTime, decode_bounded, fixed_bytes,
};
use x0x_identity::{AgentBinding, BindingError, MAX_CLOCK_SKEW, SignedBinding, SignedBindingIn};

use crate::error::VerifyError;

#[cfg(test)]
mod tests;

/// Name of the topic of announcements.
pub const ANNOUNCE_TOPIC: &str = "x0x.agents.announce.1";
/// Largest announcement in bytes: a binding, eight addresses, and room for fields to come.
pub const MAX_ANNOUNCEMENT: usize = 8 * 1024;

#[derive(Clone, PartialEq, Message)]
struct AgentAnnouncement {
    #[prost(bytes = "vec", tag = "1")]
    agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    machine_id: Vec<u8>,
    #[prost(bytes = "vec", optional, tag = "3")]
    user_id: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    addresses: Vec<Address>,
    #[prost(uint64, tag = "5")]
    announced_at_ms: u64,
    #[prost(uint64, tag = "6")]
    counter: u64,
    #[prost(bytes = "bytes", tag = "7")]
    binding: Bytes,
}

#[derive(Clone, PartialEq, Message)]
struct Address {
    #[prost(bytes = "vec", tag = "1")]
    ip: Vec<u8>,
    #[prost(uint32, tag = "2")]
    port: u32,
}

/// Orders the announcements of one agent, across restarts: by time, then by a counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// When it was made. Never goes back while the agent runs, even if the clock does.
    pub announced_at: WallTime,
    /// Counts the announcements since the agent started.
    pub counter: u64,
}

/// What an agent announces. Received ones come only from [`AnnouncementIn::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The agent.
    pub agent: AgentId,
    /// The machine that it runs on, proven by its binding.
    pub machine: MachineId,
    /// The user that the agent says stands behind it: its own claim, which no user has confirmed.
    /// Reserved for the time when certificates do; until then nobody is shown it.
    pub user: Option<UserId>,
    /// Where the machine may be reached; at most [`MAX_ADDRESSES`].
    pub addresses: Vec<SocketAddr>,
    /// Its place in the order of the agent's announcements.
    pub stamp: Stamp,
}

impl Announcement {
    /// The wire form, with the binding that proves agent and machine. Addresses beyond
    /// [`MAX_ADDRESSES`] are left out.
    #[must_use]
    pub fn encode(&self, binding: &SignedBinding) -> Bytes {
        let message = AgentAnnouncement {
            agent_id: self.agent.as_bytes().to_vec(),
            machine_id: self.machine.as_bytes().to_vec(),
            user_id: self.user.map(|user| user.as_bytes().to_vec()),
            addresses: self.addresses.iter().take(MAX_ADDRESSES).map(encode_address).collect(),
            announced_at_ms: self.stamp.announced_at.as_millis(),
            counter: self.stamp.counter,
            binding: binding.encode(),
        };
        message.encode_to_vec().into()
    }

    /// Reads an announcement's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field is out of range.
    pub fn decode(bytes: &[u8]) -> Result<AnnouncementIn, DecodeError> {
        let message: AgentAnnouncement = decode_bounded(bytes, MAX_ANNOUNCEMENT)?;
        if message.addresses.len() > MAX_ADDRESSES {
            return Err(DecodeError::Field("addresses"));
        }
        let user = message.user_id.map(|id| fixed_bytes(&id, "user_id")).transpose()?;
        let addresses = message.addresses.iter().map(decode_address).collect::<Result<_, _>>()?;
        let claimed = Self {
            agent: AgentId::new(fixed_bytes(&message.agent_id, "agent_id")?),
            machine: MachineId::new(fixed_bytes(&message.machine_id, "machine_id")?),
            user: user.map(UserId::new),
            addresses,
            stamp: Stamp {
                announced_at: WallTime::from_millis(message.announced_at_ms),
                counter: message.counter,
            },
        };
        Ok(AnnouncementIn { claimed, binding: SignedBinding::decode(&message.binding)? })
    }
}

fn encode_address(address: &SocketAddr) -> Address {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    Address { ip, port: u32::from(address.port()) }
}

fn decode_address(address: &Address) -> Result<SocketAddr, DecodeError> {
    let ip = match address.ip.len() {
        4 => IpAddr::from(fixed_bytes::<4>(&address.ip, "ip")?),
        16 => IpAddr::from(fixed_bytes::<16>(&address.ip, "ip")?),
        _ => return Err(DecodeError::Field("ip")),
    };
    let port = u16::try_from(address.port).map_err(|_| DecodeError::Field("port"))?;
    Ok(SocketAddr::new(ip, port))
}

/// A received announcement: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct AnnouncementIn {
    claimed: Announcement,
    binding: SignedBindingIn,
}

impl AnnouncementIn {
    /// The agent that it claims to be from. Only for looking up what is known already.
    #[must_use]
    pub const fn claimed_agent(&self) -> AgentId {
        self.claimed.agent
    }

    /// The order that it claims. Only for skipping what would be refused anyway.
    #[must_use]
    pub const fn claimed_stamp(&self) -> Stamp {
        self.claimed.stamp
    }

    /// Checks that the announced agent is the `author` whose signature pubsub verified, that it is
    /// not from the future, and that the binding proves the machine at time `now`. The binding is for
    /// whoever decides whether it counts.
    ///
    /// # Errors
    /// [`VerifyError`] with the first thing that is wrong.
    pub fn verify(
        self,
        author: AgentId,
        now: WallTime,
    ) -> Result<(Announcement, AgentBinding), VerifyError> {
        let Self { claimed, binding } = self;
        if claimed.agent != author {
            return Err(VerifyError::WrongAuthor);
        }
        if claimed.stamp.announced_at > now + MAX_CLOCK_SKEW {
            return Err(VerifyError::FromTheFuture);
        }
        if binding.claimed_agent() != author {
            return Err(BindingError::WrongAgent.into());
        }
        let verified = binding.verify(claimed.machine, now)?;
        Ok((claimed, verified.binding))
    }
}
