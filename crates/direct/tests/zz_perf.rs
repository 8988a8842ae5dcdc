use std::sync::Arc;
use x0x_core::{AgentId, MachineId, SystemClock};
use x0x_direct::{DirectConfig, testing::loopback};
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn perf() {
    let (m, a, b) = (MachineId::new([1; 32]), AgentId::new([2; 32]), AgentId::new([3; 32]));
    let (direct, mut inbox) = loopback(m, DirectConfig::new(vec![a, b]), Arc::new(SystemClock::new()));
    const N: u32 = 200_000;
    let clock = x0x_core::SystemClock::new();
    use x0x_core::Clock;
    let t = tokio::spawn(async move {
        let mut tasks = Vec::new();
        for _ in 0..64 {
            let direct = direct.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..N / 64 {
                    direct.send(m, a, b, vec![0; 256].into()).await.unwrap();
                }
            }));
        }
        for t in tasks { t.await.unwrap(); }
    });
    for _ in 0..(N / 64) * 64 { inbox.next().await.unwrap(); }
    t.await.unwrap();
    println!("{} msg/s", N as f64 / (clock.now().as_micros() as f64 / 1e6));
}
