//! How often, and how soon, an agent is found.

use std::{collections::BTreeMap, time::Duration};

use x0x_core::{Tick, TopicId};
use x0x_rendezvous::{FinderInput, Subject};

use crate::overlay::{Manner, Overlay, machine};

const NODES: usize = 1000;
/// What a young node knows: membership's passive view and a part of its address book.
const KNOWN: usize = 100;
const FINDS: u64 = 2000;
const PATIENCE: Duration = Duration::from_secs(2);

/// Files an eighth of the agents, closes the sessions that this took, and looks for random ones: the share that was
/// found in time, with the median and the last-but-one-in-a-hundred of the times.
fn success(seed: u64, bad: usize) -> (f64, Duration, Duration) {
    let mut overlay = Overlay::new(NODES, KNOWN, seed);
    for n in 0..NODES * bad / 100 {
        overlay.nodes[n * 100 / bad].manner =
            if n % 2 == 0 { Manner::Silent } else { Manner::Liar };
    }
    let honest: Vec<usize> =
        (0..NODES).filter(|n| overlay.nodes[*n].manner == Manner::Honest).collect();
    // A holder serves as many as it is asked for; an eighth of the agents takes an eighth of the time.
    let targets: Vec<usize> = honest.iter().copied().filter(|n| n % 8 == 1).collect();
    for n in &targets {
        let subject = Subject::Agent(overlay.agent(*n));
        overlay.input(*n, FinderInput::Offer(subject));
        overlay.run(Duration::from_millis(20));
    }
    overlay.run(Duration::from_secs(40));
    overlay.close_idle();
    let mut begun = BTreeMap::new();
    for ticket in 0..FINDS {
        let finder = honest[overlay.rng.below(honest.len())];
        let target = targets[overlay.rng.below(targets.len())];
        if finder == target {
            continue;
        }
        let subject = Subject::Agent(overlay.agent(target));
        begun.insert(ticket, (overlay.now, finder, target));
        let deadline = overlay.now + PATIENCE;
        overlay.input(finder, FinderInput::Find { ticket, subject, after: None, deadline });
        overlay.run(Duration::from_millis(10));
        if ticket % 200 == 199 {
            overlay.run(PATIENCE);
            overlay.close_idle();
        }
    }
    overlay.run(PATIENCE);
    let mut times: Vec<Duration> = Vec::new();
    for (ticket, (at, finder, target)) in &begun {
        let found = overlay.nodes[*finder].found.iter().find(|(of, ..)| of == ticket);
        if let Some((_, when, record)) = found {
            assert_eq!(record.machine, machine(*target));
            times.push(when.since(*at));
        }
        let done = overlay.nodes[*finder].done.iter().filter(|(of, _)| of == ticket);
        assert_eq!(done.count(), 1, "every caller is told once");
    }
    times.sort();
    let share = times.iter().filter(|time| **time <= PATIENCE).count() as f64 / begun.len() as f64;
    let (median, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!(
        "{bad} % bad: {share} found, median {median:?}, 99 % {late:?}, {} dials",
        overlay.dials
    );
    (share, median, late)
}

#[test]
fn an_online_agent_is_found() {
    let (share, ..) = success(1, 0);
    assert!(share >= 0.999, "{share}");
}

#[test]
fn a_fifth_of_liars_and_mutes_changes_little() {
    let (share, ..) = success(2, 20);
    assert!(share >= 0.995, "{share}");
}

#[test]
fn who_is_not_there_is_told_in_time_and_not_looked_for_again_at_once() {
    let mut overlay = Overlay::new(50, 30, 3);
    overlay.run(Duration::from_secs(1));
    let subject = Subject::Agent([9; 32].into());
    let find = |overlay: &mut Overlay, ticket| {
        let deadline = overlay.now + Duration::from_secs(10);
        overlay.input(0, FinderInput::Find { ticket, subject, after: None, deadline });
    };
    let begun = overlay.now;
    find(&mut overlay, 1);
    overlay.run(Duration::from_secs(11));
    let done = overlay.nodes[0].done.clone();
    assert!(matches!(done[..], [(1, at)] if at.since(begun) < Duration::from_secs(4)), "{done:?}");
    find(&mut overlay, 2);
    overlay.run(Duration::from_secs(5));
    find(&mut overlay, 3);
    assert_eq!(overlay.nodes[0].done.len(), 3, "at once");
}

#[test]
fn subscribers_of_a_topic_find_each_other() {
    let mut overlay = Overlay::new(200, 60, 4);
    let topic = Subject::Topic(TopicId::new([7; 32]));
    for n in [5, 50, 150] {
        overlay.input(n, FinderInput::Offer(topic));
    }
    overlay.run(Duration::from_secs(30));
    overlay.close_idle();
    let deadline = overlay.now + PATIENCE;
    overlay.input(100, FinderInput::Find { ticket: 1, subject: topic, after: None, deadline });
    overlay.input(50, FinderInput::Find { ticket: 2, subject: topic, after: None, deadline });
    overlay.run(PATIENCE);
    let found = |n: usize| {
        let found = overlay.nodes[n].found.iter().map(|(.., record)| record.machine);
        let mut found: Vec<_> = found.collect();
        found.sort();
        found
    };
    assert_eq!(found(100), [5, 50, 150].map(machine));
    assert_eq!(found(50), [5, 150].map(machine), "not itself");
    assert_eq!(overlay.nodes[100].done.len(), 1);
}

/// Filings in two hours, with restarts of all others so often.
fn filings(restarts: Option<u64>) -> u64 {
    let mut overlay = Overlay::new(60, 40, 6);
    let subject = Subject::Agent(overlay.agent(1));
    overlay.input(1, FinderInput::Offer(subject));
    for minute in 1..=120 {
        overlay.run(Duration::from_secs(60));
        overlay.close_idle();
        if restarts.is_some_and(|every| minute % every == 0) {
            (0..60).filter(|n| *n != 1).for_each(|n| overlay.restart(n, 40));
        }
    }
    overlay.nodes[1].finder.metrics().filings.value()
}

#[test]
fn records_are_filed_as_often_as_their_holders_forget() {
    let (calm, busy) = (filings(None), filings(Some(3)));
    // Half as long again each time, from a minute to an hour.
    assert!((10..=16).contains(&calm), "{calm}");
    assert!((70..=120).contains(&busy), "{busy}: once a minute at most");
}

#[test]
fn records_are_filed_again_before_they_end_and_for_the_next_day() {
    let mut overlay = Overlay::new(60, 40, 5);
    let subject = Subject::Agent(overlay.agent(1));
    overlay.input(1, FinderInput::Offer(subject));
    // Over a midnight.
    for hour in 0..30_u64 {
        overlay.run(Duration::from_secs(3600));
        overlay.close_idle();
        let deadline = overlay.now + PATIENCE;
        overlay.input(30, FinderInput::Find { ticket: hour, subject, after: None, deadline });
        overlay.run(PATIENCE);
        assert_eq!(overlay.nodes[30].found.len() as u64, hour + 1, "hour {hour}");
    }
    overlay.input(1, FinderInput::Withdraw(subject));
    overlay.run(Duration::from_secs(3 * 3600));
    let deadline = overlay.now + PATIENCE;
    overlay.input(30, FinderInput::Find { ticket: 99, subject, after: None, deadline });
    overlay.run(PATIENCE);
    assert_eq!(overlay.nodes[30].found.len(), 30, "nothing is left of it");
    assert!(overlay.now > Tick::ZERO);
}
