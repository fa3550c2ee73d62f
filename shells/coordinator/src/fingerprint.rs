//! Short texts by which people compare public keys by eye.

use std::fmt::Write as _;

use orion::hash::digest;

/// Bytes of a fingerprint: enough to tell keys apart by eye, not to replace them.
const BYTES: usize = 8;

/// The first bytes of a key's BLAKE2b, as `ab12:cd34:...`.
pub(crate) fn fingerprint(key: &[u8; 32]) -> String {
    let hash = digest(key).expect("BLAKE2b takes 32 bytes");
    let mut text = String::new();
    for (ix, byte) in hash.as_ref().iter().take(BYTES).enumerate() {
        let colon = if ix > 0 && ix % 2 == 0 { ":" } else { "" };
        let _ = write!(text, "{colon}{byte:02x}");
    }
    text
}
