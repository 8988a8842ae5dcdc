//! Sealed letters over the other layers: who may leave some, and with whom they are left.

use std::{
    fmt,
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use x0x_core::{AgentId, MachineId, PeerAddr, TopicId};
use x0x_direct::{
    MessageId, Standing,
    letters::{
        Letters, LettersParts, LettersStatus, NotLeft, Places, StoredLetters, Trusts, place_rank,
    },
    mail::Letter,
};
use x0x_gossip_membership::{Membership, Peer};
use x0x_identity::Identity;
use x0x_transport::{BoxFuture, Node, ReachClass, Transport};
use x0x_trust::{Action, Level};

use crate::{
    Agent, AgentConfig, StartError, agent::Inner, builder::layer, mail, presence::Below,
    trust::Gate,
};

/// Machines that suit a mailbox best and are met for it.
const MAX_PLACES: usize = 6;
/// Contacts that are met for the same: they may hold letters, too.
const MAX_CONTACTS: usize = 16;
/// Sessions below which machines that may hold letters are looked for: as many as a letter has copies.
const ENOUGH: usize = 3;
/// How long that may take.
const SEARCH_TIME: Duration = Duration::from_secs(5);
/// How long all of that may take.
const MEETING_TIME: Duration = Duration::from_secs(20);

impl Trusts for Gate {
    fn standing(&self, agent: &AgentId, machine: Option<&MachineId>) -> Standing {
        if *agent == self.own {
            Standing::Contact
        } else if !self.allows(agent, machine, Action::DirectReceive) {
            Standing::Unwanted
        } else if self.trust.level(agent) == Level::Unknown {
            Standing::Stranger
        } else {
            Standing::Contact
        }
    }
}

/// Meets machines of the overlay, and contacts.
struct Meeting {
    membership: Membership,
    node: Arc<Node>,
    itself: Arc<OnceLock<Weak<Inner>>>,
}

impl fmt::Debug for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meeting")
    }
}

impl Places for Meeting {
    fn meet(&self, places: [u8; 32]) -> BoxFuture<'static, ()> {
        let (membership, node) = (self.membership.clone(), Arc::clone(&self.node));
        let agent = self.itself.get().and_then(Weak::upgrade).map(|inner| Agent { inner });
        Box::pin(async move {
            let meeting = async {
                meet_best(&membership, &node, &places).await;
                let Some(agent) = agent else { return };
                agent.meet_contacts().await;
                if node.sessions().len() < ENOUGH {
                    // Nobody is filed there: on the way to it those are met that keep things for others.
                    let nowhere = TopicId::new(places);
                    let _ = agent.inner.finding.subscribers(nowhere, SEARCH_TIME).await;
                }
            };
            // Whoever does not answer in time is no place for letters.
            let _ = tokio::time::timeout(MEETING_TIME, meeting).await;
        })
    }
}

async fn meet_best(membership: &Membership, node: &Node, places: &[u8; 32]) {
    let local = node.local_id();
    let known = membership.known().await.unwrap_or_default();
    let reached = known.iter().filter(|peer| peer.hint().reach != ReachClass::RelayOnly);
    let known = reached.map(Peer::to_addr).filter_map(|addr| Some((addr.id?, Some(addr))));
    let met = node.sessions().into_iter().map(|session| (session.peer, None));
    let all: std::collections::BTreeMap<MachineId, Option<PeerAddr>> = known.chain(met).collect();
    let mut ranked: Vec<_> = all
        .into_iter()
        .filter(|(machine, _)| *machine != local)
        .map(|(machine, addr)| (place_rank(places, &machine), machine, addr))
        .collect();
    ranked.sort_unstable_by_key(|(rank, ..)| std::cmp::Reverse(*rank));
    for (_, machine, addr) in ranked.into_iter().take(MAX_PLACES) {
        if let Some(addr) = addr
            && node.session(machine).is_none()
            && let Err(error) = node.connect(addr).await
        {
            tracing::debug!(machine = %machine.short(), %error, "a place for letters is not there");
        }
    }
}

impl Agent {
    async fn meet_contacts(&self) {
        let contacts = self.trust().contacts().into_iter();
        let known = contacts.filter(|contact| contact.trust_level >= Level::Known);
        for contact in known.take(MAX_CONTACTS) {
            if contact.agent_id != self.agent_id() {
                // One that is not there is met when it comes.
                let _ = self.connect(contact.agent_id).await;
            }
        }
    }

    /// What becomes of sealed letters: those kept for others, those of this agent that others keep, and
    /// those for it.
    pub async fn letters_status(&self) -> LettersStatus {
        self.inner.letters.status().await
    }

    /// Why a queued message whose recipient is away is not left with others, as far as that is known.
    pub async fn letter_not_left(&self, letter: &Letter) -> Option<NotLeft> {
        self.inner.letters.not_left(letter.to, letter.number).await
    }

    /// How many others keep a sealed copy of a message for its recipient.
    pub async fn letter_holders(&self, id: MessageId) -> usize {
        self.inner.letters.holders(id).await
    }
}

/// Starts letters, with what an earlier run left.
pub(crate) async fn start_letters(
    config: &AgentConfig,
    identity: &Identity,
    started: &mail::Started,
    below: &Below<'_>,
) -> Result<Letters, StartError> {
    let mail::Started { direct, mail, letters: store, itself, .. } = started;
    let stored: StoredLetters = store.load().await.map_err(layer("direct"))?;
    let meeting = Meeting {
        membership: below.membership.clone(),
        node: Arc::clone(below.node),
        itself: Arc::clone(itself),
    };
    let parts = LettersParts {
        key: identity.agent.clone(),
        generation: identity.generation,
        direct: direct.clone(),
        outbox: mail.outbox.clone(),
        mailing: mail.mailing.clone(),
        store: Arc::clone(store),
        stored,
        trusts: Arc::new(below.gate.clone()),
        places: Arc::new(meeting),
        clock: Arc::clone(below.clock),
        config: config.letters.clone(),
    };
    Letters::start(Arc::<Node>::clone(below.node), parts).map_err(layer("direct"))
}
