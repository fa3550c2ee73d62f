//! Short texts by which people compare public keys by eye.

use orion::hash::digest;

/// Bytes of a fingerprint: enough to tell keys apart by eye, not to replace them.
const BYTES: usize = 8;

/// The first bytes of a key's BLAKE2b, as `ab12:cd34:...`.
pub(crate) fn fingerprint(key: &[u8; 32]) -> String {
    let hash = digest(key).expect("BLAKE2b takes 32 bytes");
    let pairs = hash.as_ref()[..BYTES].chunks(2).map(hex::encode);
    pairs.collect::<Vec<_>>().join(":")
}
