//! How handshakes are hidden from who is not a member.
//!
//! MLS can encrypt a handshake with the sender's ratchet, whose position a restored backup would take
//! again. Ours are MLS PublicMessages, sealed with XChaCha20-Poly1305 under a key that the epoch
//! exports. The nonce is a hash of the key and of all that is sealed: two handshakes never share one,
//! whatever this member has forgotten, and a commit has one sealed form, hence one id.

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
pub(crate) const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;
const DOMAIN: &str = "x0x.mls.handshake.nonce.1";

fn nonce(key: &[u8; KEY_LEN], header: &[u8], message: &[u8]) -> [u8; NONCE_LEN] {
    let digest = Sha256::new()
        .chain_update(DOMAIN)
        .chain_update(key)
        .chain_update((header.len() as u64).to_be_bytes())
        .chain_update(header)
        .chain_update(message)
        .finalize();
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&digest[..NONCE_LEN]);
    nonce
}

/// Seals a handshake. `None` only if it is larger than the cipher can take.
pub(crate) fn seal(key: &[u8; KEY_LEN], header: &[u8], message: &[u8]) -> Option<Vec<u8>> {
    let nonce = nonce(key, header, message);
    let cipher = XChaCha20Poly1305::new(key.into());
    let sealed =
        cipher.encrypt(&XNonce::from(nonce), Payload { msg: message, aad: header }).ok()?;
    Some([nonce.as_slice(), &sealed].concat())
}

/// Opens a sealed handshake; `None` when it is not one under this key and header, in its one form.
pub(crate) fn open(
    key: &[u8; KEY_LEN],
    header: &[u8],
    sealed: &[u8],
) -> Option<Zeroizing<Vec<u8>>> {
    let (given, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: sealed, aad: header };
    let message = Zeroizing::new(cipher.decrypt(&XNonce::from(*given), payload).ok()?);
    (*given == nonce(key, header, &message)).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_has_one_sealed_form() {
        let key = [7; KEY_LEN];
        let sealed = seal(&key, b"header", b"commit").expect("small");
        assert_eq!(sealed, seal(&key, b"header", b"commit").expect("small"));
        assert_eq!(open(&key, b"header", &sealed).expect("opens").as_slice(), b"commit");
        assert!(open(&key, b"other", &sealed).is_none());
        assert!(open(&[8; KEY_LEN], b"header", &sealed).is_none());
        assert!(open(&key, b"header", &sealed[..20]).is_none());

        // The same commit under another nonce opens as a cipher text and is refused all the same.
        let cipher = XChaCha20Poly1305::new((&key).into());
        let other = XNonce::from([1; NONCE_LEN]);
        let payload = Payload { msg: b"commit".as_slice(), aad: b"header".as_slice() };
        let resealed =
            [[1; NONCE_LEN].as_slice(), &cipher.encrypt(&other, payload).unwrap()].concat();
        assert!(open(&key, b"header", &resealed).is_none());
    }
}
