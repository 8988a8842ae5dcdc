//! An agent's signed statement that it runs on a machine.
//!
//! The transport authenticates machines; a session hello and an announcement carry this binding to
//! prove which agents stand behind a machine. The signature covers the received body bytes exactly,
//! since protobuf has no canonical form.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use x0x_core::{AgentId, DecodeError, MachineId, WallTime, decode_bounded, fixed_bytes};

use crate::{
    error::BindingError,
    keys::{PUBLIC_KEY_LEN, PublicKey, SIGNATURE_LEN, SecretKey, Signature},
};

#[cfg(test)]
mod tests;

/// Domain of a binding's signature.
pub const BINDING_DOMAIN: &str = "x0x.identity.binding.1";
/// Longest validity of a binding. Bounds how long a stolen machine key can pose as the agent's.
pub const MAX_BINDING_VALIDITY: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far ahead the issuer's clock may be.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// Largest encoding of a signed binding in bytes: a body, a key and a signature.
pub const MAX_SIGNED_BINDING: usize = MAX_BODY + PUBLIC_KEY_LEN + SIGNATURE_LEN + 64;
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
}

#[derive(Clone, PartialEq, Message)]
struct BindingEnvelope {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    agent_key: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
}

/// A binding that this process issued, with its encoding.
#[derive(Debug, Clone)]
pub struct SignedBinding {
    binding: AgentBinding,
    encoded: Bytes,
}

impl SignedBinding {
    /// States that the agent runs on `machine` from `now` on. A validity above
    /// [`MAX_BINDING_VALIDITY`] is cut to it, since nobody would accept it.
    #[must_use]
    pub fn issue(agent: &SecretKey, machine: MachineId, now: WallTime, validity: Duration) -> Self {
        let key = agent.public_key();
        let binding = AgentBinding {
            agent: key.agent_id(),
            machine,
            not_before: now,
            not_after: now + validity.min(MAX_BINDING_VALIDITY),
        };
        let body = BindingBody {
            agent_id: binding.agent.as_bytes().to_vec(),
            machine_id: machine.as_bytes().to_vec(),
            not_before_ms: binding.not_before.as_millis(),
            not_after_ms: binding.not_after.as_millis(),
        }
        .encode_to_vec();
        let signature = agent.sign(BINDING_DOMAIN, &body);
        let envelope = BindingEnvelope {
            body: body.into(),
            agent_key: Bytes::copy_from_slice(key.as_bytes()),
            signature: Bytes::copy_from_slice(signature.as_bytes()),
        };
        Self { binding, encoded: envelope.encode_to_vec().into() }
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
        let envelope: BindingEnvelope = decode_bounded(bytes, MAX_SIGNED_BINDING)?;
        let body: BindingBody = decode_bounded(envelope.body.clone(), MAX_BODY)?;
        let signature = Signature::from_bytes(&envelope.signature)
            .map_err(|_| DecodeError::Field("signature"))?;
        Ok(SignedBindingIn {
            claimed: AgentBinding {
                agent: AgentId::new(fixed_bytes(&body.agent_id, "agent_id")?),
                machine: MachineId::new(fixed_bytes(&body.machine_id, "machine_id")?),
                not_before: WallTime::from_millis(body.not_before_ms),
                not_after: WallTime::from_millis(body.not_after_ms),
            },
            agent_key: Box::new(fixed_bytes(&envelope.agent_key, "agent_key")?),
            body: envelope.body,
            signature,
        })
    }
}

/// A received binding: well-formed, not verified.
#[derive(Debug, Clone)]
pub struct SignedBindingIn {
    claimed: AgentBinding,
    agent_key: Box<[u8; PUBLIC_KEY_LEN]>,
    body: Bytes,
    signature: Signature,
}

impl SignedBindingIn {
    /// The agent it claims to be from. Only for looking up what is known already.
    #[must_use]
    pub const fn claimed_agent(&self) -> AgentId {
        self.claimed.agent
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
        check_validity(&binding, now)?;
        let agent_key = PublicKey::from_bytes(self.agent_key.as_slice())?;
        if agent_key.agent_id() != binding.agent {
            return Err(BindingError::WrongAgent);
        }
        agent_key.verify(BINDING_DOMAIN, &self.body, &self.signature)?;
        Ok(VerifiedBinding { binding, agent_key })
    }
}

fn check_validity(binding: &AgentBinding, now: WallTime) -> Result<(), BindingError> {
    let (start, end) = (binding.not_before, binding.not_after);
    if end <= start || end > start + MAX_BINDING_VALIDITY {
        return Err(BindingError::Validity);
    }
    if start > now + MAX_CLOCK_SKEW {
        return Err(BindingError::NotYetValid);
    }
    if end <= now {
        return Err(BindingError::Expired);
    }
    Ok(())
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
