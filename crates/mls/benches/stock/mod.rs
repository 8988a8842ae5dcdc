//! Members for the benchmarks: ours, and plain openmls with its own provider and storage.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use openmls::prelude::{tls_codec::Deserialize as _, *};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use x0x_core::WallTime;
use x0x_identity::testing;
use x0x_mls::{
    CREDENTIAL_TYPE, Groups, MlsGroups, Suite, VerifiedKeyPackage, issue_credential,
    testing::MemoryStore, verify_key_package,
};

pub(crate) const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const SUITE: Ciphersuite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;

pub(crate) type Ours = Groups<Arc<MemoryStore>>;

/// One of our members, and its store.
pub(crate) fn ours(n: u64) -> (Ours, Arc<MemoryStore>) {
    let store = Arc::new(MemoryStore::new());
    let opened = Groups::open(Arc::clone(&store), Arc::new(testing::key(n)), NOW);
    (opened.expect("opens"), store)
}

/// A published key package of a member.
pub(crate) fn package(of: &mut Ours) -> Bytes {
    of.key_packages(Suite::Hybrid, 1, NOW).expect("made").swap_remove(0)
}

/// Key packages of as many other agents.
pub(crate) fn packages(from: u64, count: u64) -> Vec<Bytes> {
    (from..from + count).map(|n| package(&mut ours(n).0)).collect()
}

pub(crate) fn verified(packages: &[Bytes]) -> Vec<VerifiedKeyPackage> {
    packages.iter().map(|bytes| verify_key_package(bytes, NOW).expect("verifies")).collect()
}

/// Plain openmls.
pub(crate) struct Stock {
    pub(crate) provider: OpenMlsRustCrypto,
    pub(crate) signer: SignatureKeyPair,
    pub(crate) group: MlsGroup,
}

impl Stock {
    /// A group of this member alone, set up as ours are.
    pub(crate) fn create(n: u64) -> Self {
        let provider = OpenMlsRustCrypto::default();
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("a key");
        let valid = Duration::from_secs(3600);
        let content =
            issue_credential(&testing::key(n), Suite::Hybrid, signer.public(), NOW, valid);
        let kind = CredentialType::Other(CREDENTIAL_TYPE);
        let credential = CredentialWithKey {
            credential: Credential::new(kind, content),
            signature_key: signer.public().into(),
        };
        let capabilities =
            Capabilities::builder().ciphersuites(vec![SUITE]).credentials(vec![kind]).build();
        let group = MlsGroup::builder()
            .ciphersuite(SUITE)
            .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .max_past_epochs(0)
            .use_ratchet_tree_extension(false)
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(32, 10_000))
            .with_capabilities(capabilities)
            .build(&provider, &signer, credential)
            .expect("a group");
        Self { provider, signer, group }
    }

    /// Adds members as ours does: no path, the tree apart. The commit's bytes and the welcome's.
    pub(crate) fn add(&mut self, packages: Vec<KeyPackage>) -> (Vec<u8>, Vec<u8>) {
        let bundle = self
            .group
            .commit_builder()
            .propose_adds(packages)
            .force_self_update(false)
            .load_psks(self.provider.storage())
            .expect("none")
            .use_ratchet_tree_extension(false)
            .build(self.provider.rand(), self.provider.crypto(), &self.signer, |_| true)
            .expect("builds")
            .stage_commit(&self.provider)
            .expect("stages");
        self.group.merge_pending_commit(&self.provider).expect("merges");
        let (commit, welcome, _) = bundle.into_messages();
        let welcome = welcome.expect("somebody was added");
        (commit.to_bytes().expect("encodes"), welcome.to_bytes().expect("encodes"))
    }

    pub(crate) fn read_packages(&self, packages: &[Bytes]) -> Vec<KeyPackage> {
        let read = |bytes: &Bytes| {
            let package = KeyPackageIn::tls_deserialize_exact(bytes).expect("reads");
            package.validate(self.provider.crypto(), ProtocolVersion::Mls10).expect("verifies")
        };
        packages.iter().map(read).collect()
    }

    /// A key package of this member, for `other` to add it; the group it made is left.
    pub(crate) fn join(&mut self, other: &mut Self) {
        let own = self.group.own_leaf_node().expect("a leaf");
        let credential = CredentialWithKey {
            credential: own.credential().clone(),
            signature_key: own.signature_key().clone(),
        };
        let package = KeyPackage::builder()
            .leaf_node_capabilities(own.capabilities().clone())
            .key_package_lifetime(Lifetime::init(0, u64::MAX))
            .build(SUITE, &self.provider, &self.signer, credential)
            .expect("a key package");
        let (_, welcome) = other.add(vec![package.key_package().clone()]);
        let tree = other.group.export_ratchet_tree().into();
        let message = MlsMessageIn::tls_deserialize_exact(&welcome).expect("reads");
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!("a welcome") };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
            .max_past_epochs(0)
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(32, 10_000))
            .build();
        let read = ProcessedWelcome::new_from_welcome(&self.provider, &config, welcome);
        let staged = read.expect("reads").into_staged_welcome(&self.provider, Some(tree));
        self.group = staged.expect("verifies").into_group(&self.provider).expect("joins");
    }

    pub(crate) fn encrypt(&mut self, payload: &[u8]) -> Vec<u8> {
        let made = self.group.create_message(&self.provider, &self.signer, payload);
        made.expect("encrypts").to_bytes().expect("encodes")
    }

    pub(crate) fn decrypt(&mut self, message: &[u8]) -> Vec<u8> {
        let message = MlsMessageIn::tls_deserialize_exact(message).expect("reads");
        let message = message.try_into_protocol_message().expect("of the group");
        let read = self.group.process_message(&self.provider, message).expect("decrypts");
        match read.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => message.into_bytes(),
            _ => panic!("an application message"),
        }
    }
}
