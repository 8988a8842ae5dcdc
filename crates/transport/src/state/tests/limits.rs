//! How much strangers may take.

use super::*;

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
    let up = LinkUp { link, peer: stranger(102), address: host(1, 102) };
    bench.give(Input::Dialled { attempt: dials(&outputs)[0].0, result: Ok(up) });
    let outputs = bench.give(Input::Hello { link, hello: hello(1) });
    assert!(outputs.iter().any(|output| matches!(output, Output::Up(_))));
    for n in 0..2 * cap {
        let local = SocketAddr::from(([192, 168, 0, n as u8], 4000));
        assert!(open(&mut bench, 200 + n, local), "the own site is exempt");
    }
}
