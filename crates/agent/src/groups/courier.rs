//! Questions and answers about groups in sessions with other machines.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};
use x0x_core::{AgentId, Clock, MachineId, Protocol, TokenBucket};
use x0x_groups::{Answer, Courier, CourierError, CourierFrame, GroupsHandle, Question};
use x0x_transport::{BoxFuture, Inbound, InboundEvent, Transport, error::InboundTaken};
use x0x_trust::Action;

use crate::{Agent, agent::Inner, trust::Gate};

/// How long an answer may take: who is asked may have to make a commit for hundreds of members.
const PATIENCE: Duration = Duration::from_secs(15);
/// Questions that wait for answers.
const MAX_ASKED: usize = 256;
/// Questions of others that are answered at once; more are refused.
const MAX_ANSWERING: usize = 32;
/// Questions that a machine may ask at once, and the time for another one.
const BURST: u32 = 32;
const REFILL: Duration = Duration::from_millis(500);

/// A question that waits for its answer.
struct Asked {
    machine: MachineId,
    agent: AgentId,
    reply: oneshot::Sender<Answer>,
}

/// Asks and answers in sessions.
pub(crate) struct Sessions {
    transport: Arc<dyn Transport>,
    gate: Gate,
    me: AgentId,
    clock: Arc<dyn Clock>,
    agent: OnceLock<Weak<Inner>>,
    inbound: Mutex<Option<Inbound>>,
    asked: Mutex<BTreeMap<u64, Asked>>,
    next: AtomicU64,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

/// Takes the question back when nobody waits for the answer any more.
struct Waiting<'a> {
    sessions: &'a Sessions,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.sessions.asked().remove(&self.number);
    }
}

impl Sessions {
    pub(super) fn new(
        transport: Arc<dyn Transport>,
        gate: Gate,
        me: AgentId,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, InboundTaken> {
        let inbound = transport.inbound(Protocol::Groups)?;
        Ok(Arc::new(Self {
            transport,
            gate,
            me,
            clock,
            agent: OnceLock::new(),
            inbound: Mutex::new(Some(inbound)),
            asked: Mutex::default(),
            next: AtomicU64::new(1),
        }))
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers other agents, and takes their answers, until the transport ends.
    pub(super) async fn serve(self: Arc<Self>, agent: Agent, groups: GroupsHandle) {
        // Nobody else sets it.
        let _ = self.agent.set(Arc::downgrade(&agent.inner));
        drop(agent);
        let taken = self.inbound.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut inbound) = taken else { return };
        let answering = Arc::new(Semaphore::new(MAX_ANSWERING));
        // As many as there are sessions.
        let mut rates: BTreeMap<MachineId, TokenBucket> = BTreeMap::new();
        while let Some(event) = inbound.recv().await {
            match event {
                InboundEvent::Up(session) => {
                    let bucket = TokenBucket::new(BURST, REFILL, self.clock.now());
                    rates.entry(session.peer).or_insert(bucket);
                }
                InboundEvent::Down(peer) => {
                    rates.remove(&peer);
                    // Nobody answers them any more.
                    self.asked().retain(|_, asked| asked.machine != peer);
                }
                InboundEvent::Message { peer, message } => {
                    let now = self.clock.now();
                    let may = rates.get_mut(&peer).is_some_and(|rate| rate.take(now));
                    self.take(peer, message, may, &groups, &answering);
                }
                _ => {}
            }
        }
    }

    fn take(
        self: &Arc<Self>,
        peer: MachineId,
        message: Bytes,
        may_ask: bool,
        groups: &GroupsHandle,
        answering: &Arc<Semaphore>,
    ) {
        let Ok(CourierFrame { number, from, to, body }) = CourierFrame::decode(message) else {
            tracing::debug!(machine = %peer.short(), "a malformed message about groups");
            return;
        };
        let question = match body {
            Ok(question) => question,
            Err(answer) => return self.answered(peer, number, from, answer),
        };
        let proven =
            || self.transport.session(peer).is_some_and(|session| session.agents.contains(&from));
        // An agent that is pinned to another machine is nobody's here.
        let trusted = self.gate.allows(&from, Some(&peer), Action::GroupInvite);
        if !may_ask || to != self.me || !trusted || !proven() {
            return self.reply(peer, number, from, Answer::Refused("refused".to_owned()));
        }
        let Ok(permit) = Arc::clone(answering).try_acquire_owned() else {
            return self.reply(peer, number, from, Answer::Refused("busy".to_owned()));
        };
        let (sessions, groups) = (Arc::clone(self), groups.clone());
        tokio::spawn(async move {
            let answer = groups.answer(from, question).await;
            sessions.reply(peer, number, from, answer);
            drop(permit);
        });
    }

    fn answered(&self, peer: MachineId, number: u64, from: AgentId, answer: Answer) {
        let mut asked = self.asked();
        // Nobody answers for another.
        let own =
            asked.get(&number).is_some_and(|asked| (asked.machine, asked.agent) == (peer, from));
        if own && let Some(asked) = asked.remove(&number) {
            // It may not wait any more.
            let _ = asked.reply.send(answer);
        }
    }

    fn reply(&self, peer: MachineId, number: u64, to: AgentId, answer: Answer) {
        let frame = |answer| CourierFrame { number, from: self.me, to, body: Err(answer) };
        let large = || frame(Answer::Refused("too large for a message".to_owned())).encode();
        if let Some(bytes) = frame(answer).encode().or_else(large)
            && let Err(error) = self.transport.try_send(peer, Protocol::Groups, bytes)
        {
            // Who asked asks again.
            tracing::debug!(machine = %peer.short(), %error, "an answer about groups is not sent");
        }
    }

    async fn ask(&self, agent: AgentId, question: Question) -> Result<Answer, CourierError> {
        let unreachable = |reason: &dyn fmt::Display| CourierError::Unreachable(reason.to_string());
        let inner = self.agent.get().and_then(Weak::upgrade).ok_or(CourierError::Busy)?;
        let machine = Agent { inner }.machine_for(agent).await.map_err(|e| unreachable(&e))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = CourierFrame { number, from: self.me, to: agent, body: Ok(question) };
        let bytes = frame.encode().ok_or(CourierError::TooLarge)?;
        let (reply, answer) = oneshot::channel();
        {
            let mut asked = self.asked();
            if asked.len() >= MAX_ASKED {
                return Err(CourierError::Busy);
            }
            asked.insert(number, Asked { machine, agent, reply });
        }
        let _waiting = Waiting { sessions: self, number };
        let asked = async {
            let sent = self.transport.send(machine, Protocol::Groups, bytes).await;
            sent.map_err(|error| unreachable(&error))?;
            answer.await.map_err(|_| unreachable(&"the session ended"))
        };
        timeout(PATIENCE, asked).await.unwrap_or(Err(CourierError::Silent))
    }
}

impl Courier for Sessions {
    fn ask(
        &self,
        agent: AgentId,
        question: Question,
    ) -> BoxFuture<'_, Result<Answer, CourierError>> {
        Box::pin(self.ask(agent, question))
    }

    fn near(&self) -> Vec<AgentId> {
        self.transport.sessions().into_iter().flat_map(|session| session.agents).collect()
    }
}
