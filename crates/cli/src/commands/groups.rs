//! `x0x groups`: named groups.

use x0x_api::Operation;
use x0x_api::event::{GroupEvent, GroupEventKind};
use x0x_api::types::{
    AddMemberRequest, AskToJoinRequest, ChangeGroupPolicyRequest, ChangeGroupRequest,
    CreateGroupRequest, DisplayNameRequest, GroupMessagesResponse, GroupSendRequest, InviteRequest,
    JoinGroupRequest, JoinOpenGroupRequest, RoomRequest, SetRoleRequest,
};

use super::group_cards;
use super::objects::watch;
use super::pubsub::short;
use super::show;
use crate::args::{GroupPolicyArguments, GroupsCommand};
use crate::client::{Call, Client};
use crate::error::Result;
use crate::output::{Output, table};

fn group(operation: Operation, id: &str) -> Call {
    Call::new(operation).parameter("id", id)
}

fn of_agent(operation: Operation, id: &str, agent: &str) -> Call {
    group(operation, id).parameter("agent_id", agent)
}

fn of_request(operation: Operation, id: &str, request: &str) -> Call {
    group(operation, id).parameter("request_id", request)
}

/// Runs a command of `x0x groups`, the groups without a word.
pub(super) fn groups(
    client: &Client,
    command: Option<GroupsCommand>,
    output: &mut Output,
) -> Result<()> {
    match command.unwrap_or(GroupsCommand::List) {
        GroupsCommand::Messages { group } => messages(client, &group, output),
        GroupsCommand::Watch { limit } => {
            watch(client, &Call::new(Operation::GroupEvents), limit, output, line)
        }
        GroupsCommand::Cards(command) => group_cards::cards(client, command, output),
        command => show(client, &call(command)?, output),
    }
}

fn call(command: GroupsCommand) -> Result<Call> {
    Ok(match command {
        GroupsCommand::Create(new) => {
            Call::new(Operation::CreateGroup).body(&CreateGroupRequest {
                name: new.title,
                description: new.description,
                display_name: new.display_name,
                preset: new.preset,
            })?
        }
        GroupsCommand::Join { invite, display_name } => {
            Call::new(Operation::JoinGroup).body(&JoinGroupRequest { invite, display_name })?
        }
        GroupsCommand::Show { group: id } => group(Operation::Group, &id),
        GroupsCommand::Edit { group: id, title, description, tags } => {
            let tags = (!tags.is_empty()).then_some(tags);
            let body = ChangeGroupRequest { name: title, description, tags };
            group(Operation::ChangeGroup, &id).body(&body)?
        }
        GroupsCommand::Leave { group: id } => group(Operation::LeaveGroup, &id),
        GroupsCommand::Members { group: id } => group(Operation::GroupMembers, &id),
        GroupsCommand::Policy(arguments) => policy(arguments)?,
        GroupsCommand::Name { group: id, display_name: name } => {
            group(Operation::DisplayName, &id).body(&DisplayNameRequest { name })?
        }
        GroupsCommand::Invite { group: id, expires: expiry_secs, uses } => {
            group(Operation::Invite, &id).body(&InviteRequest { expiry_secs, uses })?
        }
        GroupsCommand::Revoke { group: id, invite } => {
            group(Operation::RevokeInvite, &id).parameter("invite_id", &invite)
        }
        GroupsCommand::Send { group: id, text, room, kind } => {
            let body = GroupSendRequest { body: Some(text), payload: None, kind, room };
            group(Operation::GroupSend, &id).body(&body)?
        }
        GroupsCommand::State { group: id } => group(Operation::GroupState, &id),
        GroupsCommand::Seal { group: id } => group(Operation::SealState, &id),
        GroupsCommand::Withdraw { group: id } => group(Operation::WithdrawGroup, &id),
        GroupsCommand::Room { group: id, room, topic, closed } => group(Operation::SetRoom, &id)
            .parameter("room", &room)
            .body(&RoomRequest { topic, closed })?,
        GroupsCommand::Hide { group: id, message } => {
            group(Operation::HideMessage, &id).parameter("message_id", &message)
        }
        command => of_members(command)?,
    })
}

/// Who is in a group, and who would be.
fn of_members(command: GroupsCommand) -> Result<Call> {
    Ok(match command {
        GroupsCommand::Add { group: id, agent: agent_id, display_name } => {
            group(Operation::AddMember, &id).body(&AddMemberRequest { agent_id, display_name })?
        }
        GroupsCommand::Remove { group: id, agent } => {
            of_agent(Operation::RemoveMember, &id, &agent)
        }
        GroupsCommand::Role { group: id, agent, role } => {
            of_agent(Operation::SetRole, &id, &agent).body(&SetRoleRequest { role })?
        }
        GroupsCommand::Ban { group: id, agent } => of_agent(Operation::Ban, &id, &agent),
        GroupsCommand::Unban { group: id, agent } => of_agent(Operation::Unban, &id, &agent),
        GroupsCommand::Requests { group: id } => group(Operation::JoinRequests, &id),
        GroupsCommand::Ask { group: id, member, message } => {
            group(Operation::AskToJoin, &id).body(&AskToJoinRequest { member, message })?
        }
        GroupsCommand::Enter { group: id, member, display_name } => {
            let body = JoinOpenGroupRequest { member, display_name };
            group(Operation::JoinOpenGroup, &id).body(&body)?
        }
        GroupsCommand::Cancel { group: id, request } => {
            of_request(Operation::CancelRequest, &id, &request)
        }
        GroupsCommand::Approve { group: id, request } => {
            of_request(Operation::ApproveRequest, &id, &request)
        }
        GroupsCommand::Reject { group: id, request } => {
            of_request(Operation::RejectRequest, &id, &request)
        }
        _ => Call::new(Operation::Groups),
    })
}

fn policy(arguments: GroupPolicyArguments) -> Result<Call> {
    let body = ChangeGroupPolicyRequest {
        preset: arguments.preset,
        discoverability: arguments.discoverability,
        admission: arguments.admission,
        confidentiality: arguments.confidentiality,
        read_access: arguments.read_access,
        write_access: arguments.write_access,
        invite_role: arguments.invite_role,
        shares_history: arguments.shares_history,
    };
    group(Operation::GroupPolicy, &arguments.group).body(&body)
}

fn messages(client: &Client, id: &str, output: &mut Output) -> Result<()> {
    let answer = client.call(&group(Operation::GroupMessages, id))?;
    let found: GroupMessagesResponse = serde_json::from_value(answer.clone())?;
    let rows = found.messages.into_iter().map(|message| {
        let text = message.body.or(message.payload).unwrap_or_default();
        vec![short(&message.author_agent_id.to_string()), message.room, text]
    });
    let header = ["FROM", "ROOM", "TEXT"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    output.report(&table(&rows), &answer)
}

fn line(data: &str) -> Option<String> {
    let event: GroupEvent = serde_json::from_str(data).ok()?;
    let group = short(&event.group_id);
    Some(match event.event {
        GroupEventKind::Message => {
            let author = event.author_agent_id.map(|agent| short(&agent.to_string()));
            let text = event.body.or(event.payload).or(event.message_id).unwrap_or_default();
            format!("{group} {}: {text}", author.unwrap_or_else(|| "message".to_owned()))
        }
        GroupEventKind::Epoch => {
            format!("{group} has new keys, epoch {}", event.epoch.unwrap_or_default())
        }
        GroupEventKind::Unreadable => {
            let epoch = event.epoch.unwrap_or_default();
            format!("{group} has something of epoch {epoch} that cannot be read here")
        }
        GroupEventKind::Entered => format!("{group} entered"),
        GroupEventKind::Left => format!("{group} left"),
        _ => format!("{group} changed"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let [id, agent] = ["1", "2"].map(|digit| digit.repeat(64));
        let data = format!(
            r#"{{"group_id":"{id}","event":"message","author_agent_id":"{agent}","room":"","body":"hi"}}"#
        );
        assert_eq!(line(&data), Some(format!("{} {}: hi", &id[..16], &agent[..16])));
        let data = format!(r#"{{"group_id":"{id}","event":"epoch","epoch":3}}"#);
        assert_eq!(line(&data), Some(format!("{} has new keys, epoch 3", &id[..16])));
        assert_eq!(line("{}"), None);
    }
}
