//! The mail of an agent: what is stored, who may leave some, and the tasks around it.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use x0x_core::Clock;
use x0x_direct::{
    Admittance, Direct, DirectConfig, Inbox, Mailing,
    letters::{LetterStore, MemoryLetterStore},
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

/// How long after mail was read that is recorded: what a crash forgets is offered once more to
/// readers that do not say where they were.
const SEEN_DELAY: Duration = Duration::from_secs(1);
/// How often mail that is not kept any more is let go while some comes or goes.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// When that is done first after the start: what is kept may have been set anew.
const FIRST_PRUNE: Duration = Duration::from_secs(5);
/// The same while nothing does: mail only grows old then.
const IDLE_PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

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
    /// Where sealed letters are kept.
    pub(crate) letters: Arc<dyn LetterStore>,
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
    let mut quotas = config.mail_quotas.within(&config.mail_retention);
    let (store, sealed): (Arc<dyn MailStore>, Arc<dyn LetterStore>) = match store {
        Some(store) => (Arc::new(store.clone()), Arc::new(store.clone())),
        None => {
            quotas = quotas.within(&MemoryMailStore::RETENTION);
            let mail = Arc::new(MemoryMailStore::default());
            (Arc::clone(&mail) as _, Arc::new(MemoryLetterStore::new(mail)))
        }
    };
    let stored = store.load().await.map_err(layer("direct"))?;
    let admittance = Admittance::new(Arc::new(gate.clone()), quotas);
    admittance.restore(stored.seen, stored.unread);
    let mailing = Mailing::new(Arc::clone(&store), admittance.clone());
    let settings = DirectConfig::new(vec![gate.own]);
    let at = Arc::clone(clock);
    let (direct, inbox) = Direct::start_with_mail(transport, settings, at, mailing.clone())
        .map_err(layer("direct"))?;
    let stirred = Arc::<Notify>::default();
    let mailbox = Mailbox::new(Arc::clone(&store), admittance, stored.last, Arc::clone(&stirred));
    let consumers =
        Consumers::new(mailbox.clone(), stored.consumers, stored.floor, Arc::clone(clock));
    let carrier = Carrier::default();
    let itself = Arc::clone(&carrier.0);
    let (letters, at) = (stored.pending, Arc::clone(clock));
    let outbox = Outbox::start(mailing.clone(), Arc::new(carrier), letters, at);
    let (recorder, recording) = Recorder::start(store, Arc::clone(&stirred), stop.clone());
    let tending = tokio::spawn(tend(
        mailing.clone(),
        stirred,
        config.mail_retention,
        Arc::clone(clock),
        stop.clone(),
    ));
    let tasks = vec![deliver(inbox, mailbox.clone()), recording, tending];
    let mail = Mail { mailing, mailbox, consumers, outbox, recorder };
    Ok(Started { direct, mail, letters: sealed, itself, tasks })
}

/// Moves messages from the direct layer's inbox into the mailbox; ends with the direct layer.
fn deliver(mut inbox: Inbox, mailbox: Mailbox) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(message) = inbox.next().await {
            mailbox.push(message);
        }
    })
}

/// Records how far mail was read, and lets go what is not kept, after something came, went or was
/// read. Sleeps while nothing does.
async fn tend(
    mailing: Mailing,
    stirred: Arc<Notify>,
    retention: Retention,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut recorded = mailing.admittance().seen_through();
    let mut pruned = Instant::now();
    let mut prune_at = pruned + FIRST_PRUNE;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = stirred.notified() => {
                prune_at = prune_at.min(pruned + PRUNE_INTERVAL);
                // What happens meanwhile shares the commit.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(SEEN_DELAY) => {}
                }
            }
            () = sleep_until(prune_at) => {}
        }
        let mut changes = Vec::new();
        let seen = mailing.admittance().seen_through();
        if std::mem::replace(&mut recorded, seen) != seen {
            changes.push(MailChange::Seen(seen));
        }
        if Instant::now() >= prune_at {
            changes.push(MailChange::Prune { retention, now: clock.wall() });
            pruned = Instant::now();
            prune_at = pruned + IDLE_PRUNE_INTERVAL;
        }
        if changes.is_empty() {
            continue;
        }
        if let Err(error) = mailing.store().commit(changes).await {
            tracing::debug!(%error, "mail is not tended");
        }
    }
}
