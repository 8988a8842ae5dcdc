//! openmls' storage over one epoch's values in memory, which knows what changed.
//!
//! openmls writes whole values; what changed of them is found chunk by chunk and handed over as a
//! batch ([`EpochStorage::changes`]), which the caller commits before anything is sent. A failed
//! operation leaves values that were never committed: its caller throws the storage away and loads
//! the epoch again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use openmls_traits::storage::{CURRENT_VERSION as V, Entity, Key, StorageProvider, traits};
use serde::Serialize;

use crate::{
    codec::{self, CodecError, Encoded},
    store::{Batch, Change, Entry, Space},
};

/// What a value is; the first byte of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Label {
    KeyPackage = 1,
    Psk = 2,
    EncryptionKeyPair = 3,
    SignatureKeyPair = 4,
    EpochKeyPairs = 5,
    Tree = 6,
    Context = 7,
    Interim = 8,
    Confirmation = 9,
    JoinConfig = 10,
    OwnLeafNodes = 11,
    GroupState = 12,
    Proposal = 13,
    OwnLeafIndex = 14,
    EpochSecrets = 15,
    ResumptionPsks = 16,
    MessageSecrets = 17,
}

/// The values of one epoch.
#[derive(Debug, Default)]
pub(crate) struct EpochStorage {
    values: RefCell<BTreeMap<Vec<u8>, Encoded>>,
    /// Pieces that differ from what was committed, and values that became shorter or went.
    touched: RefCell<BTreeSet<(Vec<u8>, u32)>>,
    cut: RefCell<BTreeMap<Vec<u8>, u32>>,
}

impl EpochStorage {
    /// The values as they were committed.
    pub(crate) fn from_entries(entries: Vec<Entry>) -> Self {
        let mut values: BTreeMap<Vec<u8>, Encoded> = BTreeMap::new();
        for entry in entries {
            values.entry(entry.key).or_default().chunks.push(entry.value);
        }
        Self { values: RefCell::new(values), ..Self::default() }
    }

    /// A copy to begin the next epoch from, all of which is new.
    pub(crate) fn fork(&self) -> Self {
        let values = self.values.borrow().clone();
        let mut touched = BTreeSet::new();
        for (key, value) in &values {
            touched.extend((0..value.chunks.len() as u32).map(|chunk| (key.clone(), chunk)));
        }
        Self {
            values: RefCell::new(values),
            touched: RefCell::new(touched),
            cut: RefCell::default(),
        }
    }

    /// Takes over the key packages of another storage, of which a welcome names one.
    pub(crate) fn borrow_key_packages(&self, from: &Self) {
        let from = from.values.borrow();
        let packages =
            from.iter().filter(|(key, _)| key.first() == Some(&(Label::KeyPackage as u8)));
        self.values.borrow_mut().extend(packages.map(|(k, v)| (k.clone(), v.clone())));
    }

    /// Gives the key packages back: those that are gone here go there.
    pub(crate) fn return_key_packages(&self, to: &Self) {
        let is_package = |key: &&Vec<u8>| key.first() == Some(&(Label::KeyPackage as u8));
        let left: BTreeSet<_> = self.values.borrow().keys().filter(is_package).cloned().collect();
        let all: Vec<_> = to.values.borrow().keys().filter(is_package).cloned().collect();
        for key in all.into_iter().filter(|key| !left.contains(key)) {
            to.remove(key);
        }
        self.values.borrow_mut().retain(|key, _| !is_package(&key));
        self.touched.borrow_mut().retain(|(key, _)| !is_package(&key));
        self.cut.borrow_mut().retain(|key, _| !is_package(&key));
    }

    /// The keys under which key packages are kept; each ends with the package's reference.
    pub(crate) fn key_package_keys(&self) -> Vec<Vec<u8>> {
        self.keys_of(&[Label::KeyPackage as u8])
    }

    /// Deletes a key package that nobody may use any more, by the bytes of its reference.
    pub(crate) fn drop_key_package(&self, reference: &[u8]) {
        // However openmls wraps a reference, its key ends with the bytes of it.
        let found = self.key_package_keys();
        found.into_iter().filter(|key| key.ends_with(reference)).for_each(|key| self.remove(key));
    }

    /// What changed since the last call, for `space`.
    pub(crate) fn changes(&self, space: Space) -> Batch {
        let values = self.values.borrow();
        let mut batch = Batch::new();
        for (key, from) in std::mem::take(&mut *self.cut.borrow_mut()) {
            batch.push(Change::Cut(space, key, from));
        }
        for (key, chunk) in std::mem::take(&mut *self.touched.borrow_mut()) {
            let piece = values.get(&key).and_then(|value| value.chunks.get(chunk as usize));
            if let Some(value) = piece.cloned() {
                batch.push(Change::Put(space, Entry { key, chunk, value }));
            }
        }
        batch
    }

    fn put<T: Serialize + ?Sized>(&self, key: Vec<u8>, value: &T) -> Result<(), CodecError> {
        let new = codec::encode(value)?;
        let mut values = self.values.borrow_mut();
        let mut touched = self.touched.borrow_mut();
        let old = values.get(&key);
        let old_len = old.map_or(0, |old| old.chunks.len());
        for (i, chunk) in new.chunks.iter().enumerate() {
            if old.and_then(|old| old.chunks.get(i)) != Some(chunk) {
                touched.insert((key.clone(), i as u32));
            }
        }
        if new.chunks.len() < old_len {
            self.cut.borrow_mut().insert(key.clone(), new.chunks.len() as u32);
        }
        values.insert(key, new);
        Ok(())
    }

    fn get<T: Entity<V>>(&self, key: &[u8]) -> Result<Option<T>, CodecError> {
        self.values.borrow().get(key).map(codec::decode).transpose()
    }

    fn remove(&self, key: Vec<u8>) {
        if self.values.borrow_mut().remove(&key).is_some() {
            self.cut.borrow_mut().insert(key, 0);
        }
    }

    fn keys_of(&self, prefix: &[u8]) -> Vec<Vec<u8>> {
        let values = self.values.borrow();
        let from = values.range(prefix.to_vec()..);
        from.map(|(key, _)| key.clone()).take_while(|key| key.starts_with(prefix)).collect()
    }
}

fn key<K: Serialize + ?Sized>(label: Label, of: &K) -> Result<Vec<u8>, CodecError> {
    let mut key = vec![label as u8];
    for chunk in codec::encode(of)?.chunks {
        key.extend_from_slice(&chunk);
    }
    Ok(key)
}

/// Value, and how it is written, read and deleted by the group's id.
macro_rules! by_group {
    ($($kind:ident: $label:ident, $write:ident, $read:ident, $delete:ident;)+) => {
        $(
            fn $write<G: traits::GroupId<V>, T: traits::$kind<V>>(
                &self,
                group: &G,
                value: &T,
            ) -> Result<(), CodecError> {
                self.put(key(Label::$label, group)?, value)
            }

            fn $read<G: traits::GroupId<V>, T: traits::$kind<V>>(
                &self,
                group: &G,
            ) -> Result<Option<T>, CodecError> {
                self.get(&key(Label::$label, group)?)
            }

            fn $delete<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), CodecError> {
                self.remove(key(Label::$label, group)?);
                Ok(())
            }
        )+
    };
}

/// The same by a key of its own kind.
macro_rules! by_key {
    ($($by:ident, $kind:ident: $label:ident, $write:ident, $delete:ident;)+) => {
        $(
            fn $write<K: traits::$by<V>, T: traits::$kind<V>>(
                &self,
                of: &K,
                value: &T,
            ) -> Result<(), CodecError> {
                self.put(key(Label::$label, of)?, value)
            }

            fn $delete<K: traits::$by<V>>(&self, of: &K) -> Result<(), CodecError> {
                self.remove(key(Label::$label, of)?);
                Ok(())
            }
        )+
    };
}

impl StorageProvider<V> for EpochStorage {
    type Error = CodecError;

    by_group! {
        MlsGroupJoinConfig: JoinConfig, write_mls_join_config, mls_group_join_config, delete_group_config;
        TreeSync: Tree, write_tree, tree, delete_tree;
        GroupContext: Context, write_context, group_context, delete_context;
        InterimTranscriptHash: Interim, write_interim_transcript_hash, interim_transcript_hash, delete_interim_transcript_hash;
        ConfirmationTag: Confirmation, write_confirmation_tag, confirmation_tag, delete_confirmation_tag;
        MessageSecrets: MessageSecrets, write_message_secrets, message_secrets, delete_message_secrets;
        ResumptionPskStore: ResumptionPsks, write_resumption_psk_store, resumption_psk_store, delete_all_resumption_psk_secrets;
        LeafNodeIndex: OwnLeafIndex, write_own_leaf_index, own_leaf_index, delete_own_leaf_index;
        GroupEpochSecrets: EpochSecrets, write_group_epoch_secrets, group_epoch_secrets, delete_group_epoch_secrets;
    }

    by_key! {
        SignaturePublicKey, SignatureKeyPair: SignatureKeyPair, write_signature_key_pair, delete_signature_key_pair;
        EncryptionKey, HpkeKeyPair: EncryptionKeyPair, write_encryption_key_pair, delete_encryption_key_pair;
        HashReference, KeyPackage: KeyPackage, write_key_package, delete_key_package;
        PskId, PskBundle: Psk, write_psk, delete_psk;
    }

    fn write_group_state<S: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
        state: &S,
    ) -> Result<(), CodecError> {
        self.put(key(Label::GroupState, group)?, state)
    }

    fn group_state<S: traits::GroupState<V>, G: traits::GroupId<V>>(
        &self,
        group: &G,
    ) -> Result<Option<S>, CodecError> {
        self.get(&key(Label::GroupState, group)?)
    }

    fn delete_group_state<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), CodecError> {
        self.remove(key(Label::GroupState, group)?);
        Ok(())
    }

    fn append_own_leaf_node<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        group: &G,
        leaf: &L,
    ) -> Result<(), CodecError> {
        let mut of = key(Label::OwnLeafNodes, group)?;
        let next = self.keys_of(&of).len() as u32;
        of.extend_from_slice(&next.to_be_bytes());
        self.put(of, leaf)
    }

    fn own_leaf_nodes<G: traits::GroupId<V>, L: traits::LeafNode<V>>(
        &self,
        group: &G,
    ) -> Result<Vec<L>, CodecError> {
        let keys = self.keys_of(&key(Label::OwnLeafNodes, group)?);
        keys.iter().filter_map(|key| self.get(key).transpose()).collect()
    }

    fn delete_own_leaf_nodes<G: traits::GroupId<V>>(&self, group: &G) -> Result<(), CodecError> {
        self.keys_of(&key(Label::OwnLeafNodes, group)?)
            .into_iter()
            .for_each(|key| self.remove(key));
        Ok(())
    }

    fn queue_proposal<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        Q: traits::QueuedProposal<V>,
    >(
        &self,
        group: &G,
        reference: &R,
        proposal: &Q,
    ) -> Result<(), CodecError> {
        self.put(key(Label::Proposal, &(group, reference))?, &(reference, proposal))
    }

    fn queued_proposal_refs<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _: &G,
    ) -> Result<Vec<R>, CodecError> {
        let values = self.values.borrow();
        let queued = values.iter().filter(|(key, _)| key.first() == Some(&(Label::Proposal as u8)));
        queued
            .map(|(_, v)| codec::decode::<(R, serde::de::IgnoredAny)>(v).map(|(r, _)| r))
            .collect()
    }

    fn queued_proposals<
        G: traits::GroupId<V>,
        R: traits::ProposalRef<V>,
        Q: traits::QueuedProposal<V>,
    >(
        &self,
        _: &G,
    ) -> Result<Vec<(R, Q)>, CodecError> {
        let values = self.values.borrow();
        let queued = values.iter().filter(|(key, _)| key.first() == Some(&(Label::Proposal as u8)));
        queued.map(|(_, value)| codec::decode(value)).collect()
    }

    fn remove_proposal<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        group: &G,
        reference: &R,
    ) -> Result<(), CodecError> {
        self.remove(key(Label::Proposal, &(group, reference))?);
        Ok(())
    }

    fn clear_proposal_queue<G: traits::GroupId<V>, R: traits::ProposalRef<V>>(
        &self,
        _: &G,
    ) -> Result<(), CodecError> {
        self.keys_of(&[Label::Proposal as u8]).into_iter().for_each(|key| self.remove(key));
        Ok(())
    }

    fn signature_key_pair<K: traits::SignaturePublicKey<V>, T: traits::SignatureKeyPair<V>>(
        &self,
        of: &K,
    ) -> Result<Option<T>, CodecError> {
        self.get(&key(Label::SignatureKeyPair, of)?)
    }

    fn encryption_key_pair<T: traits::HpkeKeyPair<V>, K: traits::EncryptionKey<V>>(
        &self,
        of: &K,
    ) -> Result<Option<T>, CodecError> {
        self.get(&key(Label::EncryptionKeyPair, of)?)
    }

    fn key_package<K: traits::HashReference<V>, T: traits::KeyPackage<V>>(
        &self,
        of: &K,
    ) -> Result<Option<T>, CodecError> {
        self.get(&key(Label::KeyPackage, of)?)
    }

    fn psk<T: traits::PskBundle<V>, K: traits::PskId<V>>(
        &self,
        of: &K,
    ) -> Result<Option<T>, CodecError> {
        self.get(&key(Label::Psk, of)?)
    }

    fn write_encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
        pairs: &[T],
    ) -> Result<(), CodecError> {
        self.put(epoch_key(group, epoch, leaf)?, pairs)
    }

    fn encryption_epoch_key_pairs<
        G: traits::GroupId<V>,
        E: traits::EpochKey<V>,
        T: traits::HpkeKeyPair<V>,
    >(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<Vec<T>, CodecError> {
        let values = self.values.borrow();
        let pairs = values.get(&epoch_key(group, epoch, leaf)?);
        pairs.map_or_else(|| Ok(Vec::new()), codec::decode)
    }

    fn delete_encryption_epoch_key_pairs<G: traits::GroupId<V>, E: traits::EpochKey<V>>(
        &self,
        group: &G,
        epoch: &E,
        leaf: u32,
    ) -> Result<(), CodecError> {
        self.remove(epoch_key(group, epoch, leaf)?);
        Ok(())
    }
}

fn epoch_key<G: Key<V>, E: Key<V>>(group: &G, epoch: &E, leaf: u32) -> Result<Vec<u8>, CodecError> {
    key(Label::EpochKeyPairs, &(group, epoch, leaf))
}
