//! The packets: questions for the service, and announcements of one machine's.
//!
//! Decoding takes two steps: [`PacketIn::decode`] checks sizes and shapes, [`ServiceIn::verify`] what is
//! announced against this machine's links.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use bytes::Bytes;
use data_encoding::{BASE32_NOPAD_NOCASE, HEXLOWER_PERMISSIVE};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE,
    rdata::{A, AAAA, PTR, RData, SRV, TXT},
};
use x0x_core::{DecodeError, MAX_ADDRESSES, MachineId, Scope, dialable};

use crate::interfaces::Network;

/// The service that is announced and asked for.
pub const SERVICE: &str = "_x0x._udp.local";
/// Largest packet that is read: the payload of an Ethernet frame. Those of this service take less than 600
/// bytes.
pub const MAX_PACKET: usize = 1472;
/// Most machines of one packet that are looked at, and most that a question says are known.
pub const MAX_SERVICES: usize = 16;
/// How long an announcement lasts, unless it is made again.
pub const LIFETIME: Duration = Duration::from_secs(120);
/// The longest that one of another implementation does.
pub const MAX_LIFETIME: Duration = Duration::from_secs(75 * 60);

/// Ports below belong to services that no peer is.
const FIRST_PORT: u16 = 1024;
/// BLAKE3 context under which a network's name becomes its tag.
const TAG_CONTEXT: &str = "x0x lan network tag 1";
/// The least that a question and a record take.
const MIN_QUESTION: usize = 5;
const MIN_RECORD: usize = 11;
const HEADER: usize = 12;

/// A machine's name on its links: random, and a new one every day and at each start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance(pub [u8; 10]);

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_NOPAD_NOCASE.encode(&self.0).to_ascii_lowercase())
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Instance {
    fn from_label(label: &[u8]) -> Option<Self> {
        let bytes = BASE32_NOPAD_NOCASE.decode(label).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// That of a name below the service.
    fn of(name: &Name<'_>) -> Option<Self> {
        let service = Name::new_unchecked(SERVICE);
        let (label, parent) = name.get_labels().split_first()?;
        let below = Name::new_with_labels(parent) == service;
        below.then(|| Self::from_label(label.as_ref())).flatten()
    }

    fn service_name(&self) -> Name<'static> {
        Name::new_unchecked(&format!("{self}.{SERVICE}")).into_owned()
    }

    fn host_name(&self) -> Name<'static> {
        Name::new_unchecked(&format!("{self}.local")).into_owned()
    }
}

/// Tells networks apart, without their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tag(pub [u8; 8]);

impl Tag {
    /// The tag of a network's name.
    #[must_use]
    pub fn of(network: &str) -> Self {
        let hash = blake3::derive_key(TAG_CONTEXT, network.as_bytes());
        let mut tag = [0; 8];
        tag.copy_from_slice(&hash[..8]);
        Self(tag)
    }
}

/// What a machine says of itself on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announcement {
    /// Its name there.
    pub instance: Instance,
    /// Its network.
    pub tag: Tag,
    /// Who it is, if it says so.
    pub machine: Option<MachineId>,
    /// Its addresses on the link; at most [`MAX_ADDRESSES`] are sent.
    pub ips: Vec<IpAddr>,
    /// Its port.
    pub port: u16,
}

impl Announcement {
    /// An announcement that does not say who it is.
    #[must_use]
    pub const fn new(instance: Instance, tag: Tag, ips: Vec<IpAddr>, port: u16) -> Self {
        Self { instance, tag, machine: None, ips, port }
    }

    /// The packet: of one that lasts, or that takes its name back. `None` if it cannot be written.
    #[must_use]
    pub fn encode(&self, lasts: bool) -> Option<Bytes> {
        let ttl = if lasts { seconds(LIFETIME) } else { 0 };
        let (name, host) = (self.instance.service_name(), self.instance.host_name());
        let mut packet = Packet::new_reply(0);
        packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        packet.answers.push(pointer(&name, ttl));
        let own = |name: &Name<'static>, data: RData<'static>| {
            ResourceRecord::new(name.clone(), CLASS::IN, ttl, data).with_cache_flush(true)
        };
        let records = &mut packet.additional_records;
        let srv = SRV { priority: 0, weight: 0, port: self.port, target: host.clone() };
        records.push(own(&name, RData::SRV(srv)));
        records.push(own(&name, RData::TXT(self.text()?)));
        for ip in self.ips.iter().take(MAX_ADDRESSES) {
            let data = match ip {
                IpAddr::V4(ip) => RData::A(A { address: (*ip).into() }),
                IpAddr::V6(ip) => RData::AAAA(AAAA { address: (*ip).into() }),
            };
            records.push(own(&host, data));
        }
        packet.build_bytes_vec_compressed().ok().map(Bytes::from)
    }

    fn text(&self) -> Option<TXT<'static>> {
        let mut text = TXT::new();
        let tag = HEXLOWER_PERMISSIVE.encode(&self.tag.0);
        text.add_attribute("v", Some(b"1")).ok()?;
        text.add_attribute("n", Some(tag.as_bytes())).ok()?;
        if let Some(machine) = self.machine {
            let machine = HEXLOWER_PERMISSIVE.encode(machine.as_bytes());
            text.add_attribute("m", Some(machine.as_bytes())).ok()?;
        }
        Some(text)
    }
}

fn pointer(to: &Name<'static>, ttl: u32) -> ResourceRecord<'static> {
    let service = Name::new_unchecked(SERVICE);
    ResourceRecord::new(service, CLASS::IN, ttl, RData::PTR(PTR(to.clone())))
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

/// A question for machines of the service beside those that are known. `None` if it cannot be written.
#[must_use]
pub fn question(known: impl IntoIterator<Item = Instance>) -> Option<Bytes> {
    let mut packet = Packet::new_query(0);
    let service = Name::new_unchecked(SERVICE);
    let ask = Question::new(service, QTYPE::TYPE(TYPE::PTR), QCLASS::CLASS(CLASS::IN), false);
    packet.questions.push(ask);
    for instance in known.into_iter().take(MAX_SERVICES) {
        packet.answers.push(pointer(&instance.service_name(), seconds(LIFETIME)));
    }
    packet.build_bytes_vec_compressed().ok().map(Bytes::from)
}

/// A received packet, as far as it is of this service: well-formed, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PacketIn {
    /// Somebody looks for machines other than these.
    Question(Vec<Instance>),
    /// Machines announce themselves.
    Services(Vec<ServiceIn>),
    /// Of other services.
    Other,
}

impl PacketIn {
    /// Reads a packet.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too large or no packet of DNS.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MAX_PACKET {
            return Err(DecodeError::TooLarge { len: bytes.len(), max: MAX_PACKET });
        }
        let counts = bytes.get(4..HEADER).ok_or(DecodeError::Field("header"))?;
        let count = |n: usize| usize::from(u16::from_be_bytes([counts[n], counts[n + 1]]));
        // The reader makes room for as many as are announced.
        let least = count(0) * MIN_QUESTION + (count(2) + count(4) + count(6)) * MIN_RECORD;
        if HEADER + least > bytes.len() {
            return Err(DecodeError::Field("counts"));
        }
        let packet = Packet::parse(bytes).map_err(|_| DecodeError::Field("packet"))?;
        Ok(if packet.has_flags(PacketFlag::RESPONSE) { services(&packet) } else { asked(&packet) })
    }
}

fn asked(packet: &Packet<'_>) -> PacketIn {
    let service = Name::new_unchecked(SERVICE);
    let asks = |question: &Question<'_>| {
        let kind = [QTYPE::TYPE(TYPE::PTR), QTYPE::ANY].contains(&question.qtype);
        kind && question.qname == service
    };
    if !packet.questions.iter().any(asks) {
        return PacketIn::Other;
    }
    // What is about to expire at the asker is not known to it.
    let fresh = packet.answers.iter().filter(|record| record.ttl >= seconds(LIFETIME) / 2);
    let known = fresh.filter_map(|record| match &record.rdata {
        RData::PTR(PTR(to)) => Instance::of(to),
        _ => None,
    });
    PacketIn::Question(known.take(MAX_SERVICES).collect())
}

fn services(packet: &Packet<'_>) -> PacketIn {
    let records = || packet.answers.iter().chain(&packet.additional_records);
    let mut found: Vec<ServiceIn> = Vec::new();
    for record in records() {
        let RData::SRV(srv) = &record.rdata else { continue };
        let Some(instance) = Instance::of(&record.name) else { continue };
        if found.len() >= MAX_SERVICES || found.iter().any(|known| known.instance == instance) {
            continue;
        }
        let mut service = ServiceIn {
            instance,
            port: srv.port,
            lifetime: Duration::from_secs(record.ttl.into()).min(MAX_LIFETIME),
            ips: Vec::new(),
            tag: None,
            machine: None,
        };
        for of in records() {
            match &of.rdata {
                RData::A(a) if of.name == srv.target => {
                    service.add(Ipv4Addr::from(a.address).into());
                }
                RData::AAAA(aaaa) if of.name == srv.target => {
                    service.add(Ipv6Addr::from(aaaa.address).into());
                }
                RData::TXT(text) if of.name == record.name => service.read(text),
                _ => {}
            }
        }
        found.push(service);
    }
    if found.is_empty() { PacketIn::Other } else { PacketIn::Services(found) }
}

/// A machine as a packet announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceIn {
    instance: Instance,
    port: u16,
    lifetime: Duration,
    ips: Vec<IpAddr>,
    tag: Option<Tag>,
    machine: Option<MachineId>,
}

/// Why an announcement does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ServiceError {
    /// It is of a machine of another network, or does not say.
    #[error("another network")]
    Network,
    /// It names no address on a link of this machine.
    #[error("no address on the link")]
    Addresses,
}

impl ServiceIn {
    fn add(&mut self, ip: IpAddr) {
        if self.ips.len() < MAX_ADDRESSES {
            self.ips.push(ip);
        }
    }

    fn read(&mut self, text: &TXT<'_>) {
        for (key, value) in text.iter_raw() {
            let value = HEXLOWER_PERMISSIVE.decode(value.unwrap_or_default()).unwrap_or_default();
            match key {
                b"n" => self.tag = value.try_into().ok().map(Tag),
                b"m" => self.machine = value.try_into().ok().map(MachineId::new),
                _ => {}
            }
        }
    }

    /// Its name.
    #[must_use]
    pub const fn instance(&self) -> Instance {
        self.instance
    }

    /// Whether it takes its name back.
    #[must_use]
    pub const fn leaves(&self) -> bool {
        self.lifetime.is_zero()
    }

    /// Checks that it is of this network, and keeps of its addresses those on this machine's links: whoever
    /// is on a link may name others on it, and nobody else.
    ///
    /// # Errors
    /// [`ServiceError`].
    pub fn verify(self, tag: Tag, network: &Network) -> Result<Find, ServiceError> {
        if self.tag != Some(tag) {
            return Err(ServiceError::Network);
        }
        let at = self.ips.iter().filter_map(|ip| dialable(SocketAddr::new(*ip, self.port)));
        let near = at.filter(|address| {
            let ip = address.ip();
            Scope::of(ip) >= Some(Scope::Site) && network.is_on_link(ip)
        });
        let mut addresses: Vec<SocketAddr> = near.collect();
        addresses.sort_unstable();
        addresses.dedup();
        if addresses.is_empty() || self.port < FIRST_PORT {
            return Err(ServiceError::Addresses);
        }
        let Self { instance, machine, lifetime, .. } = self;
        Ok(Find { instance, addresses, machine, lifetime })
    }
}

/// A machine of this network on one of this machine's links. That it is there is hearsay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Find {
    /// Its name there.
    pub instance: Instance,
    /// Where it may be dialled, at most [`MAX_ADDRESSES`], all on this machine's links.
    pub addresses: Vec<SocketAddr>,
    /// Who it says it is, if it does.
    pub machine: Option<MachineId>,
    /// How long that holds.
    pub lifetime: Duration,
}

impl Find {
    /// A machine at these addresses.
    #[must_use]
    pub const fn new(instance: Instance, addresses: Vec<SocketAddr>) -> Self {
        Self { instance, addresses, machine: None, lifetime: LIFETIME }
    }
}

#[cfg(test)]
mod tests;
