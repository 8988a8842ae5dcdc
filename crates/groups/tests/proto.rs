//! The published schema reads what the code writes, and knows no field more; the forms do not change.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use protox::prost_reflect::{DescriptorPool, DynamicMessage, ReflectMessage as _};
use sha2::{Digest, Sha256};
use x0x_core::AgentId;
use x0x_groups::{
    Action, Basis, Card, CardIn, Chain, GroupPolicy, Handover, InviteLink, LogItem, MemberItem,
    MessageKind, OperationBody, OperationIn, Profile, PublicMessage, Role, Room, Statement,
    StatementIn, found, stamp,
    testing::{NOW, agent, key},
};

fn profile() -> Profile {
    Profile {
        name: "name".into(),
        description: "about".into(),
        tags: vec!["tag".into()],
        avatar_url: "https://example.org/a".into(),
        banner_url: "https://example.org/b".into(),
    }
}

fn policy() -> GroupPolicy {
    GroupPolicy { shares_history: true, ..GroupPolicy::PUBLIC_REQUEST_SECURE }
}

fn chain() -> Chain {
    let keys = Some(x0x_mls::GroupId([4; 32]));
    Chain::new(found(&key(0), [1; 32], policy(), profile(), keys, "founder", NOW)).expect("founds")
}

fn schema(name: &str, bytes: &[u8]) -> DynamicMessage {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol");
    let files = protox::compile(["groups.proto"], [folder]).expect("the schema is valid");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("the schema is complete");
    let schema = pool.get_message_by_name(&format!("x0x.groups.v1.{name}")).expect("it is there");
    let read = DynamicMessage::decode(schema, bytes).expect("the schema reads it");
    assert_eq!(read.unknown_fields().count(), 0, "{name}");
    assert_eq!(read.encode_to_vec(), bytes, "{name}");
    read
}

/// That every field of it is there; but for those that exclude each other.
fn full(name: &str, bytes: &[u8], absent: usize) -> DynamicMessage {
    let read = schema(name, bytes);
    assert_eq!(read.fields().count() + absent, read.descriptor().fields().len(), "{name}");
    read
}

fn body(signed: &[u8], name: &str) -> DynamicMessage {
    let read = full(name, signed, 0);
    let body = read.get_field_by_name("body").expect("a body");
    let name = if name == "Statement" { "StatementBody" } else { "OperationBody" };
    schema(name, body.as_bytes().expect("bytes"))
}

fn actions() -> Vec<Action> {
    let (to, group) = (agent(1), chain().group());
    let redemption = Statement::redeem(group, &key(1), &key(9), "one", NOW);
    let request = Statement::request(group, &key(1), "please", NOW);
    let cancel = Statement::cancel(group, &key(1), request.id(), NOW);
    let admit =
        |basis| Action::Admit { agent: to, role: Role::Member, basis, display_name: "one".into() };
    let room = Room { name: "room".into(), topic: "topic".into(), closed: true };
    vec![
        Action::SetPolicy { policy: policy(), mls_group: Some(x0x_mls::GroupId([4; 32])) },
        Action::SetProfile(profile()),
        Action::SetRole { agent: to, role: Role::Admin },
        admit(Basis::Added),
        admit(Basis::Invite(Box::new(redemption))),
        admit(Basis::Request(request.id())),
        Action::Remove { agent: to },
        Action::Ban { agent: to, reason: "why".into() },
        Action::Unban { agent: to, role: Some(Role::Member) },
        Action::Leave,
        Action::CreateInvite { invite: agent(9), expires: Some(NOW), uses: 3, role: Role::Guest },
        Action::RevokeInvite { invite: agent(9) },
        Action::Request(Box::new(request.clone())),
        Action::Reject { request: request.id() },
        Action::Cancel(Box::new(cancel)),
        Action::SetDisplayName("other".into()),
        Action::Withdraw,
        Action::SetRoom(room),
        Action::Join { display_name: "one".into() },
        Action::Hide { message: [6; 32] },
    ]
}

fn signed(action: Action) -> x0x_groups::Operation {
    let chain = chain();
    let role = if matches!(action, Action::Join { .. }) { None } else { Some(Role::Admin) };
    let (group, parents) = (Some(chain.group()), chain.parents());
    OperationBody { group, author: agent(1), parents, height: 1, at: NOW, role, action }
        .sign(&key(1))
}

#[test]
fn the_schema_agrees_with_the_operations() {
    let genesis = chain().genesis().clone();
    let read = body(genesis.encoded(), "Signed");
    let founds = read.get_field_by_name("found").expect("there");
    let founds = founds.as_message().expect("a message").encode_to_vec();
    full("Found", &founds, 0);
    let mut kinds = BTreeSet::from(["found".to_owned()]);
    for action in actions() {
        let operation = signed(action.clone());
        let read = body(operation.encoded(), "Signed");
        let kind = read.fields().find(|(field, _)| field.containing_oneof().is_some());
        kinds.insert(kind.expect("an action").0.name().to_owned());
        let again = OperationIn::decode(operation.encoded()).expect("reads");
        let again = again.verify().expect("verifies");
        assert_eq!(again, operation);
        assert_eq!(again.body.action, action);
    }
    assert_eq!(kinds.len(), 19, "all kinds of the schema");
}

#[test]
fn the_schema_agrees_with_the_rest() {
    let chain = chain();
    let redeems = Statement::redeem(chain.group(), &key(1), &key(9), "one", NOW);
    let read = body(redeems.encoded(), "Statement");
    assert_eq!(read.fields().count(), 5);
    assert_eq!(StatementIn::decode(redeems.encoded()).expect("reads").verify(), Ok(redeems));
    let card = Card::of(&chain, agent(0), NOW).expect("may");
    let mut appointed = card.clone();
    (appointed.withdrawn, appointed.appointment) = (true, "x".into());
    let read = full("Signed", appointed.sign(&key(0)).encoded(), 0);
    let inner = read.get_field_by_name("body").expect("a body");
    full("CardBody", inner.as_bytes().expect("bytes"), 0);
    let card = card.sign(&key(0));
    assert_eq!(CardIn::decode(card.encoded()).expect("reads").verify(NOW), Ok(card));
    let message = PublicMessage {
        group: chain.group(),
        author: agent(0),
        at: NOW,
        kind: MessageKind::Announcement,
        room: "room".into(),
        thread: Some([5; 32]),
        text: "text".into(),
        state: (3, [6; 32]),
        heads: chain.parents(),
    };
    let read = full("Signed", &message.sign(&key(0)).1, 0);
    let inner = read.get_field_by_name("body").expect("a body");
    full("MessageBody", inner.as_bytes().expect("bytes"), 0);
    for item in
        [LogItem::Operation("x".into()), LogItem::Message("x".into()), LogItem::Frame("x".into())]
    {
        full("LogItem", &item.encode(), 2);
        assert_eq!(LogItem::decode(&item.encode()), Ok(item));
    }
    let text = MemberItem::Text { room: "room".into(), id: [1; 16], payload: "x".into() };
    full("MemberItem", &text.encode(), 1);
    assert_eq!(MemberItem::decode(&text.encode().into()), Ok(text));
    let bytes = Bytes::from_static(b"x");
    let (welcome, info, tree) = (bytes.clone(), bytes.clone(), bytes.clone());
    let handover = Handover { operations: vec![bytes], welcome, info, tree };
    full("Handover", &handover.encode_to_vec(), 0);
    assert_eq!(Handover::read(&handover.encode_to_vec()), Ok(handover));
    full("Stamp", &stamp(&chain.parents()), 0);
}

/// The hash of the bodies of all operations: they are not signed with randomness.
#[test]
fn operations_keep_their_form() {
    let mut hash = Sha256::new().chain_update(chain().genesis().id.as_bytes());
    for action in actions() {
        // Statements inside are signed, and signatures differ each time.
        let fixed = !matches!(
            &action,
            Action::Request(_) | Action::Cancel(_) | Action::Admit { basis: Basis::Invite(_), .. }
        );
        if fixed {
            hash = hash.chain_update(signed(action).id.as_bytes());
        }
    }
    let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, GOLDEN);
}

const GOLDEN: &str = "fa712c0935136f6bc1692ab56f9349f6565a926593abe5f0ea2d8454291d57d3";

#[test]
fn invite_links_are_short_and_keep_their_form() {
    let helpers: Vec<AgentId> = vec![AgentId::new([3; 32])];
    let group = x0x_groups::GroupId::new([1; 32]);
    let link = InviteLink::new(group, [2; 32], helpers, Some(NOW), "name".into());
    let text = link.to_text();
    assert_eq!(text, LINK);
    assert_eq!(InviteLink::parse(&text), Ok(link.clone()));
    let read = InviteLink::parse(&text).expect("reads");
    assert_eq!(read.key().public_key(), link.key().public_key());
    for cut in 0..text.len() {
        assert!(
            InviteLink::parse(&text[..cut]).is_err()
                || InviteLink::parse(&text[..cut]) != Ok(link.clone())
        );
    }
    assert!(InviteLink::parse(&format!("{text}{}", "A".repeat(2000))).is_err());
    let bytes = data_encoding::BASE64URL_NOPAD
        .decode(text.trim_start_matches("x0x://invite/").as_bytes())
        .expect("base64");
    let read = schema("InviteLink", &bytes);
    assert_eq!(read.fields().count(), read.descriptor().fields().len());
}

const LINK: &str = concat!(
    "x0x://invite/CiABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBARIgAgICAgICAgICAgICAgICAgICAgICAgIC",
    "AgICAgICAgIaIAMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDIICg8cKxNCoEbmFtZQ"
);

#[test]
fn every_cut_is_refused() {
    let operation = signed(Action::SetProfile(profile()));
    let bytes = operation.encoded();
    for cut in (0..bytes.len()).step_by(7) {
        let read = OperationIn::decode(&bytes[..cut]).map(|read| read.verify());
        assert!(!matches!(read, Ok(Ok(_))), "{cut}");
    }
}

#[test]
fn what_machines_ask_is_in_the_schema() {
    use x0x_groups::{Answer, CourierFrame, PastText, Question};

    let group = chain().group();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let handover = Handover {
        operations: vec![bytes("operation")],
        welcome: bytes("welcome"),
        info: bytes("info"),
        tree: bytes("tree"),
    };
    let heads = vec![chain().genesis().id];
    let past = PastText {
        author: agent(1),
        room: "room".into(),
        id: [1; 16],
        at: NOW,
        payload: bytes("payload"),
    };
    let bodies = [
        Ok(Question::Package),
        Ok(Question::State { statement: bytes("statement"), package: bytes("package") }),
        Ok(Question::HandOver { group, handover: handover.clone() }),
        Ok(Question::Invitation { group, open: true }),
        Ok(Question::Since { group, heads }),
        Ok(Question::Cards),
        Ok(Question::Past { group }),
        Err(Answer::Past(vec![past])),
        Err(Answer::Cards(vec![bytes("card")])),
        Err(Answer::Package(bytes("package"))),
        Err(Answer::HandOver(handover)),
        Err(Answer::Operations(vec![bytes("operation")])),
        Err(Answer::Done),
        Err(Answer::Refused("no".into())),
    ];
    let count = bodies.len();
    for body in bodies {
        let frame = CourierFrame { number: 1, from: agent(0), to: agent(1), body };
        full("Courier", &frame.encode().expect("bytes"), count - 1);
    }
}
