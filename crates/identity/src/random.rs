//! The operating system's random source.

use zeroize::Zeroizing;

/// `N` random bytes, erased when dropped.
///
/// # Panics
/// When the operating system has no randomness to give. No key may be made then, and no caller
/// could do better.
pub(crate) fn random<const N: usize>() -> Zeroizing<[u8; N]> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut_slice()).expect("the operating system provides randomness");
    bytes
}
