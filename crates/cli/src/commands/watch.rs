//! `x0x watch`: a command for each direct message.
//!
//! A message is claimed, the command runs, and what it did is acknowledged: a message for which the
//! command ended well is never given to it again, also when the daemon or this process is started
//! anew. A command that fails is run again, later each time; after some attempts the message is left
//! behind with a warning, so that it does not keep all others waiting. It stays in the history.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use x0x_api::Operation;
use x0x_api::event::DirectMessageEvent;
use x0x_api::limits::MAX_INBOX_WAIT;
use x0x_api::types::{ClaimRequest, InboxAckRequest, InboxResponse, ReleaseRequest};

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
/// How much longer a claim holds than its command may run.
const SPARE: Duration = Duration::from_secs(30);

/// Watches the inbox. `connect` finds the daemon, which may have another port after a restart.
pub(super) fn run(connect: impl Fn() -> Result<Client>, arguments: WatchArguments) -> Result<()> {
    let client = Arc::new(connect()?);
    let at_work = Arc::new(Mutex::new(None));
    Watch { client, connect, arguments, at_work }.run()
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

    fn lease(&self) -> Duration {
        Duration::from_secs(self.arguments.lease)
    }

    /// The next message, or none for now.
    fn claim(&mut self) -> Result<Option<DirectMessageEvent>> {
        let lease = self.lease() + SPARE;
        let body = ClaimRequest {
            consumer: Some(self.arguments.consumer.clone()),
            limit: Some(1),
            lease_ms: Some(u64::try_from(lease.as_millis()).unwrap_or(u64::MAX)),
            timeout_ms: Some(MAX_INBOX_WAIT.as_millis() as u64),
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
            let outcome = self.execute(message)?;
            let Outcome::Failed(why) = outcome else { return self.acknowledge(message) };
            eprintln!("warning: message {}: {why} (attempt {attempt})", message.number);
            if attempt < attempts {
                thread::sleep(pause);
                pause = (pause * 2).min(LAST_PAUSE);
                if !self.claim_again(message)? {
                    // Somebody else has it now.
                    return Ok(());
                }
            }
        }
        eprintln!("warning: message {} is left after {attempts} attempts", message.number);
        self.acknowledge(message)
    }

    /// Gives the message back and claims it anew, so that the claim holds for the next attempt.
    fn claim_again(&mut self, message: &DirectMessageEvent) -> Result<bool> {
        let consumer = Some(self.arguments.consumer.clone());
        let body = ReleaseRequest { consumer, numbers: vec![message.number] };
        self.persist(&Call::new(Operation::InboxRelease).body(&body)?)?;
        let claimed = self.claim()?;
        match claimed {
            Some(other) if other.number == message.number => Ok(true),
            Some(other) => {
                let consumer = Some(self.arguments.consumer.clone());
                let body = ReleaseRequest { consumer, numbers: vec![other.number] };
                self.persist(&Call::new(Operation::InboxRelease).body(&body)?)?;
                Ok(false)
            }
            None => Ok(false),
        }
    }

    fn acknowledge(&mut self, message: &DirectMessageEvent) -> Result<()> {
        let consumer = Some(self.arguments.consumer.clone());
        let numbers = vec![message.number];
        let body = InboxAckRequest { consumer, numbers, through: None };
        self.persist(&Call::new(Operation::InboxAck).body(&body)?).map(|_| ())
    }

    fn execute(&self, message: &DirectMessageEvent) -> Result<Outcome> {
        let mut child = match command(&self.arguments.exec, message)?.spawn() {
            Ok(child) => child,
            Err(error) => return Ok(Outcome::Failed(format!("the command cannot start: {error}"))),
        };
        if let Some(mut stdin) = child.stdin.take() {
            let payload = message.payload.0.clone();
            // A command need not read; what it does not read is dropped with the pipe.
            thread::spawn(move || drop(stdin.write_all(&payload)));
        }
        let consumer = Some(self.arguments.consumer.clone());
        let release = ReleaseRequest { consumer, numbers: vec![message.number] };
        let at_work = AtWork { child, client: Arc::clone(&self.client), release };
        *self.at_work.lock().unwrap_or_else(PoisonError::into_inner) = Some(at_work);
        let mut left = self.lease();
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
            left = left.saturating_sub(LOOK);
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
