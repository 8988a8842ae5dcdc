//! Content that travels by other ways than the group's log, for whoever is in the group in the same epoch.

use bytes::Bytes;
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use x0x_mls::{GroupId as MlsId, MlsGroups};
use zeroize::Zeroizing;

use super::NamedGroups;
use crate::{
    error::{ActError, SessionError},
    wire::GroupId,
};

/// Bytes of a nonce, which is random: so long that no two are ever alike.
pub const SEALED_NONCE: usize = 24;
/// What the epoch's secret is exported for.
const LABEL: &str = "groups.sealed.1";

/// Sealed content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The epoch whose members open it.
    pub epoch: u64,
    /// Its nonce.
    pub nonce: [u8; SEALED_NONCE],
    /// The content, encrypted.
    pub ciphertext: Bytes,
}

impl<M: MlsGroups> NamedGroups<M> {
    fn keys_of(&mut self, group: GroupId) -> Result<MlsId, SessionError> {
        let view = self.view(group)?;
        if view.role(&self.agent()).is_none() {
            return Err(ActError::Role("not a member").into());
        }
        let keys = self.slot(group)?.keys;
        Ok(keys.ok_or(ActError::Policy("group is not MlsEncrypted"))?)
    }

    fn cipher(
        &mut self,
        keys: MlsId,
        group: GroupId,
    ) -> Result<(u64, XChaCha20Poly1305), SessionError> {
        let (epoch, _) = self.mls.members(keys)?;
        let secret = self.mls.export(keys, LABEL, group.as_bytes(), 32)?;
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&secret);
        Ok((epoch, XChaCha20Poly1305::new((&*key).into())))
    }

    /// Encrypts content to the members of this epoch. `nonce` is random.
    ///
    /// # Errors
    /// [`SessionError::Act`] when this agent may not write.
    pub fn seal(
        &mut self,
        group: GroupId,
        nonce: [u8; SEALED_NONCE],
        content: &[u8],
    ) -> Result<Sealed, SessionError> {
        let keys = self.keys_of(group)?;
        let view = self.view(group)?;
        let role = view.role(&self.agent());
        if view.policy.is_none_or(|policy| !policy.may_write(role)) {
            return Err(ActError::Role("the group's write policy").into());
        }
        let (epoch, cipher) = self.cipher(keys, group)?;
        let payload = Payload { msg: content, aad: group.as_bytes() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload);
        let ciphertext = sealed.map_err(|_| SessionError::Sealed)?.into();
        Ok(Sealed { epoch, nonce, ciphertext })
    }

    /// Decrypts what a member sealed in this epoch.
    ///
    /// # Errors
    /// [`ActError::Target`] when it is of another epoch, [`SessionError::Sealed`] when it does not open.
    pub fn unseal(&mut self, group: GroupId, sealed: &Sealed) -> Result<Bytes, SessionError> {
        let keys = self.keys_of(group)?;
        let (epoch, cipher) = self.cipher(keys, group)?;
        if epoch != sealed.epoch {
            return Err(ActError::Target("epoch mismatch").into());
        }
        let payload = Payload { msg: &sealed.ciphertext, aad: group.as_bytes() };
        let opened = cipher.decrypt(&XNonce::from(sealed.nonce), payload);
        Ok(opened.map_err(|_| SessionError::Sealed)?.into())
    }

    /// The group whose keys these are.
    #[must_use]
    pub fn named(&self, keys: MlsId) -> Option<GroupId> {
        self.chains.lock().by_keys.get(&keys).copied()
    }
}
