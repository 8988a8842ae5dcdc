//! Mail at a thousand points of a crash. A process that commits without a pause is stopped at random points, and
//! what its files hold just then is opened as a crash there would have left it. Of a machine that loses its power,
//! besides, what was written since the last flush is there in part, or as something else.
//!
//! `X0X_CRASH_POINTS=1000 cargo test -p x0x-store --test crash_points` takes all of them.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use x0x_core::{AgentId, MachineId, SeededRng, WallTime};
use x0x_direct::{
    DirectMessage,
    mail::{MailChange, MailStore as _, Retention},
};
use x0x_store::{Durability, SqliteStore, StoreConfig};

/// Names the file to the child.
const PATH: &str = "X0X_STORE_CRASH_PATH";
/// Set for the child that outlives a power loss.
const POWER: &str = "X0X_STORE_CRASH_POWER";

const DATABASE: &str = "x0x.db";
/// What SQLite and the store write ahead, and flush before a commit is acknowledged where that is asked for.
const WRITTEN_AHEAD: [&str; 3] = ["x0x.db-wal", "x0x.db-tail0", "x0x.db-tail1"];

/// Messages of one commit: all of them are there, or none.
const GROUP: u64 = 3;
/// Messages that are kept; older ones are pruned, so that the files stay small and are written back often.
const KEPT: u64 = 300;

/// Looks at the child, a fifth of a millisecond apart, before a test fails.
const PATIENCE: u32 = 300_000;

/// Points of each kind in an ordinary run.
const POINTS: u64 = 60;

fn message(n: u64) -> DirectMessage {
    DirectMessage {
        id: u128::from(n).to_be_bytes(),
        from: AgentId::new([1; 32]),
        to: AgentId::new([2; 32]),
        machine: MachineId::new([3; 32]),
        payload: Bytes::from(vec![n as u8; 1 + (n * 37 % 900) as usize]),
        received_at: WallTime::from_millis(n * 1000),
        number: 0,
        reply_to: None,
        wants_read: false,
        from_stranger: false,
    }
}

/// A counter of the store.
fn count(store: &SqliteStore, name: &str) -> u64 {
    let metrics = store.metrics().snapshot();
    metrics.iter().find(|metric| metric.name == name).expect("the metric exists").value
}

async fn open(path: &Path, power: bool) -> SqliteStore {
    let mut config = StoreConfig::at(path);
    config.durability = if power { Durability::Power } else { Durability::Process };
    SqliteStore::open(config).await.unwrap()
}

/// The other process: commits groups, and tells after each what is acknowledged and how long the files are.
#[tokio::test]
async fn child() {
    let Ok(path) = env::var(PATH) else { return };
    let path = Path::new(&path);
    let store = open(path, env::var(POWER).is_ok()).await;
    let mut out = std::io::stdout().lock();
    for group in 0_u64.. {
        let numbers = group * GROUP + 1..=(group + 1) * GROUP;
        let last = *numbers.end();
        let mut changes: Vec<_> = numbers.map(|n| MailChange::Receive(message(n))).collect();
        if group % 11 == 0 {
            changes.push(MailChange::Seen(last.saturating_sub(GROUP)));
            let mut retention = Retention::default();
            retention.messages = KEPT;
            let now = WallTime::from_millis(last * 1000);
            changes.push(MailChange::Prune { retention, now });
        }
        store.commit(changes).await.unwrap();
        let lengths = WRITTEN_AHEAD.map(|name| length(&path.with_file_name(name)).to_string());
        writeln!(out, "\nacknowledged {last} {}", lengths.join(" ")).unwrap();
        out.flush().unwrap();
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// The last message that the child called acknowledged, and how long its files were then.
#[derive(Debug, Default, Clone, Copy)]
struct Told {
    last: u64,
    lengths: [u64; 3],
}

impl Told {
    fn read(line: &str) -> Option<Self> {
        let mut numbers = line.strip_prefix("acknowledged ")?.split(' ').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self { last: next()?, lengths: [next()?, next()?, next()?] })
    }
}

/// A child that runs, and what it told last.
struct Running {
    child: Child,
    told: Arc<Mutex<Told>>,
}

impl Running {
    fn start(path: &Path, power: bool) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env(PATH, path);
        if power {
            command.env(POWER, "1");
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().expect("its output is piped")).lines();
        let told = Arc::new(Mutex::new(Told::default()));
        let heard = Arc::clone(&told);
        std::thread::spawn(move || {
            for told in lines.map_while(Result::ok).filter_map(|line| Told::read(&line)) {
                *heard.lock().unwrap() = told;
            }
        });
        Self { child, told }
    }

    fn told(&self) -> Told {
        *self.told.lock().unwrap()
    }

    fn signal(&self, name: &str) {
        let target = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &target]).status().unwrap().success());
    }

    /// Stops it where it is.
    fn freeze(&self) {
        self.signal("-STOP");
        let status = format!("/proc/{}/stat", self.child.id());
        // The state follows the name, which is in parentheses.
        while !fs::read_to_string(&status).unwrap().rsplit(") ").next().unwrap().starts_with('T') {
            std::thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies what a crash leaves: every file but the shared memory, which SQLite makes anew.
fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Takes away a part of what was not flushed, or puts something else in its place.
fn lose_power(folder: &Path, told: Told, rng: &mut SeededRng) {
    for (name, flushed) in WRITTEN_AHEAD.iter().zip(told.lengths) {
        let path = folder.join(name);
        let Ok(mut bytes) = fs::read(&path) else { continue };
        let end = bytes.len() as u64;
        if end <= flushed {
            continue;
        }
        let cut = rng.range(flushed, end + 1) as usize;
        match rng.range(0, 3) {
            0 => bytes.truncate(cut),
            1 => bytes[cut..].fill(0),
            _ => bytes[cut..].iter_mut().for_each(|byte| *byte = rng.range(0, 256) as u8),
        }
        fs::write(&path, bytes).unwrap();
    }
}

/// Whether everything acknowledged is there, once and in order, and no group in part.
async fn check(folder: &Path, told: Told, power: bool) -> u64 {
    let store = open(&folder.join(DATABASE), power).await;
    let stored = store.load().await.unwrap();
    assert!(stored.last >= told.last, "{} of {} acknowledged", stored.last, told.last);
    assert!(stored.last.is_multiple_of(GROUP), "a part of a group: {}", stored.last);
    let mail = store.mail(stored.floor, usize::MAX >> 1, u64::MAX).await.unwrap();
    assert_eq!(mail.len() as u64, stored.last - stored.floor);
    for (n, held) in (stored.floor + 1..).zip(&mail) {
        assert_eq!(*held, DirectMessage { number: n, ..message(n) });
    }
    for damage in ["store_rows_damaged", "store_files_damaged"] {
        assert_eq!(count(&store, damage), 0, "{damage}");
    }
    store.close().await.unwrap();
    stored.last - told.last
}

async fn crash(power: bool) {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("X0X_SEED").unwrap_or(7);
    let points = number("X0X_CRASH_POINTS").unwrap_or(POINTS);
    println!("X0X_SEED={seed}");
    let mut rng = SeededRng::from_number(seed);
    let live = tempfile::tempdir().unwrap();
    let running = Running::start(&live.path().join(DATABASE), power);
    let (mut last, mut beyond) = (0, 0);
    for point in 0..points {
        // It gets on by at least a group, and then some.
        let moved = (0..PATIENCE).any(|_| {
            std::thread::sleep(Duration::from_micros(200));
            running.told().last > last
        });
        assert!(moved, "the child stands still at {last}");
        std::thread::sleep(Duration::from_micros(rng.range(0, 4000)));
        let crashed = tempfile::tempdir().unwrap();
        let told = running.told();
        running.freeze();
        copy(live.path(), crashed.path());
        running.signal("-CONT");
        if power {
            lose_power(crashed.path(), told, &mut rng);
        }
        last = told.last;
        println!("point {point}: {last} acknowledged");
        beyond += check(crashed.path(), told, power).await;
    }
    println!("{points} points, {last} messages acknowledged, {beyond} more found");
}

#[tokio::test]
async fn a_process_that_ends_anywhere_loses_nothing_acknowledged() {
    crash(false).await;
}

#[tokio::test]
async fn a_power_loss_anywhere_takes_nothing_that_was_flushed() {
    crash(true).await;
}
