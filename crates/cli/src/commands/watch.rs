//! `x0x watch`: a command for each direct message.
//!
//! A message is claimed, the command runs, and what it did is acknowledged: a message for which the
//! command ended well is never given to it again, also when the daemon or this process is started
//! anew. A command that fails is run again, later each time; after some attempts the message is left
//! behind with a warning, so that it does not keep all others waiting. It stays in the history. A command
//! that cannot be started says nothing of the message: it ends the watch, and the message waits.
//!
//! A claim is short and renewed for as long as its message is worked on, so that after the end of this
//! process, however it came, the next one gets the message soon; and before any that came later.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use x0x_api::Operation;
use x0x_api::event::DirectMessageEvent;
use x0x_api::limits::MAX_INBOX_WAIT;
use x0x_api::types::{
    ClaimRequest, ConsumerRequest, InboxAckRequest, InboxResponse, ReleaseRequest,
};

use super::inbox::trust;
use crate::args::WatchArguments;
use crate::client::{Call, Client};
use crate::error::{Failure, Result};
use crate::escape::escape;

/// How often it is looked whether a command has ended.
const LOOK: Duration = Duration::from_millis(20);
/// The pause after the first failure, of a command or to reach the daemon; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause.
const LAST_PAUSE: Duration = Duration::from_secs(60);
/// How long a claim holds unless it is renewed.
const CLAIM: Duration = Duration::from_secs(30);
/// How often it is.
const RENEW: Duration = Duration::from_secs(8);

/// Watches the inbox. `connect` finds the daemon, which may have another port after a restart.
pub(super) fn run(connect: impl Fn() -> Result<Client>, arguments: WatchArguments) -> Result<()> {
    let client = Arc::new(connect()?);
    let at_work = Arc::new(Mutex::new(None));
    Watch { client, connect, arguments, at_work, owner: owner() }.run()
}

/// Tells the claims of this process from those of another with the same consumer.
fn owner() -> String {
    // The keys of a hasher are random.
    let random = RandomState::new().hash_one(std::process::id());
    format!("watch-{}-{random:016x}", std::process::id())
}

/// The message that the command runs for, and the command.
struct AtWork {
    child: Child,
    client: Arc<Client>,
    release: ReleaseRequest,
}

impl AtWork {
    /// Ends the command, and gives its message back.
    fn give_up(mut self) {
        // It may have ended by itself, and the daemon may be away: then the claim runs out.
        let _ = self.child.kill();
        if let Ok(call) = Call::new(Operation::InboxRelease).body(&self.release) {
            let _ = self.client.call(&call);
        }
    }
}

struct Watch<C> {
    connect: C,
    client: Arc<Client>,
    arguments: WatchArguments,
    at_work: Arc<Mutex<Option<AtWork>>>,
    owner: String,
}

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Failed(String),
}

impl<C: Fn() -> Result<Client>> Watch<C> {
    fn run(mut self) -> Result<()> {
        self.end_with_its_command()?;
        let (consumer, start) = (self.arguments.consumer.clone(), self.arguments.from.clone());
        let body = ConsumerRequest { consumer, start: Some(start) };
        self.persist(&Call::new(Operation::InboxCreateConsumer).body(&body)?)?;
        eprintln!("watching as `{}`; Ctrl-C ends", self.arguments.consumer);
        let mut done = 0;
        while self.arguments.count.is_none_or(|count| done < count) {
            let Some(message) = self.claim()? else { continue };
            self.handle(&message)?;
            done += 1;
        }
        Ok(())
    }

    /// Ctrl-C and SIGTERM end the command that runs, then this process. Its message is given back.
    fn end_with_its_command(&self) -> Result<()> {
        let at_work = Arc::clone(&self.at_work);
        let handler = move || {
            let at_work = at_work.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(at_work) = at_work {
                at_work.give_up();
            }
            std::process::exit(0);
        };
        Ok(ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")?)
    }

    /// The next message, or none for now.
    fn claim(&mut self) -> Result<Option<DirectMessageEvent>> {
        let body = ClaimRequest {
            consumer: Some(self.arguments.consumer.clone()),
            limit: Some(1),
            lease_ms: Some(CLAIM.as_millis() as u64),
            timeout_ms: Some(MAX_INBOX_WAIT.as_millis() as u64),
            in_order: true,
            owner: Some(self.owner.clone()),
            ..ClaimRequest::default()
        };
        let call = Call::new(Operation::InboxClaim).body(&body)?.patient(MAX_INBOX_WAIT);
        let found: InboxResponse = serde_json::from_value(self.persist(&call)?)?;
        if found.missed > 0 {
            eprintln!("warning: {} messages are not kept any more", found.missed);
        }
        Ok(found.messages.into_iter().next())
    }

    /// Makes a call, again for as long as the daemon is away or stopping.
    fn persist(&mut self, call: &Call) -> Result<serde_json::Value> {
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.client.call(call) {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match &failure {
                Failure::Refused { status, .. } if *status < 500 && *status != 429 => {
                    return Err(failure);
                }
                Failure::ClosedPipe | Failure::NoToken(_) => return Err(failure),
                _ => {}
            }
            eprintln!("warning: {}; trying again", escape(&failure.to_string()));
            thread::sleep(pause);
            pause = (pause * 2).min(LAST_PAUSE);
            if let Ok(client) = (self.connect)() {
                self.client = Arc::new(client);
            }
        }
    }

    /// Runs the command for a message until it ends well, or was tried often enough.
    fn handle(&mut self, message: &DirectMessageEvent) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        let attempts = self.arguments.attempts.max(1);
        for attempt in 1..=attempts {
            let outcome = match self.execute(message) {
                Ok(outcome) => outcome,
                Err(failure) => {
                    // What is wrong is not the message: whoever watches next gets it at once. If the daemon is
                    // away, the claim runs out.
                    let _ = self.client.call(&self.release(message)?);
                    return Err(failure);
                }
            };
            let Outcome::Failed(why) = outcome else { return self.acknowledge(message) };
            eprintln!("warning: message {}: {why} (attempt {attempt})", message.number);
            if attempt < attempts {
                if !self.hold(message, pause)? {
                    // Somebody acknowledged it, or gave it back.
                    return Ok(());
                }
                thread::sleep(pause);
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
        eprintln!("warning: message {} is left after {attempts} attempts", message.number);
        self.acknowledge(message)
    }

    /// Holds the claim for so much longer than its usual time. False when it is over.
    fn hold(&mut self, message: &DirectMessageEvent, longer: Duration) -> Result<bool> {
        let call = self.renewal(message, longer)?;
        match self.persist(&call) {
            Ok(_) => Ok(true),
            Err(Failure::Refused { status: 409, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    fn renewal(&self, message: &DirectMessageEvent, longer: Duration) -> Result<Call> {
        let body = ClaimRequest {
            consumer: Some(self.arguments.consumer.clone()),
            lease_ms: Some((CLAIM + longer).as_millis() as u64),
            renew: vec![message.number],
            owner: Some(self.owner.clone()),
            ..ClaimRequest::default()
        };
        Call::new(Operation::InboxClaim).body(&body)
    }

    fn release_of(&self, message: &DirectMessageEvent) -> ReleaseRequest {
        let (consumer, owner) = (Some(self.arguments.consumer.clone()), Some(self.owner.clone()));
        ReleaseRequest { consumer, numbers: vec![message.number], owner }
    }

    fn release(&self, message: &DirectMessageEvent) -> Result<Call> {
        Call::new(Operation::InboxRelease).body(&self.release_of(message))
    }

    fn acknowledge(&mut self, message: &DirectMessageEvent) -> Result<()> {
        let (consumer, owner) = (Some(self.arguments.consumer.clone()), Some(self.owner.clone()));
        let body =
            InboxAckRequest { consumer, numbers: vec![message.number], through: None, owner };
        match self.persist(&Call::new(Operation::InboxAck).body(&body)?) {
            Ok(_) => Ok(()),
            // The claim ran out while this process or the daemon stood still.
            Err(Failure::Refused { status: 409, .. }) => {
                eprintln!("warning: message {} is with another watch by now", message.number);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn execute(&self, message: &DirectMessageEvent) -> Result<Outcome> {
        let spawned = command(&self.arguments.exec, message)?.spawn();
        let mut child = spawned.context("the command cannot be started")?;
        if let Some(mut stdin) = child.stdin.take() {
            let payload = message.payload.0.clone();
            // A command need not read; what it does not read is dropped with the pipe.
            thread::spawn(move || drop(stdin.write_all(&payload)));
        }
        let release = self.release_of(message);
        let at_work = AtWork { child, client: Arc::clone(&self.client), release };
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) = Some(at_work);
        let renewal = self.renewal(message, Duration::ZERO)?;
        let (mut left, mut held) = (Duration::from_secs(self.arguments.lease), RENEW);
        loop {
            let mut running = self.at_work.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(AtWork { child, .. }) = running.as_mut() else {
                return Ok(Outcome::Failed("the command was ended".to_owned()));
            };
            if let Some(status) = child.try_wait().context("cannot wait for the command")? {
                *running = None;
                return Ok(match status.success() {
                    true => Outcome::Done,
                    false => Outcome::Failed(format!("the command failed: {status}")),
                });
            }
            if left.is_zero() {
                // Both fail only when it has just ended.
                let _ = child.kill();
                let _ = child.wait();
                *running = None;
                let after = self.arguments.lease;
                return Ok(Outcome::Failed(format!("the command was ended after {after} s")));
            }
            drop(running);
            thread::sleep(LOOK);
            (left, held) = (left.saturating_sub(LOOK), held.saturating_sub(LOOK));
            if held.is_zero() {
                // A daemon that is away has it done once it is back, or the message is run again.
                let _ = self.client.call(&renewal);
                held = RENEW;
            }
        }
    }
}

/// The command for a message. What others wrote reaches it as data alone.
fn command(exec: &[OsString], message: &DirectMessageEvent) -> Result<Command> {
    let (program, arguments) = exec.split_first().context("a command is needed")?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::piped())
        .env("X0X_FROM", message.sender.to_string())
        .env("X0X_MACHINE", message.machine_id.to_string())
        .env("X0X_TRUST", trust(message.trust_level))
        .env("X0X_VERIFIED", message.verified.to_string())
        .env("X0X_ID", &message.request_id)
        .env("X0X_NUMBER", message.number.to_string())
        .env("X0X_REPLY_TO", message.reply_to.as_deref().unwrap_or_default())
        .env("X0X_RECEIVED_AT", message.received_at.to_string());
    Ok(command)
}
