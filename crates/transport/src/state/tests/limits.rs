//! How much strangers may take.

use super::*;
use crate::config::MAX_PER_HOST;

/// A stranger that this end is the arbiter towards.
fn stranger(n: u16) -> MachineId {
    let mut id = [0; 32];
    id[30..].copy_from_slice(&n.to_be_bytes());
    MachineId::new(id)
}

fn host(network: u8, host: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, network, host], 4000))
}

fn is_taken(outputs: &[Output], link: LinkId) -> bool {
    outputs.contains(&Output::SendHello { link, replace: false })
}

#[test]
fn one_network_cannot_fill_the_pending_links() {
    let mut bench = Bench::new();
    for n in 0..MAX_PENDING_PER_NETWORK as u16 {
        let (link, outputs) = bench.accept_from(stranger(n), host(1, n as u8));
        assert!(is_taken(&outputs, link));
    }
    let (link, outputs) = bench.accept_from(stranger(500), host(1, 200));
    assert_eq!(outputs, [closes(link, CloseCode::Limit)]);
    let (link, outputs) = bench.accept_from(stranger(501), host(2, 1));
    assert!(is_taken(&outputs, link), "others are not affected");
    for n in 0..2 * MAX_PENDING_PER_NETWORK as u16 {
        let at = SocketAddr::from(([10, 0, 0, n as u8], 4000));
        let (link, outputs) = bench.accept_from(stranger(600 + n), at);
        assert!(is_taken(&outputs, link), "the own site is exempt");
    }
}

#[test]
fn the_oldest_link_without_a_hello_gives_way() {
    let mut bench = Bench::new();
    let (greeted, _) = bench.accept_from(GREATER, host(1, 1));
    bench.give(Input::Hello { link: greeted, hello: hello(1) });
    let mut silent = Vec::new();
    for n in 1..MAX_PENDING_LINKS as u16 {
        silent.push(bench.accept_from(stranger(n), host((n / 30) as u8 + 2, n as u8)).0);
    }
    let (link, outputs) = bench.accept_from(stranger(900), host(100, 1));
    assert_eq!(outputs[0], closes(silent[0], CloseCode::Limit));
    assert!(is_taken(&outputs, link));
    assert_eq!(bench.machine.metrics.links_evicted.value(), 1);
    let outputs = bench.give(Input::Keep { link: greeted, number: 1 });
    assert!(matches!(outputs[0], Output::Up(_)), "whoever said hello is waited for");
}

#[test]
fn one_network_opens_so_many_sessions() {
    let mut bench = Bench::new();
    let cap = bench.machine.config.max_sessions_per_network as u16;
    let open = |bench: &mut Bench, n: u16, at: SocketAddr| {
        let (link, _) = bench.accept_from(stranger(n), at);
        let outputs = bench.give(Input::Hello { link, hello: hello(1) });
        outputs.iter().any(|output| matches!(output, Output::Up(_)))
    };
    for n in 0..cap {
        assert!(open(&mut bench, n, host(1, n as u8)));
    }
    assert!(!open(&mut bench, 100, host(1, 100)), "the network is full");
    assert!(open(&mut bench, 101, host(2, 1)), "others are not");
    // What this end dials is its own choice.
    let to = PeerAddr::known(stranger(102), [host(1, 102)]);
    let (_, outputs) = bench.connect(to);
    let link = LinkId(bench.number());
    let up = LinkUp { link, peer: stranger(102), address: host(1, 102), held: false };
    bench.give(Input::Dialled { attempt: dials(&outputs)[0].0, result: Ok(up) });
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert!(outputs.iter().any(|output| matches!(output, Output::Up(_))));
    for n in 0..2 * cap {
        let local = SocketAddr::from(([192, 168, 0, n as u8], 4000));
        assert!(open(&mut bench, 200 + n, local), "the own site is exempt");
    }
}

fn is_up(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Up(_)))
}

fn downs(outputs: &[Output]) -> Vec<MachineId> {
    let down = |output: &Output| match output {
        Output::Down { peer, .. } => Some(*peer),
        _ => None,
    };
    outputs.iter().filter_map(down).collect()
}

/// A peer opens a session.
fn opens(bench: &mut Bench, peer: MachineId, at: SocketAddr, held: bool) -> Vec<Output> {
    let link = LinkId(bench.number());
    bench.give(Input::Accepted(LinkUp { link, peer, address: at, held }));
    bench.give(Input::Hello { link, hello: hello(1) })
}

/// This machine dials a peer until the session.
fn reaches(bench: &mut Bench, peer: MachineId) -> Vec<Output> {
    let (_, outputs) = bench.connect(known(peer, &[10]));
    let Some((attempt, _)) = dials(&outputs).first().copied() else { return outputs };
    let (link, _) = bench.reach(attempt, peer, 10);
    bench.give(Input::Hello { link, hello: hello(1) })
}

#[test]
fn strangers_leave_a_quarter_of_the_places_and_give_way_to_own_dials() {
    let mut bench = Bench::new();
    bench.machine.config.max_sessions = 8;
    for n in 0..6 {
        assert!(is_up(&opens(&mut bench, stranger(n), host(n as u8, 1), false)));
        bench.pass(Duration::from_secs(1));
    }
    assert!(!is_up(&opens(&mut bench, stranger(6), host(6, 1), false)), "their places are taken");
    assert!(is_up(&opens(&mut bench, stranger(7), host(7, 1), true)), "who is held has the others");
    assert!(is_up(&reaches(&mut bench, stranger(8))));
    assert_eq!(bench.machine.sessions.len(), 8);
    // What this machine sends to the first is use.
    let used = Usage { peer: stranger(0), used: bench.now, held: false };
    bench.give(Input::Usage(vec![used]));
    let outputs = reaches(&mut bench, stranger(9));
    assert_eq!(downs(&outputs), [stranger(1)], "the least recently used of them gives way");
    assert!(is_up(&outputs));
    let outputs = opens(&mut bench, stranger(10), host(10, 1), true);
    assert_eq!(downs(&outputs), [stranger(2)], "also for one that is held");
    for n in 11..15 {
        assert!(is_up(&reaches(&mut bench, stranger(n))));
    }
    assert_eq!(bench.machine.sessions.len(), 8);
    let outputs = reaches(&mut bench, stranger(15));
    assert!(matches!(failure(&outputs), Some(DialError::Limit { .. })), "all are wanted or held");
}

#[test]
fn a_dial_that_crosses_is_wanted_whoever_opened_the_session() {
    let mut bench = Bench::new();
    bench.machine.config.max_sessions = 1;
    opens(&mut bench, stranger(0), host(0, 1), false);
    bench.connect(known(stranger(1), &[10]));
    let outputs = opens(&mut bench, stranger(1), host(1, 1), false);
    assert!(is_up(&outputs) && downs(&outputs) == [stranger(0)]);
    let outputs = reaches(&mut bench, stranger(2));
    assert!(matches!(failure(&outputs), Some(DialError::Limit { .. })), "it does not give way");
}

#[test]
fn who_is_preferred_counts_as_wanted() {
    let mut bench = Bench::new();
    bench.machine.config.max_sessions = 1;
    assert!(is_up(&opens(&mut bench, stranger(0), host(0, 1), false)));
    let link = LinkId(bench.number());
    let up = LinkUp { link, peer: stranger(1), address: host(1, 1), held: false };
    bench.give(Input::Accepted(up));
    let friend = Hello { preferred: true, ..hello(1) };
    let outputs = bench.give(Input::Hello { link, hello: friend });
    assert!(is_up(&outputs) && downs(&outputs) == [stranger(0)]);
    let outputs = reaches(&mut bench, stranger(2));
    assert!(matches!(failure(&outputs), Some(DialError::Limit { .. })), "it does not give way");
}

#[test]
fn a_lost_session_of_a_stranger_comes_back_as_one() {
    let mut bench = Bench::new();
    bench.machine.config.max_sessions = 1;
    let outputs = opens(&mut bench, stranger(0), host(0, 1), false);
    let Some(Output::Up(up)) = outputs.iter().find(|output| matches!(output, Output::Up(_))) else {
        panic!("up");
    };
    bench.close(up.link, LinkClosed::TimedOut);
    let attempt = dials(&bench.pass(Duration::from_secs(3)))[0].0;
    let (link, _) = bench.reach(attempt, stranger(0), 900);
    assert!(is_up(&bench.give(Input::Hello { link, hello: hello(1) })));
    assert_eq!(downs(&reaches(&mut bench, stranger(1))), [stranger(0)]);
}

#[test]
fn one_site_of_ipv6_and_one_private_address_have_limits_of_their_own() {
    let mut bench = Bench::new();
    let cap = 2 * bench.machine.config.max_sessions_per_network as u16;
    let site = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 1, n << 8, 0, 0, 0, 1], 4000));
    for n in 0..cap {
        assert!(is_up(&opens(&mut bench, stranger(n), site(n), false)));
    }
    assert!(!is_up(&opens(&mut bench, stranger(300), site(cap), false)), "one /48");
    let one = SocketAddr::from(([10, 0, 0, 1], 4000));
    for n in 0..MAX_PER_HOST as u16 {
        assert!(is_up(&opens(&mut bench, stranger(400 + n), one, false)));
    }
    assert!(!is_up(&opens(&mut bench, stranger(500), one, false)), "one private address");
    let other = SocketAddr::from(([10, 0, 0, 2], 4000));
    assert!(is_up(&opens(&mut bench, stranger(500), other, false)));
    for n in 0..MAX_PER_HOST as u16 {
        assert_eq!(bench.accept_from(stranger(600 + n), one).1.len(), 1);
    }
    let (link, outputs) = bench.accept_from(stranger(700), one);
    assert_eq!(outputs, [closes(link, CloseCode::Limit)], "on their way, too");
}
