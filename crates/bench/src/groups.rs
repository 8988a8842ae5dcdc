//! Groups of daemons: what figures and scenarios do in them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use x0x_api::event::{GroupEvent, GroupEventKind};
use x0x_api::types::{
    CreateGroupRequest, GroupCreatedResponse, GroupDiagnosticsResponse, GroupMessagesResponse,
    GroupSendRequest, GroupSendResponse, GroupStateResponse, InviteRequest, InviteResponse,
    JoinGroupRequest,
};
use x0x_api::{Operation, endpoint};

use crate::http::Http;
use crate::node::Node;

/// How often what is waited for is looked at.
const POLL: Duration = Duration::from_millis(50);

/// Calls an operation on a group with a body.
pub(crate) async fn call<T: DeserializeOwned>(
    http: &mut Http,
    operation: Operation,
    parameters: &[(&str, &str)],
    body: &impl Serialize,
) -> Result<T> {
    let row = endpoint(operation);
    let mut path = row.path.to_owned();
    for (name, value) in parameters {
        path = path.replace(&format!("{{{name}}}"), value);
    }
    let body = match row.method {
        x0x_api::Method::Get => Vec::new(),
        _ => serde_json::to_vec(body)?,
    };
    http.send(row.method.as_str(), &path, &body).await?.read()
}

/// Founds an encrypted group and makes an invite that all may use. Its id and the link.
pub(crate) async fn found(node: &Node, uses: u32) -> Result<(String, String)> {
    let request = CreateGroupRequest { name: "bench".to_owned(), ..CreateGroupRequest::default() };
    found_as(node, &request, uses).await
}

/// The same with what is said of the group.
pub(crate) async fn found_as(
    node: &Node,
    request: &CreateGroupRequest,
    uses: u32,
) -> Result<(String, String)> {
    let mut http = node.http().await?;
    let made: GroupCreatedResponse = call(&mut http, Operation::CreateGroup, &[], request).await?;
    let group = made.group_id;
    let request = InviteRequest { expiry_secs: None, uses: Some(uses) };
    let invite: InviteResponse =
        call(&mut http, Operation::Invite, &[("id", &group)], &request).await?;
    Ok((group, invite.invite_link))
}

/// Joins by an invite.
pub(crate) async fn join(node: &Node, invite: &str) -> Result<()> {
    let request = JoinGroupRequest { invite: invite.to_owned(), display_name: String::new() };
    let mut http = node.http().await?;
    let _: GroupCreatedResponse = call(&mut http, Operation::JoinGroup, &[], &request).await?;
    Ok(())
}

/// Writes a text.
pub(crate) async fn say(http: &mut Http, group: &str, text: &str) -> Result<()> {
    let request = GroupSendRequest { body: Some(text.to_owned()), ..GroupSendRequest::default() };
    let _: GroupSendResponse = call(http, Operation::GroupSend, &[("id", group)], &request).await?;
    Ok(())
}

/// What was written, as far as it is kept.
pub(crate) async fn texts(node: &Node, group: &str) -> Result<Vec<String>> {
    let mut http = node.http().await?;
    let answer: GroupMessagesResponse =
        call(&mut http, Operation::GroupMessages, &[("id", group)], &()).await?;
    Ok(answer.messages.into_iter().filter_map(|message| message.body).collect())
}

/// The hash of the state here, and the epoch.
pub(crate) async fn state(node: &Node, group: &str) -> Result<(String, Option<String>)> {
    let mut http = node.http().await?;
    let state: GroupStateResponse =
        call(&mut http, Operation::GroupState, &[("id", group)], &()).await?;
    Ok((state.state_hash, state.security_binding))
}

/// Waits until all have one state and one epoch. How long it took.
pub(crate) async fn agree(nodes: &[&Node], group: &str, patience: Duration) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        let mut seen = Vec::new();
        for node in nodes {
            seen.push(state(node, group).await.ok());
        }
        if seen[0].as_ref().is_some_and(|first| first.1.is_some())
            && seen.iter().all(|state| *state == seen[0])
        {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > patience {
            for node in nodes {
                eprintln!("{}", diagnosis(node, group).await.unwrap_or_default());
            }
            bail!("no agreement after {} s: {seen:?}", patience.as_secs());
        }
        sleep(POLL).await;
    }
}

/// What a daemon says of a group, on one line.
pub(crate) async fn diagnosis(node: &Node, group: &str) -> Result<String> {
    let mut http = node.http().await?;
    let answer: GroupDiagnosticsResponse = http.get(Operation::GroupDiagnostics).await?;
    let of_it = answer.groups.into_iter().find(|of| of.group_id == group);
    Ok(serde_json::to_string(&of_it)?)
}

/// When texts came to a daemon, by its event stream.
pub(crate) struct Listener {
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
    task: JoinHandle<()>,
}

impl Listener {
    pub(crate) async fn to(node: &Node) -> Result<Self> {
        let mut stream = BufReader::new(node.place.connect(node.api).await?);
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\r\n",
            endpoint(Operation::GroupEvents).path,
            node.api,
            node.token
        );
        stream.write_all(request.as_bytes()).await?;
        let mut line = String::new();
        stream.read_line(&mut line).await?;
        if !line.contains(" 200 ") {
            bail!("no event stream: {}", line.trim());
        }
        let seen = Arc::<Mutex<BTreeMap<String, Instant>>>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut line = String::new();
            while stream.read_line(&mut line).await.is_ok_and(|read| read > 0) {
                let now = Instant::now();
                let data = line.trim_end().strip_prefix("data:");
                let event = data.and_then(|data| serde_json::from_str::<GroupEvent>(data).ok());
                if let Some(event) = event
                    && event.event == GroupEventKind::Message
                    && let Some(text) = event.body
                {
                    let mut seen = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.entry(text).or_insert(now);
                }
                line.clear();
            }
        });
        Ok(Self { seen, task })
    }

    /// When a text came.
    pub(crate) fn at(&self, text: &str) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(text).copied()
    }

    /// Waits for a text.
    pub(crate) async fn heard(&self, text: &str, patience: Duration) -> Result<Instant> {
        let wait = async {
            loop {
                match self.at(text) {
                    Some(at) => return at,
                    None => sleep(Duration::from_millis(1)).await,
                }
            }
        };
        timeout(patience, wait).await.with_context(|| format!("{text:?} was not read"))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}
