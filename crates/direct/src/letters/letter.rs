//! What is in a letter, and how it is closed.
//!
//! The sender signs the letter's body, which names the recipient, and puts in its binding. All of it is
//! padded to one of a few sizes and sealed to the recipient's key, bound to both agents and to the secret
//! of the mailbox: a holder sees the size, and nothing else. The recipient gave that secret to the sender
//! on one machine, in a session that proved both. So who opens a letter knows that it was sealed by
//! somebody who was on that machine with the sender's key, and no letter may name another machine.

use bytes::Bytes;
use prost::Message as _;
use x0x_core::{AgentId, DecodeError, MachineId, WallTime, decode_bounded, fixed_bytes};
use x0x_identity::{
    AgentBinding, BadSignature, BindingError, KemPublic, KemSecret, KeyError, MAX_CLOCK_SKEW,
    MAX_SIGNED_BINDING, MailboxSecret, OpenError, SEALED_OVERHEAD, SIGNATURE_LEN, SealError,
    SecretKey, Signature, SignedBinding,
};

use crate::wire::{Kind, MessageId};

#[cfg(test)]
mod tests;

/// Domain of the signature over a letter's body.
pub const LETTER_DOMAIN: &str = "x0x.direct.letter.1";
/// Largest payload of a letter in bytes; a longer message waits until its recipient is there.
pub const MAX_LETTER_PAYLOAD: usize = 256 * 1024;
/// Largest sealed letter in bytes.
pub const MAX_SEALED: usize = MAX_PADDED + SEALED_OVERHEAD;

/// Largest and smallest size before sealing.
const MAX_PADDED: usize = 384 * 1024;
const MIN_PADDED: usize = 12 * 1024;
/// Bytes of a body beside the payload, with room for fields of later versions.
const MAX_BODY: usize = MAX_LETTER_PAYLOAD + 512;
const MAX_LETTER: usize = MAX_BODY + MAX_SIGNED_BINDING + SIGNATURE_LEN + 64;
/// Bytes that say how long what is padded is.
const LEN: usize = 4;

const _: () = assert!(LEN + MAX_LETTER <= MAX_PADDED);

#[derive(Clone, PartialEq, prost::Message)]
struct LetterMessage {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    binding: Bytes,
    #[prost(bytes = "bytes", tag = "3")]
    signature: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Body {
    #[prost(bytes = "bytes", tag = "1")]
    id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    to: Bytes,
    #[prost(bool, tag = "3")]
    read_note: bool,
    #[prost(bytes = "bytes", optional, tag = "4")]
    reply_to: Option<Bytes>,
    #[prost(bool, tag = "5")]
    wants_read: bool,
    #[prost(uint64, tag = "6")]
    sent_at_ms: u64,
    #[prost(uint64, tag = "7")]
    expires_at_ms: u64,
    #[prost(bytes = "bytes", optional, tag = "8")]
    after_id: Option<Bytes>,
    #[prost(uint64, tag = "9")]
    after_expires_at_ms: u64,
    #[prost(bytes = "bytes", tag = "10")]
    payload: Bytes,
}

/// The message before a letter, which its recipient may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "both ends make them")]
pub struct After {
    /// Its id.
    pub id: MessageId,
    /// When it is given up: later nobody waits for it.
    pub expires_at: WallTime,
}

/// A letter as its sender writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "both ends make them")]
pub struct Draft {
    /// Names the message, on whichever way it comes.
    pub id: MessageId,
    /// The recipient.
    pub to: AgentId,
    /// What it is: mail, or a note of what was read.
    pub kind: Kind,
    /// The message that it answers.
    pub reply_to: Option<MessageId>,
    /// The sender wants to be told when it was read.
    pub wants_read: bool,
    /// When it was posted.
    pub sent_at: WallTime,
    /// When it is given up.
    pub expires_at: WallTime,
    /// What goes before it.
    pub after: Option<After>,
    /// The content, at most [`MAX_LETTER_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// An opened letter: signed by its sender, on the machine to which its mailbox was given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Opened {
    /// What the sender wrote.
    pub draft: Draft,
    /// Who and where the sender is.
    pub binding: AgentBinding,
}

impl Opened {
    /// The sender.
    #[must_use]
    pub const fn from(&self) -> AgentId {
        self.binding.agent
    }

    /// Its machine.
    #[must_use]
    pub const fn machine(&self) -> MachineId {
        self.binding.machine
    }
}

/// A letter was not sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SealLetterError {
    /// The payload is longer than [`MAX_LETTER_PAYLOAD`].
    #[error("payload of {0} bytes exceeds the limit of {MAX_LETTER_PAYLOAD}")]
    TooLarge(usize),
    /// Messages of its kind are not left with others.
    #[error("messages of this kind are not left with others")]
    Kind,
    /// Sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// A letter was not opened. Whoever left it is at fault, unless its holder changed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenLetterError {
    /// It is not sealed to this agent by that one, or without the secret of the mailbox.
    #[error(transparent)]
    Sealed(#[from] OpenError),
    /// What is in it is no letter.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// It is for somebody else.
    #[error("for somebody else")]
    WrongRecipient,
    /// The binding in it is of another agent than the one whose mailbox it lay in.
    #[error("by somebody else")]
    WrongSender,
    /// The binding in it is of another machine than the one that was given the mailbox.
    #[error("from another machine")]
    WrongMachine,
    /// The binding in it.
    #[error(transparent)]
    Binding(#[from] BindingError),
    /// Its time is over, or has not begun.
    #[error("expired, or from the future")]
    Time,
    /// The signature's form.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The signature.
    #[error(transparent)]
    Signature(#[from] BadSignature),
}

/// The smallest of the permitted sizes that holds so many bytes: two in each doubling.
fn padded_len(len: usize) -> usize {
    let mut size = MIN_PADDED;
    while size < len {
        size = if size.is_power_of_two() { size / 2 * 3 } else { size / 3 * 4 };
    }
    size
}

/// Binds a box to both ends.
fn context(from: &AgentId, to: &AgentId) -> [u8; 64] {
    let mut context = [0; 64];
    let (first, second) = context.split_at_mut(32);
    first.copy_from_slice(from.as_bytes());
    second.copy_from_slice(to.as_bytes());
    context
}

/// Signs a letter and seals it to its recipient's key, for the mailbox of a secret. The binding is the
/// signer's own.
///
/// # Errors
/// [`SealLetterError`]: the message cannot be a letter.
pub fn seal(
    draft: &Draft,
    key: &SecretKey,
    binding: &SignedBinding,
    (to, secret): (&KemPublic, &MailboxSecret),
) -> Result<Bytes, SealLetterError> {
    if draft.payload.len() > MAX_LETTER_PAYLOAD {
        return Err(SealLetterError::TooLarge(draft.payload.len()));
    }
    let read_note = match draft.kind {
        Kind::Mail => false,
        Kind::Read => true,
        Kind::Session => return Err(SealLetterError::Kind),
    };
    let body = Body {
        id: Bytes::copy_from_slice(&draft.id),
        to: Bytes::copy_from_slice(draft.to.as_bytes()),
        read_note,
        reply_to: draft.reply_to.map(|id| Bytes::copy_from_slice(&id)),
        wants_read: draft.wants_read,
        sent_at_ms: draft.sent_at.as_millis(),
        expires_at_ms: draft.expires_at.as_millis(),
        after_id: draft.after.map(|after| Bytes::copy_from_slice(&after.id)),
        after_expires_at_ms: draft.after.map_or(0, |after| after.expires_at.as_millis()),
        payload: draft.payload.clone(),
    };
    let body: Bytes = body.encode_to_vec().into();
    let signature = key.sign(LETTER_DOMAIN, &body);
    let signature = Bytes::copy_from_slice(signature.as_bytes());
    let letter = LetterMessage { body, binding: binding.encode(), signature };
    let len = letter.encoded_len();
    let mut plain = Vec::with_capacity(padded_len(LEN + len));
    // At most `MAX_LETTER`.
    plain.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    plain.extend_from_slice(&letter.encode_to_vec());
    plain.resize(padded_len(plain.len()), 0);
    let from = key.public_key().agent_id();
    let aad = context(&from, &draft.to);
    Ok(to.seal(&secret.seal_info(LETTER_DOMAIN), &aad, &plain)?.into())
}

/// Opens a letter to `to` that lay in the mailbox of `from`, an agent on a machine, with the key and the
/// secret of that mailbox, and checks at time `now` everything that it says.
///
/// # Errors
/// [`OpenLetterError`] with the first thing that is wrong.
pub fn open(
    sealed: &[u8],
    (key, secret): (&KemSecret, &MailboxSecret),
    (from, machine): (&AgentId, &MachineId),
    to: &AgentId,
    now: WallTime,
) -> Result<Opened, OpenLetterError> {
    if sealed.len() > MAX_SEALED {
        return Err(DecodeError::TooLarge { len: sealed.len(), max: MAX_SEALED }.into());
    }
    let info = secret.seal_info(LETTER_DOMAIN);
    let plain: Bytes = key.open(&info, &context(from, to), sealed)?.into();
    let (len, rest) = plain.split_first_chunk::<LEN>().ok_or(DecodeError::Malformed)?;
    let len = u32::from_be_bytes(*len) as usize;
    if len > rest.len() {
        return Err(DecodeError::Field("length").into());
    }
    let letter: LetterMessage = decode_bounded(plain.slice(LEN..LEN + len), MAX_LETTER)?;
    let draft = draft(decode_bounded(letter.body.clone(), MAX_BODY)?)?;
    if draft.to != *to {
        return Err(OpenLetterError::WrongRecipient);
    }
    if draft.sent_at > now + MAX_CLOCK_SKEW || draft.expires_at <= now {
        return Err(OpenLetterError::Time);
    }
    let binding = SignedBinding::decode(&letter.binding)?;
    if binding.claimed_agent() != *from {
        return Err(OpenLetterError::WrongSender);
    }
    if binding.claimed_machine() != *machine {
        return Err(OpenLetterError::WrongMachine);
    }
    let verified = binding.verify(*machine, now)?;
    let signature = Signature::from_bytes(&letter.signature)?;
    verified.agent_key.verify(LETTER_DOMAIN, &letter.body, &signature)?;
    Ok(Opened { draft, binding: verified.binding })
}

fn draft(body: Body) -> Result<Draft, DecodeError> {
    if body.payload.len() > MAX_LETTER_PAYLOAD {
        return Err(DecodeError::TooLarge { len: body.payload.len(), max: MAX_LETTER_PAYLOAD });
    }
    let id = |bytes: Option<Bytes>, field| bytes.map(|id| fixed_bytes(&id, field)).transpose();
    let expires_at = WallTime::from_millis(body.after_expires_at_ms);
    Ok(Draft {
        id: fixed_bytes(&body.id, "id")?,
        to: AgentId::new(fixed_bytes(&body.to, "to")?),
        kind: if body.read_note { Kind::Read } else { Kind::Mail },
        reply_to: id(body.reply_to, "reply_to")?,
        wants_read: body.wants_read,
        sent_at: WallTime::from_millis(body.sent_at_ms),
        expires_at: WallTime::from_millis(body.expires_at_ms),
        after: id(body.after_id, "after_id")?.map(|id| After { id, expires_at }),
        payload: body.payload,
    })
}
