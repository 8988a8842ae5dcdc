//! How this machine can be reached, from what its peers see of it.
//!
//! A report is one peer's word, so that two of different networks must agree before it counts. Without
//! them the class is unknown: a machine that only knows its own addresses cannot tell.

use std::net::SocketAddr;

use x0x_core::Scope;

use crate::{link::Side, prefix::Prefix, record::ReachClass, transport::SessionInfo};

/// What one peer on the internet sees.
struct Report {
    from: Prefix,
    observed: SocketAddr,
    /// The peer found this machine by itself.
    came: bool,
}

/// The class of a machine that listens at `own`.
///
/// Public: peers of two networks see one of these addresses, and one of them dialled it. Punchable: they
/// see the same other address, that of a translator which keeps to one mapping for everybody.
pub(crate) fn reach_class(own: &[SocketAddr], sessions: &[SessionInfo]) -> ReachClass {
    let reports: Vec<Report> = sessions.iter().filter_map(report).collect();
    let confirmed = |address: SocketAddr| {
        let mut of = reports.iter().filter(|report| report.observed == address);
        let first = of.next().map(|report| report.from);
        of.any(|report| Some(report.from) != first)
    };
    let dialled = reports
        .iter()
        .any(|report| report.came && own.contains(&report.observed) && confirmed(report.observed));
    let translated =
        reports.iter().any(|report| !own.contains(&report.observed) && confirmed(report.observed));
    match (dialled, translated) {
        (true, _) => ReachClass::Public,
        (false, true) => ReachClass::Punchable,
        (false, false) => ReachClass::Unknown,
    }
}

fn report(session: &SessionInfo) -> Option<Report> {
    let observed = session.observed_address?;
    let observed = SocketAddr::new(observed.ip().to_canonical(), observed.port());
    let remote = session.remote_address.ip();
    let global = Scope::of_path(remote) == Scope::Global;
    (global && Scope::of_path(observed.ip()) == Scope::Global).then(|| Report {
        from: Prefix::of(remote),
        observed,
        came: session.side == Side::Acceptor,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use x0x_core::MachineId;

    use super::*;

    const OWN: &str = "198.51.100.9:5483";
    const MAPPED: &str = "203.0.113.7:40000";

    fn at(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    fn seen(from: &str, observed: &str, side: Side) -> SessionInfo {
        SessionInfo {
            peer: MachineId::new([1; 32]),
            agents: Vec::new(),
            generation: 1,
            side,
            remote_address: at(from),
            listen_addresses: Vec::new(),
            rtt: Duration::ZERO,
            observed_address: Some(at(observed)),
        }
    }

    fn class(sessions: &[SessionInfo]) -> ReachClass {
        reach_class(&[at(OWN), at("127.0.0.1:5483")], sessions)
    }

    #[test]
    fn two_networks_must_agree() {
        use Side::{Acceptor, Dialer};
        let own = |from, side| seen(from, OWN, side);
        let mapped = |from| seen(from, MAPPED, Dialer);
        assert_eq!(class(&[]), ReachClass::Unknown);
        assert_eq!(class(&[own("192.88.1.1:1", Acceptor)]), ReachClass::Unknown);
        let near = [own("192.88.1.1:1", Acceptor), own("192.88.1.2:1", Acceptor)];
        assert_eq!(class(&near), ReachClass::Unknown, "of one network");
        let far = [own("192.88.1.1:1", Acceptor), own("192.88.2.1:1", Dialer)];
        assert_eq!(class(&far), ReachClass::Public);
        let dialled = [own("192.88.1.1:1", Dialer), own("192.88.2.1:1", Dialer)];
        assert_eq!(class(&dialled), ReachClass::Unknown, "nobody came");
        assert_eq!(class(&[mapped("192.88.1.1:1"), mapped("192.88.2.1:1")]), ReachClass::Punchable);
        let moving = [mapped("192.88.1.1:1"), seen("192.88.2.1:1", "203.0.113.7:40001", Dialer)];
        assert_eq!(class(&moving), ReachClass::Unknown, "a mapping for each");
    }

    #[test]
    fn the_own_site_says_nothing() {
        let site = |from| seen(from, "192.168.0.9:5483", Side::Acceptor);
        assert_eq!(class(&[site("192.168.0.1:1"), site("192.168.1.1:1")]), ReachClass::Unknown);
        let near = |from| seen(from, OWN, Side::Acceptor);
        assert_eq!(class(&[near("10.0.0.1:1"), near("10.0.1.1:1")]), ReachClass::Unknown);
    }
}
