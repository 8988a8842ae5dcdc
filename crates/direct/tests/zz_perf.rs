use std::{sync::Arc, time::Duration};
use x0x_core::{AgentId, Clock, PeerAddr, SystemClock};
use x0x_direct::{Direct, DirectConfig};
use x0x_transport::{Transport, testing::{LinkModel, MemoryNetwork, address, machine, node}};
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf() {
    let model = LinkModel { latency: Duration::ZERO..Duration::ZERO, window: 4 << 20, ..LinkModel::default() };
    let network = MemoryNetwork::new(1, model);
    let (a, b) = (node(&network, 0), node(&network, 1));
    a.connect(PeerAddr::known(machine(1), [address(1)])).await.unwrap();
    while b.session(machine(0)).is_none() { tokio::time::sleep(Duration::from_millis(5)).await; }
    let aa = b.session(machine(0)).unwrap().agents[0];
    let ba = a.session(machine(1)).unwrap().agents[0];
    let _: AgentId = aa;
    let clock = Arc::new(SystemClock::new());
    let (da, _ia) = Direct::start(Arc::new(a), DirectConfig::new(vec![aa]), clock.clone()).unwrap();
    let (_db, mut ib) = Direct::start(Arc::new(b), DirectConfig::new(vec![ba]), clock.clone()).unwrap();
    let m1 = machine(1);
    tokio::spawn(async move { while ib.next().await.is_some() {} });
    let mut lat = Vec::new();
    for _ in 0..2000 {
        let t = clock.now();
        da.send(m1, aa, ba, vec![0; 256].into()).await.unwrap();
        lat.push((clock.now() - t).as_micros());
    }
    lat.sort();
    println!("PERF sequential p50 {} p99 {} us", lat[1000], lat[1980]);
    for par in [32, 512] {
        let start = clock.now();
        let mut tasks = Vec::new();
        for _ in 0..par {
            let direct = da.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..100_000 / par { direct.send(m1, aa, ba, vec![0; 256].into()).await.unwrap(); }
            }));
        }
        for t in tasks { t.await.unwrap(); }
        println!("PERF {par} in flight: {} msg/s", 100_000.0 / (clock.now() - start).as_secs_f64());
    }
    let start = clock.now();
    let mut sent = std::collections::VecDeque::new();
    for _ in 0..200_000 {
        sent.push_back(da.queue(da.new_id(), m1, aa, ba, vec![0; 256].into()).await.unwrap());
        if sent.len() > 2000 { sent.pop_front().unwrap().await.unwrap(); }
    }
    for s in sent { s.await.unwrap(); }
    println!("PERF pipelined {} msg/s", 200_000.0 / (clock.now() - start).as_secs_f64());
    println!("PERF acks {}", _db.metrics().acks_sent.value());
}
