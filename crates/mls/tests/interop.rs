//! A member that is plain openmls with its own provider reads us and we read it: what we send is RFC 9420.

use std::{sync::Arc, time::Duration};

use openmls::prelude::{tls_codec::Deserialize as _, tls_codec::Serialize as _, *};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use x0x_core::WallTime;
use x0x_identity::testing;
use x0x_mls::{
    CREDENTIAL_TYPE, EntryWire, Event, FrameIn, FrameKind, Groups, MlsGroups, Suite,
    issue_credential, testing::MemoryStore, verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const SUITE: Ciphersuite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;

/// A member that is plain openmls.
struct Stock {
    provider: OpenMlsRustCrypto,
    signer: SignatureKeyPair,
    credential: CredentialWithKey,
    capabilities: Capabilities,
}

impl Stock {
    fn new(agent: u64) -> Self {
        let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("a key");
        let validity = Duration::from_secs(3600);
        let content =
            issue_credential(&testing::key(agent), Suite::Hybrid, signer.public(), NOW, validity);
        let kind = CredentialType::Other(CREDENTIAL_TYPE);
        let credential = CredentialWithKey {
            credential: Credential::new(kind, content),
            signature_key: signer.public().into(),
        };
        let capabilities =
            Capabilities::builder().ciphersuites(vec![SUITE]).credentials(vec![kind]).build();
        Self { provider: OpenMlsRustCrypto::default(), signer, credential, capabilities }
    }
}

#[test]
fn stock_openmls_takes_our_key_packages_welcomes_and_messages() {
    let Stock { provider, signer, credential, capabilities } = Stock::new(2);
    let package = KeyPackage::builder()
        .leaf_node_capabilities(capabilities)
        .key_package_lifetime(Lifetime::init(0, u64::MAX))
        .build(SUITE, &provider, &signer, credential)
        .expect("a key package");
    let package = package.key_package().tls_serialize_detached().expect("encodes");

    let mut ours = Groups::open(MemoryStore::new(), Arc::new(testing::key(1)), NOW).expect("opens");
    let group = ours.create(Suite::Hybrid).expect("creates");
    let package = verify_key_package(&package, NOW).expect("stock packages verify");
    let added = ours.commit(group, vec![package], &[]).expect("adds");

    // The stock member joins by the MLS message within the welcome.
    let entry = EntryWire::read(&added.welcome.expect("a welcome")).expect("reads");
    let message = MlsMessageIn::tls_deserialize_exact(&entry.message).expect("an MLS message");
    let MlsMessageBodyIn::Welcome(welcome) = message.extract() else { panic!("a welcome") };
    let config =
        MlsGroupJoinConfig::builder().wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY).build();
    let processed = ProcessedWelcome::new_from_welcome(&provider, &config, welcome);
    let staged = processed.expect("reads").into_staged_welcome(&provider, None).expect("verifies");
    let mut stock = staged.into_group(&provider).expect("joins");
    assert_eq!(stock.members().count(), 2);

    let sent = ours.encrypt(group, b"aad", b"from ours").expect("encrypts");
    let frame = FrameIn::decode(&sent.frame).expect("a frame");
    let message = MlsMessageIn::tls_deserialize_exact(&frame.body).expect("an MLS message");
    let message = message.try_into_protocol_message().expect("a message of the group");
    let read = stock.process_message(&provider, message).expect("decrypts");
    assert_eq!(read.aad(), b"aad");
    let ProcessedMessageContent::ApplicationMessage(read) = read.into_content() else {
        panic!("an application message")
    };
    assert_eq!(read.into_bytes(), b"from ours");

    // And the other way, framed as the log frames it.
    let answer = stock.create_message(&provider, &signer, b"from stock").expect("encrypts");
    let mut reply = frame;
    reply.body = answer.to_bytes().expect("encodes").into();
    let events = ours.process(&reply.encode()).expect("decrypts");
    assert!(format!("{events:?}").contains("from stock"), "{events:?}");
}

/// The id of a state, from what docs/protocol says of it.
fn state_of(group: &MlsGroup) -> [u8; 32] {
    let context = group.public_group().group_context().tls_serialize_detached().expect("encodes");
    Sha256::new().chain_update("x0x.mls.state.1").chain_update(context).finalize().into()
}

#[test]
fn we_join_by_a_welcome_of_stock_openmls_and_share_its_secrets() {
    let Stock { provider, signer, credential, capabilities } = Stock::new(2);
    let mut stock = MlsGroup::builder()
        .ciphersuite(SUITE)
        .with_group_id(GroupId::from_slice(&[9; 32]))
        .with_wire_format_policy(PURE_PLAINTEXT_WIRE_FORMAT_POLICY)
        .use_ratchet_tree_extension(true)
        .with_capabilities(capabilities)
        .build(&provider, &signer, credential)
        .expect("creates");
    let mut ours = Groups::open(MemoryStore::new(), Arc::new(testing::key(1)), NOW).expect("opens");
    let packages = ours.key_packages(Suite::Hybrid, 2, NOW).expect("made");
    for package in &packages {
        let read = KeyPackageIn::tls_deserialize_exact(package.as_ref()).expect("reads");
        read.validate(provider.crypto(), ProtocolVersion::Mls10).expect("stock takes it");
    }
    let marks = packages.iter().map(|p| verify_key_package(p, NOW).expect("verifies").last_resort);
    assert_eq!(marks.collect::<Vec<_>>(), [false, false, true]);
    let read = KeyPackageIn::tls_deserialize_exact(packages[0].as_ref()).expect("reads");
    let read = read.validate(provider.crypto(), ProtocolVersion::Mls10).expect("verifies");
    let (_, welcome, _) = stock.add_members(&provider, &signer, &[read]).expect("adds");
    stock.merge_pending_commit(&provider).expect("merges");

    let message = welcome.to_bytes().expect("encodes").into();
    let entry = EntryWire { message, ..EntryWire::default() };
    let group = ours.join(&entry.encode_to_vec(), None).expect("joins");
    assert_eq!(group.0, [9; 32]);
    let (epoch, members) = ours.members(group).expect("a member");
    assert_eq!(epoch, stock.epoch().as_u64());
    assert_eq!(members.len(), stock.members().count());
    let theirs = stock.export_secret(provider.crypto(), "x0x.mls.export.files", b"c", 32);
    let same = ours.export(group, "files", b"c", 32).expect("exports");
    assert_eq!(same.as_slice(), theirs.expect("exports").as_slice());

    let said = stock.create_message(&provider, &signer, b"from stock").expect("encrypts");
    // The header of a frame of ours, which names the state as stock computes it.
    let request = ours.leave(group).expect("asks");
    let mut frame = FrameIn::decode(&request.frame).expect("a frame");
    assert_eq!((frame.state, frame.epoch), (state_of(&stock), epoch));
    frame.kind = FrameKind::Application;
    frame.body = said.to_bytes().expect("encodes").into();
    let events = ours.process(&frame.encode()).expect("decrypts");
    let [Event::Message { author, payload, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(
        (*author, payload.as_ref()),
        (testing::key(2).public_key().agent_id(), &b"from stock"[..])
    );
    // A welcome, and what it used up, serve once.
    assert!(ours.join(&entry.encode_to_vec(), None).is_err());
}
