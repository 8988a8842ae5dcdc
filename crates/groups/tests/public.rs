//! Public groups: who may write, what is hidden, and whose cards go where.

use std::time::Duration;

use x0x_core::WallTime;
use x0x_groups::{
    Action, Card, CardIn, Chain, Directory, Discoverability, GroupPolicy, MessageKind, Profile,
    PublicMessage, PublicMessageIn, Reach, Role, Room, ShardKind, SignedError, Taken, Wall,
    WriteAccess, found, shards_of,
    testing::{NOW, agent, key},
};

fn group(policy: GroupPolicy) -> Chain {
    let tags = vec!["Birds".to_owned()];
    let profile = Profile { name: "Sea birds".into(), tags, ..Profile::default() };
    let keys = policy.is_encrypted().then_some(x0x_mls::GroupId([4; 32]));
    let founded = found(&key(0), [1; 32], policy, profile, keys, "0", NOW);
    Chain::new(founded).expect("founds")
}

fn act(chain: &mut Chain, n: usize, action: Action) {
    let operation = chain.prepare(agent(n), NOW, action).expect("may").sign(&key(n));
    chain.offer(operation).expect("taken");
}

fn message(chain: &Chain, n: usize, text: &str) -> PublicMessage {
    PublicMessage {
        group: chain.group(),
        author: agent(n),
        at: NOW,
        kind: MessageKind::Chat,
        room: String::new(),
        thread: None,
        text: text.into(),
        state: (chain.view().revision, chain.view().state_hash()),
        heads: chain.parents(),
    }
}

fn take(
    wall: &mut Wall,
    chain: &Chain,
    n: usize,
    message: &PublicMessage,
) -> Result<Taken, String> {
    let (id, bytes) = message.sign(&key(n));
    let read = PublicMessageIn::decode(&bytes).expect("reads");
    assert_eq!(read.id(), id);
    let (id, message) = read.verify().map_err(|error| error.to_string())?;
    wall.take(chain, id, message).map_err(|error| error.to_string())
}

#[test]
fn the_write_policy_holds_for_every_reader() {
    let join = || Action::Join { display_name: String::new() };
    for (access, may) in [
        (WriteAccess::MembersOnly, [true, true, false]),
        (WriteAccess::ModeratedPublic, [true, true, true]),
        (WriteAccess::AdminOnly, [true, false, false]),
    ] {
        let mut chain = group(GroupPolicy { write_access: access, ..GroupPolicy::PUBLIC_OPEN });
        act(&mut chain, 1, join());
        let mut wall = Wall::new(chain.group());
        for (n, may) in may.into_iter().enumerate() {
            let taken = take(&mut wall, &chain, n, &message(&chain, n, "hello"));
            assert_eq!(taken.is_ok(), may, "{access:?} {n}: {taken:?}");
        }
        // Another's name under one's own message.
        let forged = take(&mut wall, &chain, 2, &message(&chain, 0, "forged"));
        assert!(forged.is_err());
    }
    let encrypted = group(GroupPolicy::PRIVATE_SECURE);
    let mut wall = Wall::new(encrypted.group());
    assert!(take(&mut wall, &encrypted, 0, &message(&encrypted, 0, "clear")).is_err());
}

#[test]
fn what_is_hidden_or_of_who_is_banned_is_not_shown() {
    let mut chain = group(GroupPolicy::PUBLIC_OPEN);
    for n in 1..4 {
        act(&mut chain, n, Action::Join { display_name: String::new() });
    }
    act(&mut chain, 0, Action::SetRole { agent: agent(3), role: Role::Moderator });
    let mut wall = Wall::new(chain.group());
    for n in 0..3 {
        assert_eq!(take(&mut wall, &chain, n, &message(&chain, n, "hello")), Ok(Taken::New));
    }
    assert_eq!(take(&mut wall, &chain, 1, &message(&chain, 1, "hello")), Ok(Taken::Known));
    let (hidden, _) = message(&chain, 1, "hello").sign(&key(1));
    let before = message(&chain, 2, "said before");
    act(&mut chain, 3, Action::Hide { message: hidden });
    act(&mut chain, 0, Action::Ban { agent: agent(2), reason: "spam".into() });
    let shown: Vec<_> = wall.shown(chain.view()).map(|(_, message)| message.author).collect();
    assert_eq!(shown, [agent(0)]);
    // It pretends to have written before: it is taken, and shown to nobody.
    assert_eq!(take(&mut wall, &chain, 2, &before), Ok(Taken::New));
    assert_eq!(wall.shown(chain.view()).count(), 1);
    assert!(take(&mut wall, &chain, 2, &message(&chain, 2, "after")).is_err());
    let room = Room { name: "old".into(), topic: String::new(), closed: true };
    act(&mut chain, 3, Action::SetRoom(room));
    let late = PublicMessage { room: "old".into(), ..message(&chain, 1, "late") };
    assert!(take(&mut wall, &chain, 1, &late).is_err());
}

#[test]
fn cards_are_of_who_founded_the_group_and_go_where_they_may() {
    let mut chain = group(GroupPolicy::PUBLIC_OPEN);
    act(&mut chain, 1, Action::Join { display_name: String::new() });
    act(&mut chain, 2, Action::Join { display_name: String::new() });
    act(&mut chain, 0, Action::SetRole { agent: agent(1), role: Role::Admin });
    let card = |n: usize, now| Card::of(&chain, agent(n), now).map(|card| card.sign(&key(n)));
    assert!(card(2, NOW).is_none(), "a member makes no card");
    let read = |bytes: &[u8], now| CardIn::decode(bytes).expect("reads").verify(now);
    for n in 0..2 {
        let card = card(n, NOW).expect("may");
        assert_eq!(read(card.encoded(), NOW).expect("verifies"), card);
        let late = NOW + Duration::from_secs(24 * 3600);
        assert!(read(card.encoded(), late).is_err(), "expired");
    }
    // Another's group under one's own name, and an authority that nobody made one.
    let own = card(0, NOW).expect("may").card;
    let altered = |mut card: Card, by: usize, alter: &dyn Fn(&mut Card)| {
        alter(&mut card);
        card.sign(&key(by))
    };
    let by_two = |card: &mut Card| card.authority = agent(2);
    let taken = altered(own.clone(), 2, &|card| {
        (card.owner, card.authority) = (agent(2), agent(2));
    });
    let self_made = altered(own.clone(), 2, &by_two);
    let borrowed = altered(card(1, NOW).expect("may").card, 2, &by_two);
    let hidden = altered(own, 0, &|card| card.policy.discoverability = Discoverability::Hidden);
    for forged in [taken, self_made, borrowed] {
        assert!(read(forged.encoded(), NOW).is_err());
    }
    assert_eq!(read(hidden.encoded(), NOW), Err(SignedError::Content("card is hidden")));
    let private = group(GroupPolicy::PRIVATE_SECURE);
    assert!(Card::of(&private, agent(0), NOW).is_none());
}

#[test]
fn the_directory_keeps_the_latest_and_what_may_be_known() {
    let mut chain = group(GroupPolicy::PUBLIC_OPEN);
    let first = Card::of(&chain, agent(0), NOW).expect("may").sign(&key(0));
    act(&mut chain, 1, Action::Join { display_name: String::new() });
    let second = Card::of(&chain, agent(0), NOW).expect("may").sign(&key(0));
    let mut directory = Directory::new();
    assert!(directory.take(second.clone(), Reach::Public, NOW));
    assert!(!directory.take(first, Reach::Public, NOW), "an earlier one");
    let found = |directory: &Directory, text: &str, now| directory.search(text, now).count();
    assert_eq!(found(&directory, "SEA", NOW), 1);
    assert_eq!(found(&directory, "bird", NOW), 1);
    assert_eq!(found(&directory, &chain.group().to_string(), NOW), 1);
    assert_eq!(found(&directory, "fish", NOW), 0);
    assert_eq!(found(&directory, "", NOW + Duration::from_secs(90_000)), 0, "expired");
    let shards = shards_of(&second.card);
    assert_eq!(shards.len(), 4);
    assert!(shards.contains(&(ShardKind::Tag, ShardKind::Tag.shard("bIRDS"))));
    let listed = GroupPolicy {
        discoverability: Discoverability::ListedToContacts,
        ..GroupPolicy::PUBLIC_OPEN
    };
    let listed = group(listed);
    let card = Card::of(&listed, agent(0), NOW).expect("may").sign(&key(0));
    assert!(shards_of(&card.card).is_empty(), "it is in no shard");
    assert!(!directory.take(card.clone(), Reach::Public, NOW), "it came where it must not be");
    assert!(directory.take(card, Reach::Contact, NOW));
    assert_eq!(directory.public(NOW).count(), 1);
    act(&mut chain, 0, Action::Withdraw);
    let ended = Card::of(&chain, agent(0), NOW).expect("may").sign(&key(0));
    assert!(directory.take(ended, Reach::Public, NOW));
    assert_eq!(found(&directory, "sea", NOW), 1, "the listed one");
    assert_eq!(found(&directory, &chain.group().to_string(), NOW), 0, "it has ended");
    let never = WallTime::from_millis(0);
    assert!(directory.get(&chain.group(), never).is_some());
    assert!(directory.subscribe(ShardKind::Tag, 7, None, NOW).is_some_and(|(new, _)| new));
    assert!(directory.subscribe(ShardKind::Tag, 7, None, NOW).is_some_and(|(new, _)| !new));
    assert!(directory.unsubscribe(ShardKind::Tag, 7) && !directory.unsubscribe(ShardKind::Tag, 7));
}
