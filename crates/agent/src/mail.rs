//! The mail of an agent: what is stored, who may leave some, and the tasks around it.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use x0x_core::Clock;
use x0x_direct::{
    Admittance, Direct, DirectConfig, Inbox, Mailing,
    mail::{MailChange, MailStore, MemoryMailStore, Retention},
    outbox::Outbox,
};
use x0x_store::SqliteStore;
use x0x_transport::Transport;

use crate::{
    AgentConfig, StartError,
    agent::Inner,
    builder::layer,
    consumers::Consumers,
    letters::{Carrier, Recorder},
    mailbox::Mailbox,
    trust::Gate,
};

/// How often it is recorded how far mail was read: what a crash forgets is offered once more to
/// readers that do not say where they were.
const SEEN_INTERVAL: Duration = Duration::from_secs(1);
/// How often mail that is not kept any more is let go.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);

/// Mail that comes, and letters that go.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) mailing: Mailing,
    pub(crate) mailbox: Mailbox,
    pub(crate) consumers: Consumers,
    pub(crate) outbox: Outbox,
    pub(crate) recorder: Recorder,
}

/// What is started with the direct layer.
pub(crate) struct Started {
    pub(crate) direct: Direct,
    pub(crate) mail: Mail,
    /// The agent itself, for its letters, once it is built.
    pub(crate) itself: Arc<OnceLock<Weak<Inner>>>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

/// Starts direct messages, with what an earlier run left.
pub(crate) async fn start(
    config: &AgentConfig,
    store: Option<&SqliteStore>,
    gate: &Gate,
    transport: Arc<dyn Transport>,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Result<Started, StartError> {
    let store: Arc<dyn MailStore> = match store {
        Some(store) => Arc::new(store.clone()),
        None => Arc::new(MemoryMailStore::default()),
    };
    let stored = store.load().await.map_err(layer("direct"))?;
    let admittance = Admittance::new(Arc::new(gate.clone()), config.mail_quotas);
    admittance.restore(stored.seen, stored.unread);
    let mailing = Mailing::new(Arc::clone(&store), admittance.clone());
    let settings = DirectConfig::new(vec![gate.own]);
    let at = Arc::clone(clock);
    let (direct, inbox) = Direct::start_with_mail(transport, settings, at, mailing.clone())
        .map_err(layer("direct"))?;
    let mailbox = Mailbox::new(Arc::clone(&store), admittance, stored.last);
    let consumers = Consumers::new(mailbox.clone(), stored.consumers, Arc::clone(clock));
    let carrier = Carrier::default();
    let itself = Arc::clone(&carrier.0);
    let (letters, at) = (stored.pending, Arc::clone(clock));
    let outbox = Outbox::start(mailing.clone(), Arc::new(carrier), letters, at);
    let (recorder, recording) = Recorder::start(store, stop.clone());
    let tending = tend(mailing.clone(), config.mail_retention, Arc::clone(clock), stop.clone());
    let tasks = vec![deliver(inbox, mailbox.clone()), recording, tending];
    let mail = Mail { mailing, mailbox, consumers, outbox, recorder };
    Ok(Started { direct, mail, itself, tasks })
}

/// Moves messages from the direct layer's inbox into the mailbox; ends with the direct layer.
fn deliver(mut inbox: Inbox, mailbox: Mailbox) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(message) = inbox.next().await {
            mailbox.push(message);
        }
    })
}

/// Records how far mail was read, and lets go what is not kept, now and then.
fn tend(
    mailing: Mailing,
    retention: Retention,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut recorded = mailing.admittance().seen_through();
        let mut seen = tokio::time::interval(SEEN_INTERVAL);
        let mut prune = tokio::time::interval(PRUNE_INTERVAL);
        loop {
            let change = tokio::select! {
                () = stop.cancelled() => return,
                _ = seen.tick() => {
                    let now = mailing.admittance().seen_through();
                    if std::mem::replace(&mut recorded, now) == now {
                        continue;
                    }
                    MailChange::Seen(now)
                }
                _ = prune.tick() => MailChange::Prune { retention, now: clock.wall() },
            };
            if let Err(error) = mailing.store().commit(vec![change]).await {
                tracing::debug!(%error, "mail is not tended");
            }
        }
    })
}
