//! Names for the blocks of a modelled prompt, which has no tokens to hash.

use cereus_core::digest::Mix;
use cereus_engine::kv::BlockHash;

use crate::workload;

/// Appends the names of a prompt's full blocks of `block_tokens`, as far as `blocks` names what they
/// lie in ([`workload::Arrival::blocks`]). Equal names mean prompts that are equal up to there.
pub fn names(blocks: &[u64], prompt_tokens: u32, block_tokens: u32, out: &mut Vec<BlockHash>) {
    for ix in 0..prompt_tokens / block_tokens {
        let last_token = (ix + 1) * block_tokens - 1;
        let Some(&around) = blocks.get((last_token / workload::BLOCK_TOKENS) as usize) else {
            return;
        };
        // The head is what lookups spread by; the rest tells any two apart.
        let head = Mix::of(&[around, u64::from(ix)]);
        let mut name = [0; 32];
        name[..16].copy_from_slice(&head.to_le_bytes());
        name[16..24].copy_from_slice(&around.to_le_bytes());
        name[24..28].copy_from_slice(&ix.to_le_bytes());
        out.push(BlockHash(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(blocks: &[u64], prompt_tokens: u32, block_tokens: u32) -> Vec<BlockHash> {
        let mut out = Vec::new();
        names(blocks, prompt_tokens, block_tokens, &mut out);
        out
    }

    #[test]
    fn prompts_share_names_up_to_the_first_block_that_differs() {
        let one = of(&[1, 2, 3], 1_500, 64);
        let other = of(&[1, 2, 4], 1_500, 64);
        assert_eq!(one.len(), 23, "only full blocks have names");
        let shared = one.iter().zip(&other).filter(|(one, other)| one == other);
        assert_eq!(shared.count(), 16);
        let distinct: std::collections::BTreeSet<_> = one.iter().chain(&other).collect();
        assert_eq!(distinct.len(), 23 + 7);
    }

    #[test]
    fn what_the_trace_does_not_name_has_no_name() {
        assert_eq!(of(&[], 1_500, 64), []);
        assert_eq!(of(&[1], 1_500, 64).len(), 8);
        // A block across two of the trace's has the name of the later.
        assert_eq!(of(&[1], 1_500, 100).len(), 5);
        assert_eq!(of(&[1, 2], 1_500, 100)[..5], of(&[1], 1_500, 100));
    }
}
