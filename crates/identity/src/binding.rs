//! An agent's signed statement that it runs on a machine.
//!
//! The transport authenticates machines; a session hello and an announcement carry this binding to
//! prove which agents stand behind a machine.
//!
//! An agent's key may be moved to another machine. Each move counts the binding's *generation* up, so
//! that everybody who has seen a binding of the new machine can refuse those of the old one, even
//! while the old one still holds a copy of the key and goes on issuing.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, MachineId, WallTime, decode_bounded, fixed_bytes};

use crate::{
    envelope::{self, OVERHEAD, SignedIn},
    error::BindingError,
    keys::{PublicKey, SecretKey},
};

#[cfg(test)]
mod tests;

/// Domain of a binding's signature.
pub const BINDING_DOMAIN: &str = "x0x.identity.binding.1";
/// Longest validity of a binding. Bounds how long a stolen machine key can pose as the agent's.
pub const MAX_BINDING_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// Largest encoding of a signed binding in bytes: a body, a key and a signature.
pub const MAX_SIGNED_BINDING: usize = MAX_BODY + OVERHEAD;
/// Largest body in bytes. Twice what version 1 needs, so that fields can be added.
const MAX_BODY: usize = 192;

/// What an agent states about itself and a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AgentBinding {
    /// Who states it.
    pub agent: AgentId,
    /// Where it runs.
    pub machine: MachineId,
    /// Start of the validity.
    pub not_before: WallTime,
    /// End of the validity; not part of it.
    pub not_after: WallTime,
    /// How often the agent was moved, in an order that only grows: 0 where its key was made, the time
    /// of the import in milliseconds elsewhere. A greater one supersedes all smaller ones.
    pub generation: u64,
}

#[derive(Clone, PartialEq, Message)]
struct BindingBody {
    #[prost(bytes = "vec", tag = "1")]
    agent_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    machine_id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    not_before_ms: u64,
    #[prost(uint64, tag = "4")]
    not_after_ms: u64,
    #[prost(uint64, tag = "5")]
    generation: u64,
}

impl From<&AgentBinding> for BindingBody {
    fn from(binding: &AgentBinding) -> Self {
        Self {
            agent_id: binding.agent.as_bytes().to_vec(),
            machine_id: binding.machine.as_bytes().to_vec(),
            not_before_ms: binding.not_before.as_millis(),
            not_after_ms: binding.not_after.as_millis(),
            generation: binding.generation,
        }
    }
}

/// A binding that this process issued, with its encoding.
#[derive(Debug, Clone)]
pub struct SignedBinding {
    binding: AgentBinding,
    encoded: Bytes,
}

impl SignedBinding {
    /// States that the agent runs on `machine` from `now` on, where its key was made. A validity above
    /// [`MAX_BINDING_VALIDITY`] is cut to it, since nobody would accept it.
    #[must_use]
    pub fn issue(agent: &SecretKey, machine: MachineId, now: WallTime, validity: Duration) -> Self {
        Self::issue_moved(agent, machine, 0, now, validity)
    }

    /// As [`issue`](Self::issue), on the machine that the agent was moved to: see
    /// [`AgentBinding::generation`].
    #[must_use]
    pub fn issue_moved(
        agent: &SecretKey,
        machine: MachineId,
        generation: u64,
        now: WallTime,
        validity: Duration,
    ) -> Self {
        let binding = AgentBinding {
            agent: agent.public_key().agent_id(),
            machine,
            not_before: now,
            not_after: now + validity.min(MAX_BINDING_VALIDITY),
            generation,
        };
        let body = BindingBody::from(&binding).encode_to_vec();
        Self { binding, encoded: envelope::seal(agent, BINDING_DOMAIN, body) }
    }

    /// What was stated.
    #[must_use]
    pub const fn binding(&self) -> &AgentBinding {
        &self.binding
    }

    /// The wire form, at most [`MAX_SIGNED_BINDING`] bytes. Cheap: it is kept.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        self.encoded.clone()
    }

    /// Reads a binding's fields. Nothing is verified yet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large, malformed, or a field has the wrong length.
    pub fn decode(bytes: &[u8]) -> Result<SignedBindingIn, DecodeError> {
        let signed = envelope::open(bytes, MAX_BODY, "agent_key")?;
        let body: BindingBody = decode_bounded(signed.body.clone(), MAX_BODY)?;
        let claimed = AgentBinding {
            agent: AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?),
            machine: MachineId::new(fixed_bytes(&body.machine_id, "machine_id")?),
            not_before: WallTime::from_millis(body.not_before_ms),
            not_after: WallTime::from_millis(body.not_after_ms),
            generation: body.generation,
        };
        Ok(SignedBindingIn { claimed, signed })
    }
}

/// A received binding: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct SignedBindingIn {
    claimed: AgentBinding,
    signed: SignedIn,
}

impl SignedBindingIn {
    /// The agent it claims to be from. Only for looking up what is known already.
    #[must_use]
    pub const fn claimed_agent(&self) -> AgentId {
        self.claimed.agent
    }

    /// The machine it claims to be for.
    #[must_use]
    pub const fn claimed_machine(&self) -> MachineId {
        self.claimed.machine
    }

    /// Checks everything: that it is for `machine`, valid at `now`, and signed by its agent. The
    /// signature comes last, since it costs most.
    ///
    /// # Errors
    /// [`BindingError`] with the first thing that is wrong.
    pub fn verify(
        self,
        machine: MachineId,
        now: WallTime,
    ) -> Result<VerifiedBinding, BindingError> {
        let binding = self.claimed;
        if binding.machine != machine {
            return Err(BindingError::WrongMachine);
        }
        let (start, end) = (binding.not_before, binding.not_after);
        envelope::check_validity(start, end, MAX_BINDING_VALIDITY, now)?;
        let agent_key = self.signed.verify(BINDING_DOMAIN, binding.agent.as_bytes())?;
        Ok(VerifiedBinding { binding, agent_key })
    }
}

/// A binding that holds. Only [`SignedBindingIn::verify`] makes one.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VerifiedBinding {
    /// What the agent stated.
    pub binding: AgentBinding,
    /// The agent's key.
    pub agent_key: PublicKey,
}
