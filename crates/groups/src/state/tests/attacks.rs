//! What insiders and outsiders try: refused in every order of arrival.

use super::*;

/// Offers the same to replicas in several orders; all agree. The state that follows.
fn settled(base: &Chain, more: &[Operation]) -> View {
    let mut rng = SeededRng::from_number(5);
    let mut log: BTreeMap<OpId, Operation> =
        operations(base).into_iter().map(|o| (o.id, o)).collect();
    log.extend(more.iter().map(|o| (o.id, o.clone())));
    let first = gather(&log, &mut rng);
    assert_eq!(first.len(), log.len(), "all have their parents");
    for _ in 0..4 {
        assert_eq!(gather(&log, &mut rng).view(), first.view());
    }
    View::clone(first.view())
}

fn own_role(n: usize) -> Option<Role> {
    Some([Role::Owner, Role::Admin, Role::Admin, Role::Moderator, Role::Member, Role::Member][n])
}

#[test]
fn forged_changes_fall_in_every_order() {
    let base = staffed(GroupPolicy::PRIVATE_SECURE);
    let heads = base.parents();
    let policy = GroupPolicy::PUBLIC_OPEN;
    let invite =
        Action::CreateInvite { invite: id(90), expires: None, uses: 9, role: Role::Member };
    let cases: Vec<(&str, usize, Option<Role>, Action)> = vec![
        ("a member makes itself an admin", 4, own_role(4), set_role(4, Role::Admin)),
        ("a member claims to be the owner", 4, Some(Role::Owner), set_role(5, Role::Admin)),
        ("an admin makes an admin", 1, own_role(1), set_role(4, Role::Admin)),
        ("an admin demotes an admin", 1, own_role(1), set_role(2, Role::Member)),
        ("an admin bans the owner", 1, own_role(1), ban(0)),
        ("an admin removes an admin", 1, own_role(1), Action::Remove { agent: id(2) }),
        ("a moderator bans", 3, own_role(3), ban(4)),
        ("a moderator removes an admin", 3, own_role(3), Action::Remove { agent: id(1) }),
        ("a member removes", 4, own_role(4), Action::Remove { agent: id(5) }),
        ("an admin sets the policy", 1, own_role(1), Action::SetPolicy { policy, mls_group: None }),
        ("an admin withdraws", 1, own_role(1), Action::Withdraw),
        ("a moderator sets the profile", 3, own_role(3), Action::SetProfile(profile("x"))),
        ("a member adds against the policy", 4, own_role(4), added(8)),
        ("a member invites against the policy", 4, own_role(4), invite),
        ("a stranger joins a closed group", 8, None, Action::Join { display_name: "8".into() }),
        ("a stranger claims a role", 8, Some(Role::Member), Action::SetDisplayName("8".into())),
        (
            "an admin understates its role",
            1,
            Some(Role::Member),
            Action::SetDisplayName("1".into()),
        ),
    ];
    for (what, n, role, action) in cases {
        let forged = stated(&base, n, role, heads.clone(), action);
        let view = settled(&base, &[forged]);
        assert_eq!(view.fallen, 1, "{what}");
        assert_eq!(view.state_hash(), base.view().state_hash(), "{what}");
    }
}

#[test]
fn who_is_banned_does_not_undo_it_by_not_having_heard() {
    let base = staffed(GroupPolicy::PRIVATE_SECURE);
    let before = base.parents();
    let mut chain = base.clone();
    act(&mut chain, 0, ban(1));
    // The admin pretends to have acted before; its friend builds upon that.
    let other = stated(&chain, 1, own_role(1), before.clone(), ban(3));
    let raised = stated(&chain, 1, own_role(1), before, set_role(4, Role::Moderator));
    let mut with = chain.clone();
    with.offer(raised.clone()).expect("fits");
    let by_friend = Action::Remove { agent: id(5) };
    let friend = stated(&with, 4, Some(Role::Moderator), vec![raised.id], by_friend);
    let view = settled(&chain, &[other, raised, friend]);
    assert_eq!(view.fallen, 3);
    assert!(view.is_banned(&id(1)));
    assert_eq!(view.role(&id(3)), Some(Role::Moderator));
    assert_eq!(view.role(&id(4)), Some(Role::Member));
    assert_eq!(view.role(&id(5)), Some(Role::Member));
}

#[test]
fn of_two_that_remove_each_other_the_higher_role_stands() {
    let base = staffed(GroupPolicy::PRIVATE_SECURE);
    let heads = base.parents();
    // A moderator that an admin raises at the same time is out of a moderator's reach, and so on.
    let raise = stated(&base, 0, own_role(0), heads.clone(), set_role(4, Role::Admin));
    let remove = stated(&base, 3, own_role(3), heads.clone(), Action::Remove { agent: id(4) });
    let view = settled(&base, &[raise, remove]);
    assert_eq!((view.role(&id(4)), view.fallen), (Some(Role::Admin), 1));
    // A demotion and a ban of the same by admins: the ban comes first.
    let demote = stated(&base, 1, own_role(1), heads.clone(), set_role(3, Role::Member));
    let banned = stated(&base, 2, own_role(2), heads, ban(3));
    let view = settled(&base, &[demote, banned]);
    assert!(view.is_banned(&id(3)));
}

/// A group that members may invite to, with an invite of member 4 and its key.
fn with_invite(uses: u32, expires: Option<WallTime>) -> (Chain, SecretKey) {
    let policy = GroupPolicy { invite_role: Role::Member, ..GroupPolicy::PRIVATE_SECURE };
    let mut chain = staffed(policy);
    let invite_key = testing::key(500);
    let invite = invite_key.public_key().agent_id();
    let role = Role::Member;
    act(&mut chain, 4, Action::CreateInvite { invite, expires, uses, role });
    (chain, invite_key)
}

fn redeemed(chain: &Chain, n: usize, invite: &SecretKey) -> Action {
    let statement = Statement::redeem(chain.group(), &key(n), invite, "new", NOW);
    let (role, display_name) = (Role::Member, String::new());
    let basis = Basis::Invite(Box::new(statement));
    Action::Admit { agent: id(n), role, basis, display_name }
}

#[test]
fn an_invite_admits_as_often_as_it_says() {
    let (mut chain, invite) = with_invite(1, None);
    let heads = chain.parents();
    let mut other = chain.clone();
    let action = redeemed(&chain, 8, &invite);
    let first = act(&mut chain, 5, action);
    let admits = redeemed(&chain, 9, &invite);
    assert!(chain.prepare(id(5), NOW, admits.clone()).is_err(), "used up");
    // Two members admit two agents at once: one of them stands, the same for all.
    let second = stated(&other, 1, own_role(1), heads.clone(), admits);
    let view = settled(&chain, std::slice::from_ref(&second));
    assert_eq!(view.fallen, 1);
    assert_eq!([8, 9].iter().filter(|n| view.role(&id(**n)).is_some()).count(), 1);
    // Two members admit the same at once: that is one use.
    let Action::Admit { basis, .. } = &first.body.action else { unreachable!() };
    let (role, display_name) = (Role::Member, "again".into());
    let again = Action::Admit { agent: id(8), role, basis: basis.clone(), display_name };
    let again = stated(&other, 1, own_role(1), heads, again);
    other.offer(again.clone()).expect("fits");
    let view = settled(&chain, &[again]);
    assert_eq!((view.fallen, view.role(&id(8))), (0, Some(Role::Member)));
}

#[test]
fn what_was_redeemed_is_not_replayed() {
    let (mut chain, invite) = with_invite(5, None);
    let action = redeemed(&chain, 8, &invite);
    act(&mut chain, 5, action.clone());
    act(&mut chain, 0, Action::Remove { agent: id(8) });
    let replay = stated(&chain, 5, own_role(5), chain.parents(), action);
    let view = settled(&chain, &[replay]);
    assert_eq!((view.fallen, view.role(&id(8))), (1, None));
    // A new statement with the same link is another use.
    let statement = Statement::redeem(
        chain.group(),
        &key(8),
        &invite,
        "new",
        WallTime::from_millis(NOW.as_millis() + 1),
    );
    let (role, display_name) = (Role::Member, String::new());
    let basis = Basis::Invite(Box::new(statement));
    act(&mut chain, 5, Action::Admit { agent: id(8), role, basis, display_name });
}

#[test]
fn invites_end_by_time_by_revocation_and_with_who_made_them() {
    let ended = WallTime::from_millis(NOW.as_millis() - 1);
    let (chain, invite) = with_invite(5, Some(ended));
    let late = stated(&chain, 5, own_role(5), chain.parents(), redeemed(&chain, 8, &invite));
    assert_eq!(settled(&chain, &[late]).fallen, 1, "expired");

    let (mut chain, invite) = with_invite(5, None);
    let before = chain.parents();
    let of = invite.public_key().agent_id();
    act(&mut chain, 1, Action::RevokeInvite { invite: of });
    let admits = redeemed(&chain, 8, &invite);
    let after = stated(&chain, 5, own_role(5), chain.parents(), admits.clone());
    let beside = stated(&chain, 5, own_role(5), before, admits);
    assert_eq!(settled(&chain, &[after, beside]).fallen, 2, "revoked");

    let (mut chain, invite) = with_invite(5, None);
    let before = chain.parents();
    act(&mut chain, 0, Action::Remove { agent: id(4) });
    let admits = redeemed(&chain, 8, &invite);
    let after = stated(&chain, 5, own_role(5), chain.parents(), admits.clone());
    let beside = stated(&chain, 5, own_role(5), before, admits);
    assert_eq!(settled(&chain, &[after, beside]).fallen, 2, "who made it is gone");
}

#[test]
fn altered_invites_and_others_statements_do_not_verify() {
    let (chain, invite) = with_invite(5, None);
    let good = stated(&chain, 5, own_role(5), chain.parents(), redeemed(&chain, 8, &invite));
    let read = |o: &Operation| crate::wire::OperationIn::decode(o.encoded());
    assert!(read(&good).expect("reads").verify().is_ok());
    // Made with another secret than the invite's, so for an invite that is not there.
    let wrong = stated(&chain, 5, own_role(5), chain.parents(), redeemed(&chain, 8, &key(501)));
    assert_eq!(settled(&chain, &[wrong]).fallen, 1);
    // Redeemed by one agent, used to admit another.
    let Action::Admit { basis, .. } = redeemed(&chain, 8, &invite) else { unreachable!() };
    let (role, display_name) = (Role::Member, String::new());
    let stolen = Action::Admit { agent: id(9), role, basis, display_name };
    let stolen = stated(&chain, 5, own_role(5), chain.parents(), stolen);
    assert!(read(&stolen).is_err());
    // For another group.
    let far = Statement::redeem(GroupId::new([1; 32]), &key(8), &invite, "new", NOW);
    let basis = Basis::Invite(Box::new(far));
    let far = Action::Admit { agent: id(8), role, basis, display_name: String::new() };
    let far = stated(&chain, 5, own_role(5), chain.parents(), far);
    assert!(read(&far).expect("reads").verify().is_err());
    // Every bit of a redemption counts: of the signatures, the keys, the body.
    let bytes = good.encoded();
    let mut rng = SeededRng::from_number(3);
    for _ in 0..300 {
        let mut altered = bytes.to_vec();
        let at = rng.below(altered.len());
        altered[at] ^= 1 << rng.below(8);
        if let Ok(read) = crate::wire::OperationIn::decode(&altered) {
            assert!(read.verify().is_err(), "byte {at}");
        }
    }
}

#[test]
fn requests_are_approved_rejected_and_taken_back() {
    let policy = GroupPolicy::PUBLIC_REQUEST_SECURE;
    let mut chain = staffed(policy);
    let ask = |chain: &Chain, n: usize| Statement::request(chain.group(), &key(n), "please", NOW);
    let (eight, nine) = (ask(&chain, 8), ask(&chain, 9));
    act(&mut chain, 5, Action::Request(Box::new(eight.clone())));
    act(&mut chain, 4, Action::Request(Box::new(nine.clone())));
    let twice = chain.prepare(id(5), NOW, Action::Request(Box::new(ask(&chain, 8))));
    assert_eq!(twice, Err(crate::ActError::Target("pending request already exists")));
    let approve = |n: usize, request| Action::Admit {
        agent: id(n),
        role: Role::Member,
        basis: Basis::Request(request),
        display_name: String::new(),
    };
    let forged = [
        stated(&chain, 5, own_role(5), chain.parents(), approve(8, eight.id())),
        stated(&chain, 1, own_role(1), chain.parents(), approve(8, nine.id())),
        stated(&chain, 1, own_role(1), chain.parents(), approve(8, [3; 32])),
    ];
    let others = Statement::cancel(chain.group(), &key(8), nine.id(), NOW);
    let others = stated(&chain, 5, own_role(5), chain.parents(), Action::Cancel(Box::new(others)));
    let view = settled(&chain, &[forged.to_vec(), vec![others]].concat());
    assert_eq!(view.fallen, 4);
    act(&mut chain, 1, approve(8, eight.id()));
    let back = Statement::cancel(chain.group(), &key(9), nine.id(), NOW);
    act(&mut chain, 4, Action::Cancel(Box::new(back)));
    let states: Vec<_> =
        [&eight, &nine].iter().map(|s| chain.view().requests[&s.id()].state).collect();
    assert_eq!(states, [RequestState::Approved, RequestState::Cancelled]);
    assert_eq!(chain.view().role(&id(8)), Some(Role::Member));
    let ten = ask(&chain, 10);
    act(&mut chain, 4, Action::Request(Box::new(ten.clone())));
    act(&mut chain, 2, Action::Reject { request: ten.id() });
    assert_eq!(chain.view().requests[&ten.id()].state, RequestState::Rejected);
}

#[test]
fn nothing_stands_after_withdrawal() {
    let mut chain = staffed(GroupPolicy::PUBLIC_OPEN);
    let before = chain.parents();
    act(&mut chain, 0, Action::Withdraw);
    let late = stated(&chain, 8, None, before, Action::Join { display_name: "8".into() });
    let after = stated(&chain, 1, own_role(1), chain.parents(), set_role(4, Role::Moderator));
    let view = settled(&chain, &[late, after]);
    assert!(view.withdrawn);
    assert_eq!(view.fallen, 2);
    assert_eq!(chain.prepare(id(0), NOW, ban(4)), Err(crate::ActError::Withdrawn));
}

#[test]
fn members_leave_come_back_and_are_unbanned() {
    let mut chain = staffed(GroupPolicy::PUBLIC_OPEN);
    act(&mut chain, 4, Action::Leave);
    assert_eq!(chain.view().role(&id(4)), None);
    act(&mut chain, 4, Action::Join { display_name: "back".into() });
    assert_eq!(chain.view().members[&id(4)].display_name, "back");
    act(&mut chain, 1, ban(4));
    let join = stated(&chain, 4, None, chain.parents(), Action::Join { display_name: "4".into() });
    assert_eq!(settled(&chain, &[join]).fallen, 1, "who is banned does not join");
    act(&mut chain, 2, Action::Unban { agent: id(4), role: Some(Role::Member) });
    assert_eq!(chain.view().role(&id(4)), Some(Role::Member));
    act(&mut chain, 1, Action::Leave);
    assert_eq!(chain.view().role(&id(1)), None);
    assert!(chain.prepare(id(0), NOW, Action::Leave).is_err());
}
