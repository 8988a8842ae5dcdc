mod common;
use std::time::{Duration, Instant};
use common::*;
#[test]
fn dbg() {
  let mut bad = 0;
  for seed in 0..200 {
    let mut s = swarm(seed);
    for _ in 0..8 { join(&mut s); s.run_for(Duration::from_millis(100)); }
    s.run_for(Duration::from_secs(10));
    if graph(&s).degrees().min == 7 {continue}
    bad += 1;
    if bad > 3 {continue}
    println!("seed {seed}");
    for (n, m) in s.running() {
        println!("{n}: {:?} passive {:?} timeout {:?} now {:?}", m.active().map(node).collect::<Vec<_>>(), m.passive().map(|p| node(p.id())).collect::<Vec<_>>(), x0x_core::Machine::poll_timeout(m), s.now());
        println!("{:?}", m.metrics().snapshot().iter().filter(|m| m.value>0).map(|m| (&m.name[11..], m.value)).collect::<Vec<_>>());
    }
  }
  println!("bad {bad}");
}
#[test]
fn speed() {
    let t = Instant::now();
    let mut s = swarm(1);
    for _ in 0..1000 { join(&mut s); s.run_for(Duration::from_millis(10)); }
    println!("{:?} {:?}", t.elapsed(), s.stats());
    s.run_for(Duration::from_secs(15));
    println!("{:?} {:?}", t.elapsed(), s.stats());
}
