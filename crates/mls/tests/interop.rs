//! A member that is plain openmls with its own provider reads us and we read it: what we send is RFC 9420.

use std::{sync::Arc, time::Duration};

use openmls::prelude::{tls_codec::Deserialize as _, tls_codec::Serialize as _, *};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use x0x_core::WallTime;
use x0x_identity::testing;
use x0x_mls::{
    CREDENTIAL_TYPE, EntryWire, FrameIn, Groups, MlsGroups, Suite, issue_credential,
    testing::MemoryStore, verify_key_package,
};

const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
const SUITE: Ciphersuite = Ciphersuite::MLS_128_MLKEM768X25519_AES128GCM_SHA256_Ed25519;

#[test]
fn stock_openmls_takes_our_key_packages_welcomes_and_messages() {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("a key");
    let validity = Duration::from_secs(3600);
    let credential =
        issue_credential(&testing::key(2), Suite::Hybrid, signer.public(), NOW, validity);
    let credential = CredentialWithKey {
        credential: Credential::new(CredentialType::Other(CREDENTIAL_TYPE), credential),
        signature_key: signer.public().into(),
    };
    let capabilities = Capabilities::builder()
        .ciphersuites(vec![SUITE])
        .credentials(vec![CredentialType::Other(CREDENTIAL_TYPE)])
        .build();
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
