//! Named groups in the composition: where they are kept, whom they let in, and how agents ask each other
//! about them.

use std::{fmt, path::Path, sync::Arc};

use tokio_util::sync::CancellationToken;
use x0x_core::{AgentId, Clock};
use x0x_gossip_pubsub::Gossip;
use x0x_groups::{Admittance, GroupsConfig, GroupsHandle, OpenStore, Store};
use x0x_identity::{SecretKey, Subject};
use x0x_store::{GROUPS_FILE, GroupsFile};
use x0x_transport::Transport;
use x0x_trust::{Action, Level};

use crate::{Agent, AgentConfig, StartError, Storage, builder::layer, trust::Gate};

mod courier;

use courier::Sessions;

/// Whom the contacts let do what.
struct ByTrust(Gate);

impl Admittance for ByTrust {
    fn may_ask(&self, agent: &AgentId) -> bool {
        self.0.allows(agent, None, Action::GroupInvite)
    }

    fn may_bring(&self, agent: &AgentId) -> bool {
        self.may_ask(agent) && self.0.trust.level(agent) >= Level::Known
    }

    fn may_speak(&self, agent: &AgentId) -> bool {
        self.0.allows(agent, None, Action::GossipDeliver)
    }

    fn is_revoked(&self, agent: &AgentId) -> bool {
        self.0.trust.is_revoked_for_all(&Subject::Agent(*agent))
    }
}

/// The layer, and what is to be run beside it.
pub(crate) struct Started {
    pub(crate) handle: GroupsHandle,
    sessions: Arc<Sessions>,
    /// There are groups from before.
    kept: bool,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").field("kept", &self.kept).finish_non_exhaustive()
    }
}

/// Makes the layer. Nothing is opened before something is asked of it, or there are groups from before.
pub(crate) fn start_groups(
    config: &AgentConfig,
    gossip: &Arc<Gossip>,
    transport: &Arc<dyn Transport>,
    key: Arc<SecretKey>,
    gate: &Gate,
    clock: &Arc<dyn Clock>,
) -> Result<Started, StartError> {
    let me = key.public_key().agent_id();
    let sessions = Sessions::new(Arc::clone(transport), gate.clone(), me, Arc::clone(clock))
        .map_err(layer("groups"))?;
    let file = config.data_dir.join(GROUPS_FILE);
    let on_disk = config.storage == Storage::Disk;
    let kept = on_disk && file.exists();
    let open: OpenStore = Box::new(move || opened(on_disk.then_some(file.as_path())));
    let handle = GroupsHandle::new(GroupsConfig {
        pubsub: Arc::<Gossip>::clone(gossip),
        courier: Arc::<Sessions>::clone(&sessions),
        admittance: Arc::new(ByTrust(gate.clone())),
        key,
        clock: Arc::clone(clock),
        open,
    });
    Ok(Started { handle, sessions, kept })
}

fn opened(file: Option<&Path>) -> Result<Store, String> {
    let opened = match file {
        Some(file) => GroupsFile::open(file),
        None => GroupsFile::in_memory(),
    };
    Ok(Arc::new(opened.map_err(|error| error.to_string())?))
}

/// Opens the groups from before, and answers other agents until the agent stops.
pub(crate) async fn run(agent: Agent, stop: CancellationToken) {
    let Started { handle, sessions, kept } = &agent.inner.groups;
    let (groups, sessions, kept) = (handle.clone(), Arc::clone(sessions), *kept);
    let serve = async {
        if kept && let Err(error) = groups.open().await {
            tracing::error!(%error, "the groups from before cannot be opened");
        }
        sessions.serve(agent, groups).await;
    };
    stop.run_until_cancelled(serve).await;
}

impl Agent {
    /// The named groups of this agent.
    #[must_use]
    pub fn groups(&self) -> &GroupsHandle {
        &self.inner.groups.handle
    }
}
