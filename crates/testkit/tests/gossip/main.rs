//! The gossip simulator at small scale: every scenario of `simulations/` holds what it promises, and
//! the same seed gives the same run.

use std::{fs, path::PathBuf};

use x0x_testkit::gossip::{Event, Mode, Report, Scenario, run};

/// The file of a scenario, with so few nodes and messages that a test takes a second or two.
fn small(name: &str) -> Scenario {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../simulations");
    let path = folder.join(format!("{name}.toml"));
    let text = fs::read_to_string(&path).expect("the scenario's file");
    let mut scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    scenario.nodes = NODES;
    let traffic = &mut scenario.traffic;
    if traffic.subscribers < 1.0 {
        traffic.subscribers = 0.25;
    }
    traffic.senders = traffic.senders.min(if traffic.subscribers < 1.0 { 3 } else { 8 });
    // As many messages in the same time.
    let fewer = (f64::from(MESSAGES) / f64::from(traffic.messages)).min(1.0);
    traffic.messages = traffic.messages.min(MESSAGES);
    traffic.warmup = traffic.warmup.min(10);
    traffic.rate *= fewer;
    scenario.overlay.formation_s = 5.0;
    scenario.overlay.settle_s = 15.0;
    for event in &mut scenario.events {
        match event {
            Event::Join { share, .. } | Event::Restart { share, .. } => *share = 0.1,
            Event::Churn { rate, .. } => *rate = 1.0,
            Event::Flap { nodes, .. } | Event::Slow { nodes, .. } => *nodes = 2,
            _ => {}
        }
    }
    scenario
}

const NODES: u32 = 24;
const MESSAGES: u32 = 30;

/// Runs a scenario; on failure the report tells the seed.
fn simulate(scenario: &Scenario, seed: u64) -> Report {
    let report = run(scenario, seed).expect("a valid scenario");
    assert_eq!(report.violations, 0, "{report}");
    report
}

/// Nobody lacks anything at the end, and nobody was told to.
fn complete(name: &str) -> Report {
    let report = simulate(&small(name), 1);
    assert_eq!((report.missing, report.lagged, report.behind), (0, 0, 0), "{report}");
    assert!(report.complete_s.is_some(), "{report}");
    report
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let mut scenario = small("churn");
    scenario.nodes = 16;
    scenario.overlay.settle_s = 5.0;
    let first = simulate(&scenario, 7);
    assert_eq!(first, simulate(&scenario, 7));
    assert_ne!(first.trace_hash, simulate(&scenario, 8).trace_hash);
}

#[test]
fn one_sender() {
    let report = complete("steady-one");
    assert!(report.delivery_5s >= 1.0, "{report}");
}

#[test]
fn many_senders() {
    let report = complete("steady-many");
    assert!(report.delivery_5s >= 1.0, "{report}");
    assert!(report.verifies_per_delivery <= 1.05, "{report}");
}

#[test]
fn churn() {
    complete("churn");
}

/// All replicas hold the same in the end, and wrote as much as was to be written.
fn converges(name: &str) -> Report {
    let report = complete(name);
    let objects = report.objects.as_ref().expect("there are replicas");
    assert_eq!((objects.states, objects.pending), (1, 0), "{report}");
    assert_eq!(objects.replicas, report.nodes_at_end, "{report}");
    assert_eq!(objects.operations, report.messages, "{report}");
    report
}

#[test]
fn replicas_converge_under_churn() {
    converges("objects-churn");
}

#[test]
fn replicas_converge_after_a_partition() {
    assert!(converges("objects-partition").heal_s.is_some());
}

#[test]
fn replicas_of_the_same_seed_are_the_same() {
    let scenario = small("objects-churn");
    let first = simulate(&scenario, 3);
    assert_eq!(first, simulate(&scenario, 3));
}

/// Texts of a group that every reader shows, and refuses, and all messages.
fn announces(name: &str) -> (u64, u64, u64) {
    let report = complete(name);
    let readers = report.announces.clone().expect("there is a group");
    assert_eq!((readers.readers, readers.walls), (report.nodes_at_end, 1), "{report}");
    assert_eq!(readers.shown_min, readers.shown_max, "{report}");
    assert_eq!(readers.refused_min, readers.refused_max, "{report}");
    (readers.shown_max, readers.refused_max, report.messages as u64)
}

#[test]
fn readers_of_a_group_show_every_text_of_its_owner_and_no_other() {
    // The first message founds the group.
    let (shown, refused, messages) = announces("announce-group");
    assert_eq!((shown + 1, refused), (messages, 0));
    let (shown, refused, messages) = announces("announce-outsiders");
    assert_eq!(shown + refused + 1, messages);
    assert!(shown > 0 && refused > shown, "{shown} {refused}");
}

#[test]
fn mass_kill() {
    let report = complete("mass-kill");
    let after_two = report.connectivity.iter().find(|look| look.shuffles == 2).expect("a look");
    assert!(after_two.largest >= 1.0, "{report}");
}

#[test]
fn late_joiners() {
    let report = complete("late-joiner");
    assert!(report.catch_up_s_max.is_some_and(|s| s < 10.0), "{report}");
}

#[test]
fn a_partition_in_halves() {
    assert!(complete("partition-50").heal_s.is_some());
}

#[test]
fn a_tenth_cut_off() {
    assert!(complete("partition-90").heal_s.is_some());
}

#[test]
fn a_storm_of_joins() {
    complete("join-storm");
}

#[test]
fn flapping_members() {
    complete("flapping");
}

#[test]
fn members_with_an_old_disk() {
    complete("old-disk");
}

#[test]
fn members_that_stand_still() {
    complete("stall");
}

#[test]
fn members_on_slow_lines() {
    complete("slow-peer");
}

#[test]
fn translators_and_regions() {
    complete("nat");
}

/// Few subscribers, most of them neighbours of none: they dial one another through translators.
#[test]
fn subscribers_that_are_no_neighbours() {
    let report = complete("sparse-topic");
    assert_eq!(report.nodes_at_end, 6, "{report}");
}

#[test]
fn droppers() {
    let report = simulate(&small("droppers-30"), 1);
    assert!(report.delivery >= 0.999, "{report}");
}

#[test]
fn liars() {
    let report = simulate(&small("liars-30"), 1);
    assert!(report.delivery >= 0.999, "{report}");
}

/// How many honest nodes sybils cut off is in docs/gossip-figures.md; they never break an order.
#[test]
fn sybils() {
    let mut scenario = small("sybils");
    scenario.nodes = 12;
    scenario.traffic.messages = 15;
    scenario.drain_s = 5.0;
    let report = simulate(&scenario, 1);
    assert!(report.lagged == 0, "{report}");
}

#[test]
fn floods_of_signatures() {
    let mut scenario = small("signature-flood");
    scenario.hostile.flood_rate = 10.0;
    let report = simulate(&scenario, 1);
    assert!(report.delivery >= 0.999, "{report}");
}

#[test]
fn authors_of_two_histories() {
    let report = simulate(&small("equivocators"), 1);
    assert!(report.delivery >= 0.999, "{report}");
}

#[test]
fn every_mode_delivers() {
    for mode in Mode::ALL {
        let mut scenario = small("steady-many");
        scenario.nodes = 16;
        scenario.traffic.messages = 12;
        scenario.gossip.mode = mode;
        let report = simulate(&scenario, 3);
        // The models have no reconciliation: what their first spread misses is lost.
        assert!(report.delivery >= 0.999, "{report}");
    }
}

#[test]
fn every_scenario_is_read() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../simulations");
    let mut count = 0;
    for entry in fs::read_dir(folder).expect("the folder of scenarios") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).expect("readable");
            let scenario = Scenario::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(scenario.name, name);
            count += 1;
        }
    }
    assert!(count >= 14, "{count} scenarios");
}
