//! The port mapping of a router: PCP (RFC 6887) for UDP, as much of it as machines ask for.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};
use x0x_api::{Operation, types::ConnectivityResponse};

use super::world::{HOME, nft};
use crate::{node::Node, place::Place};

/// Where routers are asked.
const PORT: u16 = 5351;
const VERSION: u8 = 2;
const MAP: u8 = 1;
const ANSWER: u8 = 0x80;
const UDP: u8 = 17;
/// Bytes of a question of this kind, and of its answer.
const LEN: usize = 60;
/// How long a daemon may take to get its port.
const LEASE: Duration = Duration::from_secs(15);

/// A question for a port, or for the end of one.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    lifetime: u32,
    nonce: [u8; 12],
    internal: u16,
    suggested: u16,
}

impl Question {
    fn decode(packet: &[u8]) -> Option<Self> {
        let packet: &[u8; LEN] = packet.try_into().ok()?;
        let u16_at = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let is_map = packet[0] == VERSION && packet[1] == MAP && packet[36] == UDP;
        is_map.then(|| Self {
            lifetime: u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]),
            nonce: std::array::from_fn(|at| packet[24 + at]),
            internal: u16_at(40),
            suggested: u16_at(42),
        })
    }

    fn external(&self) -> u16 {
        if self.suggested == 0 { self.internal } else { self.suggested }
    }

    fn answer(&self, epoch: u32, at: Ipv4Addr) -> Vec<u8> {
        let mut packet = vec![VERSION, MAP | ANSWER, 0, 0];
        packet.extend(self.lifetime.to_be_bytes());
        packet.extend(epoch.to_be_bytes());
        packet.extend([0; 12]);
        packet.extend(self.nonce);
        packet.extend([UDP, 0, 0, 0]);
        packet.extend(self.internal.to_be_bytes());
        packet.extend(self.external().to_be_bytes());
        packet.extend(at.to_ipv6_mapped().octets());
        packet
    }
}

/// Has the router of a home give its machine ports of its public address. Dropping what it gives ends it.
pub(super) async fn serve(router: &str, public: Ipv4Addr) -> Result<JoinSet<()>> {
    let place = Place::Namespace { name: router.to_owned(), address: HOME[0].into() };
    let socket = place.udp(SocketAddr::from((HOME[0], PORT))).await?;
    let (router, began) = (router.to_owned(), Instant::now());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut buffer = [0; 1100];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            let Some(question) = Question::decode(&buffer[..len]) else { continue };
            let SocketAddr::V4(inner) = from else { continue };
            let inner = SocketAddrV4::new(*inner.ip(), question.internal);
            if let Err(error) = nft(&router, &rules(&question, inner)) {
                eprintln!("  {error:#}");
                continue;
            }
            let epoch = u32::try_from(began.elapsed().as_secs()).unwrap_or(u32::MAX);
            let _ = socket.send_to(&question.answer(epoch, public), from).await;
        }
    });
    Ok(tasks)
}

/// One mapping at a time: a home has one machine.
fn rules(question: &Question, inner: SocketAddrV4) -> String {
    let mut rules = "flush chain ip lab into\n".to_owned();
    if question.lifetime > 0 {
        let external = question.external();
        rules +=
            &format!("add rule ip lab into iifname \"wan\" udp dport {external} dnat to {inner}\n");
    }
    rules
}

/// Waits until a daemon shows the port that the router gave it.
pub(super) async fn leased(node: &Node, public: Ipv4Addr) -> Result<()> {
    let deadline = Instant::now() + LEASE;
    loop {
        let shown: ConnectivityResponse = node.http().await?.get(Operation::Connectivity).await?;
        if shown.port_mapping.active {
            let at = shown.port_mapping.external_addr.context("a lease has an address")?;
            ensure!(at.ip() == public, "the lease is of another router: {at}");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no port was mapped");
        sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, from RFC 6887 §7.1, §7.2 and §11.1.
    #[test]
    fn a_question_is_read_and_answered_as_the_rfc_says() {
        let mut packet = vec![2, 1, 0, 0, 0, 0, 0x0e, 0x10];
        packet.extend(Ipv4Addr::new(192, 168, 1, 2).to_ipv6_mapped().octets());
        packet.extend([7; 12]);
        packet.extend([17, 0, 0, 0, 0x15, 0x6b, 0, 0]);
        packet.extend([0; 16]);
        let question = Question::decode(&packet).expect("a question");
        let expected = Question { lifetime: 3600, nonce: [7; 12], internal: 5483, suggested: 0 };
        assert_eq!(question, expected);
        let answer = question.answer(9, Ipv4Addr::new(203, 0, 113, 10));
        assert_eq!(answer.len(), LEN);
        assert_eq!(answer[..12], [2, 0x81, 0, 0, 0, 0, 0x0e, 0x10, 0, 0, 0, 9]);
        assert_eq!(answer[40..44], [0x15, 0x6b, 0x15, 0x6b]);
        assert_eq!(answer[56..], [203, 0, 113, 10]);
        assert_eq!(Question::decode(&packet[1..]), None);
        let inner = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 2), 5483);
        assert!(rules(&question, inner).contains("udp dport 5483 dnat to 192.168.1.2:5483"));
        let over = Question { lifetime: 0, ..question };
        assert!(!rules(&over, inner).contains("dnat"));
    }
}
