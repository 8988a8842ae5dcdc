//! What goes on beside the driver: reading, storing and sealing.

use std::sync::Arc;

use bytes::Bytes;
use x0x_core::{AgentId, MachineId};
use x0x_identity::{SecretKey, SignedBinding, Tag};

use super::{
    super::{
        collector::{CollectorInput, Taken},
        depositor::{DepositorInput, PendingEntry},
        holder::{Held, HolderInput},
        letter::{After, Draft, Opened, seal as seal_letter},
        store::LetterChange,
        wire::{Digest, Grant},
    },
    Sealed, Shared, Work,
};
use crate::{
    handle::Accepted,
    mail::{Letter, MailError},
    wire::{Kind, MessageId, Terms},
};

/// What came of it.
pub(super) enum Done {
    Holder(HolderInput),
    Collector(CollectorInput),
    Depositor(DepositorInput),
    Sealed { to: AgentId, id: MessageId, sealed: Option<Sealed> },
    Recorded { changes: Vec<LetterChange>, result: Result<(), MailError> },
    Looked(Result<Vec<Held>, MailError>),
    Met,
}

pub(super) fn store(shared: Shared, peer: MachineId, held: Held, sealed: Bytes) -> Work {
    Box::pin(async move {
        let stored = shared.store.commit(vec![LetterChange::Hold { held, sealed }]).await;
        if let Err(error) = &stored {
            tracing::debug!(%error, "a letter of others is not stored");
        }
        Done::Holder(HolderInput::Stored { peer, held, kept: stored.is_ok() })
    })
}

pub(super) fn load(shared: Shared, peer: MachineId, tag: Tag, digest: Digest) -> Work {
    Box::pin(async move {
        let sealed = shared.store.sealed(tag, digest).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "a letter of others cannot be read");
            None
        });
        Done::Holder(HolderInput::Loaded { peer, digest, sealed })
    })
}

/// What waits for an agent, and what is known of its mailbox.
pub(super) fn look(shared: Shared, to: AgentId, grant: Option<&Grant>) -> Work {
    let (granted, places) = (grant.is_some(), grant.and_then(|grant| grant.places));
    Box::pin(async move {
        let waiting = shared.outbox.pending(to).await;
        let letters = waiting.into_iter().map(|letter| PendingEntry {
            number: letter.number,
            id: letter.id,
            bytes: letter.bytes,
            expires_at: letter.expires_at,
        });
        let letters = letters.collect();
        Done::Depositor(DepositorInput::Pending { to, letters, granted, places })
    })
}

pub(super) fn seal(
    shared: Shared,
    (key, binding): (SecretKey, Arc<SignedBinding>),
    grant: Option<Grant>,
    to: AgentId,
    id: MessageId,
    number: u64,
    after: Option<After>,
) -> Work {
    Box::pin(async move {
        // What may be sealed later is not passed over: what comes next would not name it.
        let later = Done::Depositor(DepositorInput::Unsealed { to, id });
        let Some(grant) = grant else { return later };
        let letters = match shared.mailing.store().letters(vec![number]).await {
            Ok(letters) => letters,
            Err(error) => {
                tracing::debug!(%error, "a message that waits cannot be read");
                return later;
            }
        };
        let letter =
            letters.into_iter().find(|letter| letter.id == id && letter.state.is_pending());
        // A note of what was read has no place in the inbox by which a later letter could be known to
        // follow it, and can wait.
        let Some(letter) = letter.filter(|letter| !letter.is_read_note) else {
            return Done::Sealed { to, id, sealed: None };
        };
        let (expires_at, secret) = (letter.expires_at, grant.secret);
        let sealed = seal_letter(&draft(letter, after), &key, &binding, (&grant.kem, &secret));
        match sealed {
            Ok(bytes) => {
                Done::Sealed { to, id, sealed: Some(Sealed { bytes, expires_at, secret }) }
            }
            Err(error) => {
                tracing::debug!(%error, "a message is not sealed");
                later
            }
        }
    })
}

fn draft(letter: Letter, after: Option<After>) -> Draft {
    let Letter { id, to, payload, reply_to, wants_read, .. } = letter;
    Draft {
        id,
        to,
        kind: Kind::Mail,
        reply_to,
        wants_read,
        sent_at: letter.posted_at,
        expires_at: letter.expires_at,
        after,
        payload,
    }
}

/// Commits changes, which come back if that fails.
pub(super) fn record(shared: &Shared, changes: Vec<LetterChange>) -> Work {
    let store = Arc::clone(&shared.store);
    Box::pin(async move {
        let result = store.commit(changes.clone()).await;
        Done::Recorded { changes, result }
    })
}

/// What letters of others are in the store.
pub(super) fn held(shared: &Shared) -> Work {
    let store = Arc::clone(&shared.store);
    Box::pin(async move { Done::Looked(store.load().await.map(|stored| stored.held)) })
}

pub(super) fn knows(shared: Shared, from: (AgentId, MachineId), id: MessageId) -> Work {
    Box::pin(async move {
        let known = shared.store.has_mail(from.1, id).await.unwrap_or(false);
        Done::Collector(CollectorInput::Known { from, id, known })
    })
}

pub(super) fn deliver(shared: Shared, letter: Box<Opened>, local: AgentId) -> Work {
    Box::pin(async move {
        let from = (letter.from(), letter.machine());
        let Draft { id, kind, reply_to, wants_read, payload, .. } = letter.draft;
        let terms = Terms { kind, reply_to, wants_read, ..Terms::default() };
        let accepted = shared.direct.accept(id, from, local, payload, terms).await;
        let taken = match accepted {
            Accepted::Stored => Taken::Stored,
            Accepted::Duplicate => Taken::Duplicate,
            Accepted::Unwanted => Taken::Unwanted,
            Accepted::Busy => Taken::Busy,
        };
        Done::Collector(CollectorInput::Delivered { from, id, taken })
    })
}
