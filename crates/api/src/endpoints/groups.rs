//! Rows of named groups.

use super::row::{created, delete, get, json, patch, post, put, stream};
use crate::{
    endpoint::{Answer, Endpoint, SchemaOf},
    event::GroupEvent,
    operation::Operation,
    types::{
        AddMemberRequest, AskToJoinRequest, AskedToJoinResponse, ChangeGroupPolicyRequest,
        ChangeGroupRequest, CreateGroupRequest, DisplayNameRequest, GroupCommitResponse,
        GroupCreatedResponse, GroupMembersResponse, GroupMessagesResponse, GroupResponse,
        GroupRevisionResponse, GroupSendRequest, GroupSendResponse, GroupStateResponse,
        GroupsResponse, InviteRequest, InviteResponse, JoinGroupRequest, JoinOpenGroupRequest,
        JoinRequestsResponse, OkResponse, RoomRequest, SetRoleRequest,
    },
};

const GROUPS: &str = "Groups";

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Groups, "/groups", GROUPS, json::<GroupsResponse>())
        .cli("groups list")
        .says("The groups of this agent."),
    post(Operation::CreateGroup, "/groups", GROUPS, created::<GroupCreatedResponse>())
        .cli("groups create")
        .says("Founds a group; end-to-end encrypted unless its preset says otherwise.")
        .takes::<CreateGroupRequest>(),
    post(Operation::JoinGroup, "/groups/join", GROUPS, json::<GroupCreatedResponse>())
        .cli("groups join")
        .says("Joins by an invite. Once it answers, this agent has the group's keys; 504 when nobody whom the invite names is there.")
        .takes::<JoinGroupRequest>(),
    stream(
        Operation::GroupEvents,
        "/groups/events",
        GROUPS,
        Answer::Events(SchemaOf::new::<GroupEvent>()),
    )
    .cli("groups watch")
    .says("What happens in groups from now on, as server-sent events."),
    get(Operation::Group, "/groups/{id}", GROUPS, json::<GroupResponse>())
        .cli("groups show")
        .says("A group: its rules and who is in it."),
    patch(Operation::ChangeGroup, "/groups/{id}", GROUPS, json::<GroupRevisionResponse>())
        .cli("groups edit")
        .says("Changes name, description and tags; of admins.")
        .takes::<ChangeGroupRequest>(),
    delete(Operation::LeaveGroup, "/groups/{id}", GROUPS, json::<OkResponse>())
        .cli("groups leave")
        .says("Leaves a group, and forgets it here. Its only owner ends it."),
    get(Operation::GroupMembers, "/groups/{id}/members", GROUPS, json::<GroupMembersResponse>())
        .cli("groups members")
        .says("Who is in a group."),
    post(Operation::AddMember, "/groups/{id}/members", GROUPS, json::<GroupMembersResponse>())
        .cli("groups add")
        .says("Adds an agent, which has to be online if the group is encrypted, and has to know this agent.")
        .takes::<AddMemberRequest>(),
    delete(
        Operation::RemoveMember,
        "/groups/{id}/members/{agent_id}",
        GROUPS,
        json::<GroupMembersResponse>(),
    )
    .cli("groups remove")
    .says("Removes an agent; what is written from then on it cannot read."),
    patch(
        Operation::SetRole,
        "/groups/{id}/members/{agent_id}/role",
        GROUPS,
        json::<GroupRevisionResponse>(),
    )
    .cli("groups role")
    .says("Gives a member a role.")
    .takes::<SetRoleRequest>(),
    post(Operation::Ban, "/groups/{id}/ban/{agent_id}", GROUPS, json::<GroupRevisionResponse>())
        .cli("groups ban")
        .says("Removes an agent and keeps it out."),
    delete(Operation::Unban, "/groups/{id}/ban/{agent_id}", GROUPS, json::<GroupRevisionResponse>())
        .cli("groups unban")
        .says("Ends a ban; the agent may join again."),
    patch(
        Operation::GroupPolicy,
        "/groups/{id}/policy",
        GROUPS,
        json::<GroupRevisionResponse>(),
    )
    .cli("groups policy")
    .says("Changes the rules of a group; of its owner.")
    .takes::<ChangeGroupPolicyRequest>(),
    put(
        Operation::DisplayName,
        "/groups/{id}/display-name",
        GROUPS,
        json::<GroupRevisionResponse>(),
    )
    .cli("groups name")
    .says("Sets what this agent is called in a group.")
    .takes::<DisplayNameRequest>(),
    post(Operation::Invite, "/groups/{id}/invite", GROUPS, json::<InviteResponse>())
        .cli("groups invite")
        .says("Makes an invite: a link that whoever has it may join by.")
        .may_take::<InviteRequest>(),
    delete(Operation::RevokeInvite, "/groups/{id}/invite/{invite_id}", GROUPS, json::<OkResponse>())
        .cli("groups revoke")
        .says("Ends an invite."),
    get(Operation::JoinRequests, "/groups/{id}/requests", GROUPS, json::<JoinRequestsResponse>())
        .cli("groups requests")
        .says("Who asked to be admitted, the oldest first."),
    post(Operation::AskToJoin, "/groups/{id}/requests", GROUPS, created::<AskedToJoinResponse>())
        .cli("groups ask")
        .says("Asks to be admitted to a group of which this agent knows a member, or has the card.")
        .may_take::<AskToJoinRequest>(),
    delete(
        Operation::CancelRequest,
        "/groups/{id}/requests/{request_id}",
        GROUPS,
        json::<OkResponse>(),
    )
    .cli("groups cancel")
    .says("Takes an own request back, at the member that was asked."),
    post(
        Operation::ApproveRequest,
        "/groups/{id}/requests/{request_id}/approve",
        GROUPS,
        json::<GroupRevisionResponse>(),
    )
    .cli("groups approve")
    .says("Admits who asked; it has to be online if the group is encrypted."),
    post(
        Operation::RejectRequest,
        "/groups/{id}/requests/{request_id}/reject",
        GROUPS,
        json::<OkResponse>(),
    )
    .cli("groups reject")
    .says("Does not admit who asked."),
    post(Operation::GroupSend, "/groups/{id}/send", GROUPS, json::<GroupSendResponse>())
        .cli("groups send")
        .says("Writes to a group: encrypted to its members, or signed in the open.")
        .takes::<GroupSendRequest>(),
    get(Operation::GroupMessages, "/groups/{id}/messages", GROUPS, json::<GroupMessagesResponse>())
        .cli("groups messages")
        .says("What was written in a group, the oldest first; 512 are kept."),
    get(Operation::GroupState, "/groups/{id}/state", GROUPS, json::<GroupStateResponse>())
        .cli("groups state")
        .says("What the members of a group agree upon, as hashes."),
    post(Operation::SealState, "/groups/{id}/state/seal", GROUPS, json::<GroupCommitResponse>())
        .cli("groups seal")
        .says("Publishes the group's card as it is now, if it has one; of admins. A state itself needs no seal."),
    post(
        Operation::WithdrawGroup,
        "/groups/{id}/state/withdraw",
        GROUPS,
        json::<GroupCommitResponse>(),
    )
    .cli("groups withdraw")
    .says("Ends a group for everybody; of its owner."),
    post(Operation::JoinOpenGroup, "/groups/{id}/join", GROUPS, json::<GroupCreatedResponse>())
        .cli("groups enter")
        .says("Joins a group that is open to everybody, with what one of its members tells of it.")
        .may_take::<JoinOpenGroupRequest>(),
    put(Operation::SetRoom, "/groups/{id}/rooms/{room}", GROUPS, json::<GroupRevisionResponse>())
        .cli("groups room")
        .says("Makes a room, or changes its topic and whether one may write there; of moderators.")
        .takes::<RoomRequest>(),
    delete(
        Operation::HideMessage,
        "/groups/{id}/messages/{message_id}",
        GROUPS,
        json::<GroupRevisionResponse>(),
    )
    .cli("groups hide")
    .says("Hides a message of a group that is not encrypted; of moderators."),
];
