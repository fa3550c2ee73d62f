//! Grammars that were compiled lately, for the next request of the same tenant with the same
//! form.

use llguidance::Matcher;
use llguidance::toktrie::SimpleVob;

/// Grammars kept.
const KEPT_MAX: usize = 32;
/// Bytes of the sources of all that are kept; what is built of them is some times as large.
const BYTES_MAX: usize = 1 << 20;

/// The newest last.
#[derive(Default)]
pub(super) struct Cache {
    kept: Vec<Kept>,
    bytes: usize,
}

struct Kept {
    key: [u8; 32],
    bytes: usize,
    /// Never moved: answers walk on copies, which share nothing that grows.
    matcher: Matcher,
    mask: SimpleVob,
}

impl Cache {
    pub(super) fn get(&mut self, key: &[u8; 32]) -> Option<(Matcher, SimpleVob)> {
        let place = self.kept.iter().position(|it| it.key == *key)?;
        let found = self.kept.remove(place);
        let copy = (found.matcher.deep_clone(), found.mask.clone());
        self.kept.push(found);
        Some(copy)
    }

    /// Another thread may have put the same there meanwhile.
    pub(super) fn put(&mut self, key: [u8; 32], bytes: usize, matcher: Matcher, mask: SimpleVob) {
        if bytes > BYTES_MAX || self.kept.iter().any(|it| it.key == key) {
            return;
        }
        self.bytes += bytes;
        self.kept.push(Kept {
            key,
            bytes,
            matcher,
            mask,
        });
        while self.kept.len() > KEPT_MAX || self.bytes > BYTES_MAX {
            self.bytes -= self.kept.remove(0).bytes;
        }
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.kept.len()
    }
}
