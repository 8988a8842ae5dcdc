//! Signed revocations, kept so that they can be told again: whoever tells of a revocation forgets it
//! after a while, and whoever joins later must still hear of it.
//!
//! Each proof is due at a time of its own. Whoever hears it from somebody else in the meantime puts its
//! own turn off, so that in a whole network each is told about once a period.
//!
//! The file is nothing but the proofs one after the other, each with its length in front. Since each
//! proves itself, what is damaged is left out and the rest stands.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use x0x_core::WallTime;
use x0x_identity::{
    MAX_SIGNED_REVOCATION, SignedRevocation, Subject,
    private_file::{self, Access, FileError},
};

/// Most proofs kept. When there are more, the oldest that has nothing to do with a contact makes room.
pub const MAX_PROOFS: usize = 256;
/// Largest file in bytes.
const MAX_FILE: usize = MAX_PROOFS * (MAX_SIGNED_REVOCATION + 4);

#[derive(Debug, Clone)]
struct Proof {
    revocation: SignedRevocation,
    due: WallTime,
}

/// The proofs of one installation, the oldest first.
#[derive(Debug, Clone, Default)]
pub struct Proofs {
    kept: Vec<Proof>,
}

impl Proofs {
    /// Reads the proofs in a file and verifies each, which takes a tenth of a millisecond; all are due
    /// at `due`. Blocks on the file system.
    ///
    /// # Errors
    /// [`FileError`] when the disk fails, or when other users may read or change the file. A damaged
    /// one is no error.
    pub fn load(path: &Path, due: WallTime) -> Result<Self, FileError> {
        let bytes = private_file::read(path, MAX_FILE)?.unwrap_or_default();
        let revocations = decode(&bytes).into_iter();
        Ok(Self { kept: revocations.map(|revocation| Proof { revocation, due }).collect() })
    }

    /// The revocations.
    pub fn revocations(&self) -> impl Iterator<Item = &SignedRevocation> {
        self.kept.iter().map(|proof| &proof.revocation)
    }

    /// Whether there is a proof of this revocation.
    #[must_use]
    pub fn contains(&self, subject: &Subject) -> bool {
        self.revocations().any(|known| known.revocation().subject == *subject)
    }

    /// Keeps a proof, which is due at `due`; whether it is new. `concerns` says whose must not make room.
    pub fn keep(
        &mut self,
        revocation: SignedRevocation,
        due: WallTime,
        concerns: impl Fn(&Subject) -> bool,
    ) -> bool {
        let subject = revocation.revocation().subject;
        if self.contains(&subject) {
            return false;
        }
        if self.kept.len() >= MAX_PROOFS {
            let of_stranger = |proof: &Proof| !concerns(&proof.revocation.revocation().subject);
            match self.kept.iter().position(of_stranger) {
                Some(oldest) => drop(self.kept.remove(oldest)),
                None => return false,
            }
        }
        self.kept.push(Proof { revocation, due });
        true
    }

    /// Somebody told the proof with this encoding: its turn is put off to `due`. False when it is not
    /// one that is kept, byte for byte: nobody silences a proof by another message about its subject.
    pub fn told(&mut self, encoded: &Bytes, due: WallTime) -> bool {
        let proof = self.kept.iter_mut().find(|proof| proof.revocation.encode() == *encoded);
        proof.map(|proof| proof.due = due).is_some()
    }

    /// The proofs that are due at `now`.
    #[must_use]
    pub fn due(&self, now: WallTime) -> Vec<SignedRevocation> {
        let due = self.kept.iter().filter(|proof| proof.due <= now);
        due.map(|proof| proof.revocation.clone()).collect()
    }

    /// The bytes of a file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for revocation in self.revocations() {
            let encoded = revocation.encode();
            // At most `MAX_SIGNED_REVOCATION`.
            let length = u32::try_from(encoded.len()).unwrap_or(u32::MAX);
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(&encoded);
        }
        bytes
    }
}

fn decode(mut bytes: &[u8]) -> Vec<SignedRevocation> {
    let mut proofs: Vec<SignedRevocation> = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let Some((proof, rest)) = rest.split_at_checked(length) else { break };
        bytes = rest;
        let verified = SignedRevocation::decode(proof).ok().and_then(|proof| proof.verify().ok());
        if let Some(proof) = verified.filter(|_| proofs.len() < MAX_PROOFS) {
            proofs.push(proof);
        }
    }
    proofs
}

/// Where the proofs of an installation are kept.
#[derive(Debug, Clone)]
pub struct ProofsFile(PathBuf);

impl ProofsFile {
    /// The file at `path`, whose folder is there.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// As [`Proofs::load`].
    ///
    /// # Errors
    /// [`FileError`].
    pub fn load(&self, due: WallTime) -> Result<Proofs, FileError> {
        Proofs::load(&self.0, due)
    }

    /// Writes the proofs, whole or not at all. Blocks on the file system.
    ///
    /// # Errors
    /// [`FileError`]; the old file is there then.
    pub fn save(&self, proofs: &Proofs) -> Result<(), FileError> {
        private_file::replace(&self.0, &proofs.encode(), Access::Owner)
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::time::Duration;

    use x0x_identity::testing::key;

    use super::*;

    const NOW: WallTime = WallTime::from_millis(1_800_000_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn proof(n: u64) -> SignedRevocation {
        SignedRevocation::of_agent(&key(n), NOW, "lost").expect("short")
    }

    #[test]
    fn a_proof_is_due_in_its_turn_and_put_off_by_whoever_tells_it() {
        let mut proofs = Proofs::default();
        assert!(proofs.keep(proof(1), NOW + HOUR, |_| false));
        assert!(!proofs.keep(proof(1), NOW, |_| false), "kept already");
        assert!(proofs.due(NOW).is_empty());
        assert_eq!(proofs.due(NOW + HOUR).len(), 1);
        let told = proofs.due(NOW + HOUR)[0].encode();
        assert!(proofs.told(&told, NOW + HOUR * 20));
        assert!(proofs.due(NOW + HOUR).is_empty());
        let other = SignedRevocation::of_agent(&key(1), NOW + HOUR, "").expect("short").encode();
        assert!(!proofs.told(&other, NOW + HOUR * 99), "about the same, but not the same");
        let mut forged = told.to_vec();
        forged[9] ^= 1;
        assert!(!proofs.told(&forged.into(), NOW + HOUR * 99));
        assert_eq!(proofs.due(NOW + HOUR * 20).len(), 1);
    }

    #[test]
    fn contacts_make_room_for_nobody() {
        let mut proofs = Proofs::default();
        let contact = proof(0).revocation().subject;
        for n in 0..MAX_PROOFS as u64 + 3 {
            assert!(proofs.keep(proof(n), NOW, |subject| *subject == contact));
        }
        assert_eq!(proofs.revocations().count(), MAX_PROOFS);
        assert!(proofs.contains(&contact));
        assert!(!proofs.contains(&proof(1).revocation().subject), "the oldest stranger");
        assert!(!proofs.keep(proof(9999), NOW, |_| true), "nobody may go");
    }

    #[test]
    fn a_damaged_file_loses_what_is_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("revocations.bin");
        let file = ProofsFile::at(&path);
        assert_eq!(file.load(NOW).expect("none yet").revocations().count(), 0);
        let mut proofs = Proofs::default();
        for n in 0..3 {
            proofs.keep(proof(n), NOW, |_| false);
        }
        file.save(&proofs).expect("written");
        let loaded = file.load(NOW + HOUR).expect("read");
        assert!(loaded.revocations().eq(proofs.revocations()));
        assert_eq!((loaded.due(NOW).len(), loaded.due(NOW + HOUR).len()), (0, 3));

        let whole = proofs.encode();
        let one = whole.len() / 3;
        for cut in (0..whole.len()).step_by(97) {
            assert_eq!(decode(&whole[..cut]).len(), cut / one, "cut at {cut}");
        }
        for at in (0..whole.len()).step_by(211) {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            let left = decode(&flipped);
            let first = at / one;
            assert!(left.len() >= first, "flipped at {at}");
            assert!(left.iter().all(|proof| proofs.revocations().any(|known| known == proof)));
        }
    }
}
