//! Who this agent is, told to others: cards, links, certificates, revocations; and its keys on their
//! way to another machine.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use x0x_core::{AgentId, PeerAddr, Scope, UserId, WallTime};
use x0x_gossip_pubsub::PublishError;
use x0x_identity::{
    AgentCertificate, AgentKeys, AgentLink, Audience, Card, CardError, ExportError, Identity,
    IdentityStore, ImportError, Link, LinkError, Notice, Replace, Service, SignedBinding,
    SignedCard, SignedCertificate, SignedRevocation, StoreError, TextError,
};
use x0x_rendezvous::usable_addresses;
use x0x_trust::{Action, Change, Level, Policy, TrustError};

use crate::{Agent, certified::Certified, owner, trust::Notices};

/// How long the binding in a notice holds.
const NOTICE_VALIDITY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long a card holds.
const CARD_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// What every agent offers, and the least trust it takes.
const SERVICES: [(&str, &str, Audience); 2] = [
    ("presence", "whether the agent is there", Audience::Unknown),
    (
        "direct-message",
        "private messages, acknowledged by the recipient's inbox",
        Audience::Unknown,
    ),
];

/// What the identity of a running agent is made of.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) identity: Identity,
    pub(crate) store: IdentityStore,
    /// Where its data are; none when they are kept in memory.
    pub(crate) data: Option<PathBuf>,
    pub(crate) notices: Notices,
    pub(crate) certified: Certified,
    /// Loopback addresses are of use to peers: the endpoint is bound to one.
    pub(crate) loopback: bool,
    /// Whether the user is named, in cards and to everybody.
    pub(crate) disclosed: AtomicBool,
}

/// What an imported card or link said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImportedCard {
    /// The agent.
    pub agent: AgentId,
    /// What it calls itself; empty for a short link, which proves no name.
    pub display_name: String,
    /// The user behind it, proven by certificate.
    pub user: Option<UserId>,
    /// The level that the contact has now.
    pub level: Level,
}

/// A card was not imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportCardError {
    /// The text.
    #[error("invalid card: {0}")]
    Link(#[from] LinkError),
    /// The card in it.
    #[error("invalid card: {0}")]
    Card(#[from] CardError),
    /// It is this agent's own.
    #[error("invalid card: it is this agent's own")]
    Own,
    /// The contact could not be kept.
    #[error(transparent)]
    Contact(#[from] TrustError),
}

/// Something about this agent's identity was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// There is no user's key.
    #[error("there is no user key; make one with: x0x user-id create")]
    NoUser,
    /// A path must say where it is without the daemon's working folder.
    #[error("the path must be absolute")]
    RelativePath,
    /// A text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// There is a key already, which is not replaced without being asked for.
    #[error("there is a key at {0} already")]
    Exists(String),
    /// The key files.
    #[error(transparent)]
    Store(StoreError),
    /// The keys are there, and the data are not handed over to them.
    #[error("the keys are imported, but the data are not handed over: {0}")]
    Data(String),
    /// The passphrase.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The file of exported keys.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It is kept here, and nobody could be told.
    #[error("not published: {0}")]
    Publish(#[from] PublishError),
    /// It could not be kept.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The work was cut off.
    #[error("interrupted")]
    Interrupted,
}

impl From<StoreError> for IdentityError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Exists { path } => Self::Exists(path.display().to_string()),
            error => Self::Store(error),
        }
    }
}

/// What [`Agent::revoke`] revokes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RevokeWhat {
    /// This agent's key, by itself.
    Agent,
    /// This agent's key, by its user.
    AgentByUser,
    /// This machine's key.
    Machine,
    /// The user's key.
    User,
}

impl Agent {
    /// The agent's card, signed by it: a name, where it runs, the key for sealed letters, and the user
    /// behind it if they are to be named. Of its addresses those on the internet: whoever gets the card learns nothing
    /// of the networks that the machine is in.
    ///
    /// # Errors
    /// [`TextError`] for a name that nobody would accept.
    pub fn card(&self, display_name: &str) -> Result<SignedCard, TextError> {
        self.signed_card(display_name, false)
    }

    /// The same for those in the machine's own networks: with its addresses there.
    ///
    /// # Errors
    /// [`TextError`] for a name that nobody would accept.
    pub fn lan_card(&self, display_name: &str) -> Result<SignedCard, TextError> {
        self.signed_card(display_name, true)
    }

    fn signed_card(&self, display_name: &str, lan: bool) -> Result<SignedCard, TextError> {
        let standing = &self.inner.standing;
        let certificate = standing.shown_certificate(self.inner.clock.wall());
        let card = Card { certificate, ..self.bare_card(display_name, lan) };
        SignedCard::of_agent(&standing.identity.agent, card)
    }

    /// The machine's introduction of the agent, signed by the machine.
    ///
    /// # Errors
    /// [`TextError`] for a name that nobody would accept.
    pub fn introduction(&self, display_name: &str) -> Result<SignedCard, TextError> {
        let services = SERVICES.iter().map(|(name, description, audience)| Service {
            name: (*name).to_owned(),
            description: (*description).to_owned(),
            audience: *audience,
        });
        let card = Card { services: services.collect(), ..self.bare_card(display_name, false) };
        SignedCard::of_machine(&self.inner.standing.identity.machine, card)
    }

    fn bare_card(&self, display_name: &str, lan: bool) -> Card {
        let now = self.inner.clock.wall();
        Card {
            agent: self.agent_id(),
            machine: self.machine_id(),
            display_name: display_name.to_owned(),
            addresses: self.shareable_addresses(lan),
            kem_key: Some(self.inner.standing.identity.agent_kem.public_key().clone()),
            certificate: None,
            services: Vec::new(),
            issued_at: now,
            expires_at: now + CARD_VALIDITY,
        }
    }

    /// The short link to this agent. Of the machine's addresses it has those on the internet.
    #[must_use]
    pub fn link(&self) -> AgentLink {
        self.link_with(false)
    }

    /// The same for those in the machine's own networks: with its addresses there.
    #[must_use]
    pub fn lan_link(&self) -> AgentLink {
        self.link_with(true)
    }

    fn link_with(&self, lan: bool) -> AgentLink {
        AgentLink {
            agent: self.agent_id(),
            machine: self.machine_id(),
            addresses: self.shareable_addresses(lan),
        }
    }

    /// Where others may reach this machine: its own addresses and those that peers saw. A node that shares its machine
    /// with others (`loopback`) tells all of them.
    fn shareable_addresses(&self, lan: bool) -> Vec<SocketAddr> {
        let loopback = self.inner.standing.loopback;
        let mut addresses = self.observed_addresses();
        addresses.extend(self.local_addresses());
        if !lan && !loopback {
            let global = |at: &SocketAddr| Scope::of(at.ip().to_canonical()) == Some(Scope::Global);
            addresses.retain(global);
        }
        usable_addresses(addresses, loopback)
    }

    /// Makes a contact of whoever a card or a link is about, at this level, and remembers where it may
    /// be reached. A contact that is there keeps its machines and, for a short link, its label; without a
    /// level a new one is known, and one that is there keeps its own. One that is blocked is refused then.
    ///
    /// # Errors
    /// [`ImportCardError`]; nothing is changed then.
    pub async fn import_card(
        &self,
        text: &str,
        level: Option<Level>,
    ) -> Result<ImportedCard, ImportCardError> {
        let (agent, place, display_name, certificate) = match Link::parse(text)? {
            Link::Short(link) => {
                let place = PeerAddr::known(link.machine, link.addresses);
                (link.agent, place, String::new(), None)
            }
            Link::Card(card) => {
                let card = card.verify(self.inner.clock.wall())?.card;
                let user = card.certificate.as_ref().map(|signed| *signed.certificate());
                let place = PeerAddr::known(card.machine, card.addresses);
                (card.agent, place, card.display_name, user)
            }
            _ => return Err(LinkError::Text.into()),
        };
        if agent == self.agent_id() {
            return Err(ImportCardError::Own);
        }
        let trust = self.trust();
        let label = Some(display_name.clone()).filter(|name| !name.is_empty());
        trust.change(Change::Add { agent, level, label }).await?;
        if let Some(machine) = place.id {
            trust.change(Change::PutPlace { agent, machine, addresses: place.addresses }).await?;
        }
        if let Some(AgentCertificate { user, not_after, .. }) = certificate {
            trust.observe_user(agent, user, not_after);
        }
        let user = certificate.map(|certificate| certificate.user);
        if self.neighbors().is_empty() {
            // Alone: whoever the card is about is the way into the network.
            let this = self.clone();
            tokio::spawn(async move { this.connect(agent).await });
        }
        Ok(ImportedCard { agent, display_name, user, level: trust.level(&agent) })
    }

    /// Where a contact may be, by the last card that was imported about it.
    pub(crate) fn hint(&self, agent: &AgentId) -> Option<PeerAddr> {
        let place = self.trust().contact(agent)?.place()?;
        let allowed = self.trust().decide(agent, place.id.as_ref(), Action::DirectSend).allowed();
        allowed.then_some(place)
    }

    /// Whether the user behind the agent is named to others.
    #[must_use]
    pub fn user_disclosed(&self) -> bool {
        self.inner.standing.disclosed()
    }

    /// Names the user behind the agent to everybody, from now on until the agent stops.
    ///
    /// # Errors
    /// [`IdentityError::NoUser`], or it could not be published now; it is with the next notice then.
    pub async fn disclose_user(&self) -> Result<(), IdentityError> {
        let standing = &self.inner.standing;
        let now = self.inner.clock.wall();
        standing.renew(now).await;
        if standing.certified.shown(now).is_none() {
            return Err(IdentityError::NoUser);
        }
        standing.disclosed.store(true, Ordering::Relaxed);
        if let Some(notice) = standing.notice(now) {
            standing.notices.publish(&notice).await?;
        }
        Ok(())
    }

    /// Makes a user's key where there is none: at `path`, or beside the agent's key. It is used from
    /// the next start on; at `path`, if the configuration names it.
    ///
    /// # Errors
    /// [`IdentityError`]; a key that is there is never replaced.
    pub async fn create_user(
        &self,
        path: Option<PathBuf>,
    ) -> Result<(UserId, PathBuf), IdentityError> {
        let mut store = self.inner.standing.store.clone();
        if let Some(path) = path {
            if !path.is_absolute() {
                return Err(IdentityError::RelativePath);
            }
            store = store.with_user_key(path);
        }
        blocking(move || {
            let key = store.create_user()?;
            Ok((key.public_key().user_id(), store.user_key_path()))
        })
        .await
    }

    /// The agent's keys, in a file that only the passphrase opens.
    ///
    /// # Errors
    /// [`IdentityError::Export`].
    pub async fn export_keys(&self, passphrase: String) -> Result<Vec<u8>, IdentityError> {
        let Identity { agent, agent_kem, generation, .. } = &self.inner.standing.identity;
        let keys = AgentKeys {
            agent: agent.clone(),
            kem: agent_kem.clone(),
            generation: *generation,
            certificate: self.inner.standing.certified.kept(),
        };
        let passphrase = zeroize::Zeroizing::new(passphrase);
        blocking(move || Ok(keys.export(&passphrase)?)).await
    }

    /// Makes the agent of an export the agent of this installation, from the next start on.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing is changed then.
    pub async fn import_keys(
        &self,
        file: Vec<u8>,
        passphrase: String,
        replace: Replace,
    ) -> Result<AgentId, IdentityError> {
        let (store, data) = (self.inner.standing.store.clone(), self.inner.standing.data.clone());
        let now = self.inner.clock.wall();
        let passphrase = zeroize::Zeroizing::new(passphrase);
        blocking(move || {
            let keys = AgentKeys::import(&file, &passphrase)?;
            store.import_agent(&keys, now, replace)?;
            let agent = keys.agent.public_key().agent_id();
            if let Some(data) = data {
                owner::hand_over(&data, agent)
                    .map_err(|error| IdentityError::Data(error.to_string()))?;
            }
            Ok(agent)
        })
        .await
    }

    /// Revokes a key of this installation for ever, here and for everybody who hears of it.
    ///
    /// # Errors
    /// [`IdentityError`]. When it could not be published it is kept all the same; revoke again to
    /// publish.
    pub async fn revoke(
        &self,
        what: RevokeWhat,
        reason: &str,
    ) -> Result<SignedRevocation, IdentityError> {
        let standing = &self.inner.standing;
        let (keys, now) = (&standing.identity, self.inner.clock.wall());
        let user = || keys.user.as_ref().ok_or(IdentityError::NoUser);
        let signed = match what {
            RevokeWhat::Agent => SignedRevocation::of_agent(&keys.agent, now, reason)?,
            RevokeWhat::Machine => SignedRevocation::of_machine(&keys.machine, now, reason)?,
            RevokeWhat::User => SignedRevocation::of_user(user()?, now, reason)?,
            RevokeWhat::AgentByUser => {
                let certificate = standing.certified.kept().ok_or(IdentityError::NoUser)?;
                SignedRevocation::of_certified(user()?, &certificate, now, reason)?
            }
        };
        standing.notices.keep(&signed).await?;
        standing.notices.publish(&Notice::Revocation(signed.clone())).await?;
        Ok(signed)
    }
}

impl Standing {
    fn disclosed(&self) -> bool {
        self.disclosed.load(Ordering::Relaxed)
    }

    /// The certificate, if the user is to be named and it holds: an expired one would spoil what it is in.
    fn shown_certificate(&self, now: WallTime) -> Option<SignedCertificate> {
        self.disclosed().then(|| self.certified.shown(now)).flatten()
    }

    /// Has the user certify the agent again when it is time.
    pub(crate) async fn renew(&self, now: WallTime) {
        self.certified.renew(&self.store, &self.identity, now).await;
    }

    /// What the agent tells everybody about itself. Most have nothing to tell: they never moved, and
    /// name nobody.
    pub(crate) fn notice(&self, now: WallTime) -> Option<Notice> {
        let certificate = self.shown_certificate(now);
        let Identity { agent, machine, generation, .. } = &self.identity;
        if *generation == 0 && certificate.is_none() {
            return None;
        }
        let machine = machine.public_key().machine_id();
        let binding = SignedBinding::issue_moved(agent, machine, *generation, now, NOTICE_VALIDITY);
        Some(Notice::Agent { binding, certificate })
    }
}

/// Runs what waits for the disk or for a key derivation.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, IdentityError> + Send + 'static,
) -> Result<T, IdentityError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(IdentityError::Interrupted),
    }
}

#[cfg(test)]
mod tests;
