//! An export opens with its passphrase and with nothing else.

use std::time::Duration;

use proptest::prelude::*;
use x0x_core::WallTime;

use super::*;
use crate::{
    SignedCertificate,
    testing::{kem_key, key},
};

/// The least that Argon2 takes, since these tests are about the format.
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const PASSPHRASE: &str = "correct horse";

fn keys(certified: bool) -> AgentKeys {
    let agent = key(1);
    let certificate = certified.then(|| {
        let id = agent.public_key().agent_id();
        let now = WallTime::from_millis(1_800_000_000_000);
        let issued = SignedCertificate::issue(&key(50), id, now, Duration::from_secs(60));
        AcceptedCertificate::accept(&agent, issued).expect("its own")
    });
    AgentKeys { agent, kem: kem_key(1), generation: 7, certificate }
}

#[test]
fn keys_come_back_whole() {
    for certified in [false, true] {
        let sent = keys(certified);
        let file = sent.export_at(PASSPHRASE, CHEAP).expect("exported");
        assert!(file.len() <= MAX_EXPORT && file.starts_with(MAGIC));
        let read = AgentKeys::import(&file, PASSPHRASE).expect("opens");
        assert_eq!(read.agent.public_key(), sent.agent.public_key());
        assert_eq!(read.kem.public_key(), sent.kem.public_key());
        assert_eq!((read.generation, read.certificate), (7, sent.certificate));
        let seed = &sent.agent.to_pkcs8()[22..];
        assert!(!file.windows(seed.len()).any(|window| window == seed));
    }
}

#[test]
fn the_standard_cost_is_used_and_accepted() {
    let file = keys(false).export(PASSPHRASE).expect("exported");
    let message = ExportFile::decode(&file[MAGIC.len()..]).expect("own form");
    assert_eq!((message.memory_kib, message.passes, message.lanes), (64 * 1024, 3, 1));
    AgentKeys::import(&file, PASSPHRASE).expect("opens");
}

#[test]
fn what_does_not_open_is_told() {
    let file = keys(true).export_at(PASSPHRASE, CHEAP).expect("exported");
    let refused = |file: &[u8], passphrase: &str| AgentKeys::import(file, passphrase).map(|_| ());
    assert_eq!(refused(&file, "correct Horse"), Err(ImportError::Passphrase));
    assert_eq!(refused(b"something", PASSPHRASE), Err(ImportError::NotAnExport));
    let weak = keys(false).export("seven77").map(|_| ());
    assert_eq!(weak, Err(ExportError::ShortPassphrase { min: MIN_PASSPHRASE }));

    let with = |change: fn(&mut ExportFile)| {
        let mut message = ExportFile::decode(&file[MAGIC.len()..]).expect("own form");
        change(&mut message);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(message.encode_to_vec());
        refused(&bytes, PASSPHRASE)
    };
    let cost = Err(DecodeError::Field("cost").into());
    assert_eq!(
        with(|f| f.memory_kib = u32::MAX),
        cost,
        "no file makes the reader run out of memory"
    );
    assert_eq!(with(|f| f.passes = u32::MAX), cost);
    assert_eq!(with(|f| f.lanes = 0), cost);
    assert_eq!(with(|f| f.passes = 2), Err(ImportError::Passphrase), "the cost is authenticated");
    assert_eq!(with(|f| f.salt.truncate(3)), Err(DecodeError::Field("salt").into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_changed_byte_never_opens(position in any::<prop::sample::Index>(), bit in 0_u32..8) {
        let file = keys(true).export_at(PASSPHRASE, CHEAP).expect("exported");
        let mut bad = file.clone();
        // Not the cost itself, which within its bounds only makes the test slow.
        let fixed = MAGIC.len() + 6;
        let at = fixed + position.index(file.len() - fixed);
        bad[at] ^= 1 << bit;
        prop_assert!(AgentKeys::import(&bad, PASSPHRASE).is_err());
        prop_assert!(AgentKeys::import(&file[..at], PASSPHRASE).is_err());
    }
}
