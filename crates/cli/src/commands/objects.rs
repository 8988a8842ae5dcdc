//! `x0x tasks` and `x0x store`: state that agents share.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde_json::Value;
use x0x_api::event::{StoreEvent, TaskEvent};
use x0x_api::types::{
    AddTaskRequest, ChangeTaskRequest, CreateObjectRequest, PolicyRequest, PutValueRequest,
    TaskAction, TasksResponse, ValueResponse,
};
use x0x_api::{Base64, Operation};

use super::pubsub::{Printed, follow, short};
use super::show;
use crate::args::{
    AddTaskArguments, CreateArguments, EditTaskArguments, Limit, PolicyArguments, PutArguments,
    StoreCommand, TasksCommand,
};
use crate::client::{Call, Client};
use crate::error::Result;
use crate::events::ServerEvent;
use crate::output::{Output, table};

/// Largest file that is put as a value; the daemon takes no larger one.
const MAX_VALUE: u64 = 64 * 1024;

/// Runs a command of `x0x tasks`, the lists without a word.
pub(super) fn tasks(
    client: &Client,
    command: Option<TasksCommand>,
    output: &mut Output,
) -> Result<()> {
    let call = match command.unwrap_or(TasksCommand::List) {
        TasksCommand::List => Call::new(Operation::TaskLists),
        TasksCommand::Create(arguments) => create(Operation::CreateTaskList, arguments)?,
        TasksCommand::Status { list } => object(Operation::TaskListStatus, &list),
        TasksCommand::Leave { list } => object(Operation::LeaveTaskList, &list),
        TasksCommand::Policy(arguments) => policy(Operation::TaskListPolicy, arguments)?,
        TasksCommand::Show { list } => return show_tasks(client, &list, output),
        TasksCommand::Get { list, task } => of_task(Operation::Task, &list, &task),
        TasksCommand::Add(arguments) => add(arguments)?,
        TasksCommand::Edit(arguments) => edit(arguments)?,
        TasksCommand::Claim { list, task, lease } => {
            act(&list, &task, TaskAction::Claim, Some(lease))?
        }
        TasksCommand::Renew { list, task, lease } => {
            act(&list, &task, TaskAction::Renew, Some(lease))?
        }
        TasksCommand::Release { list, task } => act(&list, &task, TaskAction::Release, None)?,
        TasksCommand::Complete { list, task } => act(&list, &task, TaskAction::Complete, None)?,
        TasksCommand::Reopen { list, task } => act(&list, &task, TaskAction::Reopen, None)?,
        TasksCommand::Delete { list, task } => of_task(Operation::DeleteTask, &list, &task),
        TasksCommand::Watch { list, limit } => {
            let call = object(Operation::TaskEvents, &list);
            return watch(client, &call, limit, output, task_line);
        }
    };
    show(client, &call, output)
}

fn object(operation: Operation, id: &str) -> Call {
    Call::new(operation).parameter("id", id)
}

fn of_task(operation: Operation, list: &str, task: &str) -> Call {
    object(operation, list).parameter("task_id", task)
}

fn create(operation: Operation, arguments: CreateArguments) -> Result<Call> {
    let CreateArguments { title: name, topic, policy, writers } = arguments;
    let policy = policy.into();
    Call::new(operation).body(&CreateObjectRequest { name, topic, policy, writers })
}

fn policy(operation: Operation, arguments: PolicyArguments) -> Result<Call> {
    let PolicyArguments { id, add, remove } = arguments;
    object(operation, &id).body(&PolicyRequest { add_writers: add, remove_writers: remove })
}

fn act(list: &str, task: &str, action: TaskAction, lease: Option<u64>) -> Result<Call> {
    let body = ChangeTaskRequest {
        action: Some(action),
        lease_ms: lease.map(|secs| secs.saturating_mul(1000)),
        ..ChangeTaskRequest::default()
    };
    of_task(Operation::ChangeTask, list, task).body(&body)
}

fn add(arguments: AddTaskArguments) -> Result<Call> {
    let body = AddTaskRequest {
        title: arguments.title,
        description: arguments.description,
        priority: arguments.priority,
        labels: arguments.labels,
        assignee: arguments.assignee,
        due_at: arguments.due,
        after: arguments.place.after,
        before: arguments.place.before,
    };
    object(Operation::AddTask, &arguments.list).body(&body)
}

fn edit(arguments: EditTaskArguments) -> Result<Call> {
    let labels = (!arguments.labels.is_empty()).then_some(arguments.labels);
    let body = ChangeTaskRequest {
        title: arguments.title,
        description: arguments.description,
        priority: arguments.priority,
        labels,
        assignee: arguments.assignee,
        due_at: arguments.due,
        after: arguments.place.after,
        before: arguments.place.before,
        ..ChangeTaskRequest::default()
    };
    of_task(Operation::ChangeTask, &arguments.list, &arguments.task).body(&body)
}

fn show_tasks(client: &Client, list: &str, output: &mut Output) -> Result<()> {
    let answer = client.call(&object(Operation::Tasks, list))?;
    let found: TasksResponse = serde_json::from_value(answer.clone())?;
    let rows = found.tasks.into_iter().map(|task| {
        let state = match task.state.split_once(':') {
            Some((state, agent)) => format!("{state} by {}", short(agent)),
            None => task.state,
        };
        vec![task.id, state, task.priority.to_string(), task.title]
    });
    let header = ["TASK", "STATE", "PRIORITY", "TITLE"].map(str::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(header).chain(rows).collect();
    output.report(&table(&rows), &answer)
}

/// Runs a command of `x0x store`, the stores without a word.
pub(super) fn store(
    client: &Client,
    command: Option<StoreCommand>,
    output: &mut Output,
) -> Result<()> {
    let call = match command.unwrap_or(StoreCommand::List) {
        StoreCommand::List => Call::new(Operation::Stores),
        StoreCommand::Create(arguments) => create(Operation::CreateStore, arguments)?,
        StoreCommand::Join { store } => object(Operation::JoinStore, &store),
        StoreCommand::Status { store } => object(Operation::StoreStatus, &store),
        StoreCommand::Leave { store } => object(Operation::LeaveStore, &store),
        StoreCommand::Policy(arguments) => policy(Operation::StorePolicy, arguments)?,
        StoreCommand::Keys { store, prefix } => {
            filtered(object(Operation::Keys, &store), "prefix", prefix)
        }
        StoreCommand::Put(arguments) => put(arguments)?,
        StoreCommand::Get { store, key, output: file } => {
            let call = object(Operation::Value, &store).parameter("key", &key);
            return match file {
                Some(file) => save(&client.fetch(&call)?, &file, output),
                None => show(client, &call, output),
            };
        }
        StoreCommand::Rm { store, key, if_version } => {
            let call = object(Operation::DeleteValue, &store).parameter("key", &key);
            filtered(call, "if_version", if_version)
        }
        StoreCommand::Watch { store, prefix, limit } => {
            let call = filtered(object(Operation::WatchStore, &store), "prefix", prefix);
            return watch(client, &call, limit, output, store_line);
        }
    };
    show(client, &call, output)
}

fn filtered(call: Call, name: &'static str, value: Option<String>) -> Call {
    match value {
        Some(value) => call.query(name, value),
        None => call,
    }
}

fn put(arguments: PutArguments) -> Result<Call> {
    let value = match (&arguments.file, arguments.value) {
        (Some(path), _) => read(path)?,
        (None, text) => text.unwrap_or_default().into_bytes(),
    };
    let body = PutValueRequest {
        value: Some(Base64::encode(&value)),
        content_type: arguments.content_type,
        ttl_ms: arguments.ttl.map(|secs| secs.saturating_mul(1000)),
        if_version: arguments.if_version,
        ..PutValueRequest::default()
    };
    object(Operation::PutValue, &arguments.store).parameter("key", &arguments.key).body(&body)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let context = || format!("cannot read {}", path.display());
    let mut content = Vec::new();
    let file = File::open(path).with_context(context)?;
    file.take(MAX_VALUE + 1).read_to_end(&mut content).with_context(context)?;
    if content.len() as u64 > MAX_VALUE {
        let text = "a value has at most 64 KiB; larger ones are sent with `x0x send-file`";
        return Err(anyhow!(text).into());
    }
    Ok(content)
}

fn save(found: &ValueResponse, path: &Path, output: &mut Output) -> Result<()> {
    let Some(value) = &found.value.value else {
        return Err(anyhow!("a file holds the value, which the store does not carry").into());
    };
    if path == Path::new("-") {
        return output.raw(&value.0);
    }
    std::fs::write(path, &value.0).with_context(|| format!("cannot write {}", path.display()))?;
    output.say(&format!("{} bytes in {}", value.0.len(), path.display()), &Value::Null)
}

/// Prints events until interrupted or the limit is reached.
pub(super) fn watch(
    client: &Client,
    call: &Call,
    limit: Limit,
    output: &mut Output,
    line: fn(&str) -> Option<String>,
) -> Result<()> {
    let mut events = client.stream_of(call)?;
    eprintln!("listening; Ctrl-C ends");
    follow(&mut events, limit, |ServerEvent { data, .. }| {
        if output.is_json() {
            output.json_line(data)?;
            return Ok(Printed::Message);
        }
        // A daemon of another version may send events that we do not know.
        let Some(line) = line(data) else { return Ok(Printed::Notice) };
        output.line(&line)?;
        Ok(Printed::Message)
    })
}

fn task_line(data: &str) -> Option<String> {
    let event: TaskEvent = serde_json::from_str(data).ok()?;
    let (task, agent) = (short(&event.task_id), short(&event.agent.to_string()));
    let holder = event.holder.map(|holder| format!(" to {}", short(&holder.to_string())));
    Some(format!("{task} {} by {agent}{}", event.event.as_str(), holder.unwrap_or_default()))
}

fn store_line(data: &str) -> Option<String> {
    let event: StoreEvent = serde_json::from_str(data).ok()?;
    let agent = short(&event.agent.to_string());
    Some(format!("{} {} by {agent}", event.key, event.event.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_lines() {
        let [task, loser, holder] = ["1", "2", "3"].map(|digit| digit.repeat(64));
        let data = format!(
            r#"{{"list_id":"l","task_id":"{task}","event":"claim_lost","agent":"{loser}","holder":"{holder}","at":1}}"#
        );
        let expected =
            format!("{} claim_lost by {} to {}", &task[..16], &loser[..16], &holder[..16]);
        assert_eq!(task_line(&data), Some(expected));
        assert_eq!(task_line("{}"), None);
        let data =
            format!(r#"{{"store_id":"s","key":"k","event":"put","agent":"{loser}","at":1}}"#);
        assert_eq!(store_line(&data), Some(format!("k put by {}", &loser[..16])));
    }
}
