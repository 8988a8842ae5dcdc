use super::*;

const SEED: [u8; 32] = [3; 32];
const OWN: &str = "203.0.113.7:40000";

fn at(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn place(n: u8, address: &str) -> Place {
    Place::new(MachineId::new([n; 32]), at(address), Some(at(OWN)), Duration::ZERO)
}

fn secs(secs: u64) -> Tick {
    Tick::from_millis(secs * 1000)
}

fn machine() -> DialBacks {
    DialBacks::new(Arc::default())
}

fn give(machine: &mut DialBacks, now: Tick, input: Input) -> Vec<Output> {
    machine.handle(now, input);
    std::iter::from_fn(|| machine.poll_output()).collect()
}

fn status(machine: &mut DialBacks, now: Tick, sessions: &[Place]) -> Option<(FlowId, MachineId)> {
    let fresh = (u128::from(now.as_micros()).to_be_bytes(), SEED);
    let (addresses, sessions) = (vec![at(OWN)], sessions.to_vec());
    let outputs = give(machine, now, Input::Status { addresses, sessions, fresh });
    match &outputs[..] {
        [] => None,
        [Output::Open(keys), Output::Send { to, step: DialBackStep::Ask(ask) }] => {
            assert_eq!(ask.address, at(OWN));
            Some((keys.flow(), *to))
        }
        other => panic!("{other:?}"),
    }
}

fn validated(machine: &mut DialBacks, now: Tick, flow: FlowId, from: &str, seen: &str) -> bool {
    let outputs = give(machine, now, Input::Validated { flow, from: at(from), seen: at(seen) });
    assert!(matches!(outputs.first(), Some(Output::Close(closed)) if *closed == flow));
    matches!(outputs.get(1), Some(Output::Reachable(address)) if *address == at(OWN))
}

#[test]
fn only_a_stranger_of_another_network_shows_that_all_may_come() {
    let helper = place(1, "198.51.100.1:5483");
    let friend = place(2, "192.0.2.9:5483");
    let cases = [
        ("100.9.1.1:5483", OWN, true),
        ("198.51.77.1:5483", OWN, false),
        ("192.0.2.77:9999", OWN, false),
        ("100.9.1.1:5483", "203.0.113.7:40001", false),
        ("10.0.0.1:5483", OWN, false),
    ];
    for (from, seen, reached) in cases {
        let mut machine = machine();
        let (flow, asked) = status(&mut machine, secs(0), &[helper, friend]).expect("asks");
        assert!([helper.machine, friend.machine].contains(&asked));
        let helped = asked == helper.machine;
        if helped || reached {
            assert_eq!(
                validated(&mut machine, secs(1), flow, from, seen),
                reached,
                "{from} {seen}"
            );
        }
    }
    // Somebody to whom this machine wrote a while ago without a session.
    let mut machine = machine();
    machine.handle(secs(0), Input::WritesTo(at("100.9.1.200:5483")));
    let (flow, _) = status(&mut machine, secs(600), &[helper]).expect("asks");
    assert!(!validated(&mut machine, secs(601), flow, "100.9.1.1:5483", OWN));
    let (flow, _) = status(&mut machine, secs(700), &[helper]).expect("asks again");
    assert!(!validated(&mut machine, secs(701), flow, "100.9.1.1:5483", OWN), "it was answered");
}

#[test]
fn questions_are_seldom() {
    let helper = place(1, "198.51.100.1:5483");
    let mut machine = machine();
    let mut asked = Vec::new();
    for now in (0..3600).step_by(10).map(secs) {
        machine.handle_timeout(now);
        while machine.poll_output().is_some() {}
        if status(&mut machine, now, &[helper]).is_some() {
            asked.push(now);
        }
    }
    let pauses: Vec<u64> = asked.windows(2).map(|two| (two[1] - two[0]).as_secs()).collect();
    assert!(pauses.len() <= 8 && pauses.is_sorted(), "{pauses:?}");
    assert_eq!(machine.metrics.unanswered.value(), asked.len() as u64);
    // Nobody sees this machine where it wants to be seen.
    let mut elsewhere = helper;
    elsewhere.observed = Some(at("203.0.113.8:40000"));
    assert_eq!(status(&mut self::machine(), secs(0), &[elsewhere]), None);
    // What was reached is asked after again before it ends.
    let mut machine = self::machine();
    let (flow, _) = status(&mut machine, secs(0), &[helper]).expect("asks");
    assert!(validated(&mut machine, secs(1), flow, "100.9.1.1:5483", OWN));
    assert_eq!(status(&mut machine, secs(700), &[helper]), None);
    assert!(status(&mut machine, secs(730), &[helper]).is_some());
}

fn ask(n: u8, address: &str) -> DialBack {
    DialBack { round: [n; 16], seed: SEED, address: at(address) }
}

fn received(from: Place, step: DialBackStep, sessions: &[Place]) -> Input {
    Input::Received { from, step, sessions: sessions.to_vec(), pick: 0 }
}

#[test]
fn a_helper_passes_on_what_is_the_askers_own() {
    let asker = place(1, "203.0.113.7:1234");
    let (near, far) = (place(2, "203.0.200.1:5483"), place(3, "198.51.100.1:5483"));
    let all = [asker, near, far];
    let mut machine = machine();
    let outputs =
        give(&mut machine, secs(0), received(asker, DialBackStep::Ask(ask(1, OWN)), &all));
    let [Output::Send { to, step: DialBackStep::Forward(forward) }] = &outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!((*to, *forward), (far.machine, ask(1, OWN)));
    for bad in ["203.0.113.8:40000", "203.0.113.7:53", "10.0.0.1:5483", "127.0.0.1:5483"] {
        let step = DialBackStep::Ask(ask(2, bad));
        assert!(give(&mut machine, secs(1), received(asker, step, &all)).is_empty(), "{bad}");
    }
    assert_eq!(machine.metrics.refused_address.value(), 4);
    let step = DialBackStep::Ask(ask(3, OWN));
    assert!(give(&mut machine, secs(1), received(asker, step, &[asker, near])).is_empty());
    assert_eq!(machine.metrics.refused_nobody.value(), 1);
    let forwarded = (0..100)
        .filter(|_| !give(&mut machine, secs(2), received(asker, step, &all)).is_empty())
        .count();
    assert!(forwarded < ASKED_BURST as usize);
}

#[test]
fn one_probe_goes_out_for_each_question_and_few_to_one_place() {
    let helper = place(1, "198.51.100.1:5483");
    let forward = |n, address: &str| received(helper, DialBackStep::Forward(ask(n, address)), &[]);
    let mut machine = machine();
    let outputs = give(&mut machine, secs(0), forward(1, OWN));
    assert!(matches!(&outputs[..], [Output::Open(_), Output::Probe { .. }]), "{outputs:?}");
    assert!(give(&mut machine, secs(1), forward(2, OWN)).is_empty(), "it rests");
    for bad in ["10.0.0.1:5483", "127.0.0.1:5483", "169.254.169.254:8080", "203.0.113.9:80"] {
        assert!(give(&mut machine, secs(1), forward(3, bad)).is_empty(), "{bad}");
    }
    machine.handle_timeout(secs(3));
    assert!(matches!(machine.poll_output(), Some(Output::Close(_))));
    assert_eq!(machine.poll_timeout(), None);
    // Many helpers that are in one hand.
    let mut sent = 0;
    for n in 0..200_u8 {
        let from = place(n, "198.51.100.1:5483");
        let address = format!("203.0.113.{n}:5483");
        let step = DialBackStep::Forward(ask(n, &address));
        sent += usize::from(!give(&mut machine, secs(20), received(from, step, &[])).is_empty());
    }
    assert_eq!(sent, MAX_PROBES);
}

#[test]
fn memory_is_bounded() {
    let mut machine = machine();
    for n in 0..5000_u32 {
        let address = SocketAddr::from(((n << 8).to_be_bytes(), 5483));
        machine.handle(secs(1), Input::WritesTo(address));
        let mut from = place(1, "198.51.100.1:5483");
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        from.machine = MachineId::new(id);
        let step = DialBackStep::Ask(ask(1, "198.51.100.1:5483"));
        give(&mut machine, secs(1), received(from, step, &[]));
    }
    assert_eq!(
        (machine.written_to.len(), machine.rates.len()),
        (MAX_WRITTEN_TO, crate::rates::MAX_RATES)
    );
}
