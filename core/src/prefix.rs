//! The beginning of a prompt by name, so that a request can go to the machine that has computed it before.
//!
//! A prompt is cut into blocks of about 512 tokens, and each block's name depends on all before it: equal
//! names mean prompts that are equal up to there. A request carries the names at some depths only, near
//! one another at the beginning and an octave's quarter apart later, so that it is small and no prompt is
//! too long. Names are keyed by a secret and by whose the prompt is; nobody who sees them can tell the text.

use core::hash::{Hash, Hasher};

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::ids::{AccountId, ModelIx};

/// Of one block, more or less: what it is depends on the tokenizer.
pub const BLOCK_TOKENS: u32 = 512;
/// Bytes of text in a block.
const BLOCK_BYTES: usize = 2_048;
/// Depths one after the other, before they begin to spread.
const NEAR: u16 = 8;
/// Names that a request carries: the last depth is 256 blocks.
pub const NAMES_MAX: usize = 28;

/// Blocks up to the name with this number.
const fn depth(nth: usize) -> u16 {
    let nth = nth as u16;
    if nth < NEAR {
        return nth + 1;
    }
    let (octave, quarter) = ((nth - NEAR) / 4, (nth - NEAR) % 4);
    (NEAR + 2 * (quarter + 1)) << octave
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    names: [u32; NAMES_MAX],
    named: u8,
    /// Full blocks of the prompt, those between the depths too.
    blocks: u16,
}

/// The beginning of a prompt up to a depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    pub name: u32,
    pub blocks: u16,
}

impl Prefix {
    /// Of a prompt of which nothing is known, or that is shorter than a block.
    pub const NONE: Self = Self {
        names: [0; NAMES_MAX],
        named: 0,
        blocks: 0,
    };

    /// Of a prompt's full blocks by their names, each of which depends on all before it.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = u32>) -> Self {
        let mut prefix = Self::NONE;
        for name in names {
            prefix.blocks = prefix.blocks.saturating_add(1);
            let nth = usize::from(prefix.named);
            if nth < NAMES_MAX && depth(nth) == prefix.blocks {
                prefix.names[nth] = name;
                prefix.named += 1;
            }
        }
        prefix
    }

    /// Full blocks of the prompt.
    #[must_use]
    pub const fn blocks(&self) -> u16 {
        self.blocks
    }

    /// What has a name, the shortest first.
    pub fn named(&self) -> impl DoubleEndedIterator<Item = Named> {
        let names = self.names[..usize::from(self.named)].iter();
        names.enumerate().map(|(nth, &name)| Named {
            name,
            blocks: depth(nth),
        })
    }

    /// `None`: there are not as many names as so many blocks have.
    fn from_names(blocks: u16, names: &[u32]) -> Option<Self> {
        let mut prefix = Self::NONE;
        prefix.blocks = blocks;
        let are_due = (0..NAMES_MAX).take_while(|&nth| depth(nth) <= blocks);
        if are_due.count() != names.len() {
            return None;
        }
        prefix.names[..names.len()].copy_from_slice(names);
        prefix.named = u8::try_from(names.len()).ok()?;
        Some(prefix)
    }
}

/// Tells how long it is: names say nothing to a person.
impl core::fmt::Debug for Prefix {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Prefix({} blocks, {} named)", self.blocks, self.named)
    }
}

/// Of what is there alone.
impl Hash for Prefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.blocks.hash(state);
        self.named().for_each(|named| named.name.hash(state));
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.blocks, &self.names[..usize::from(self.named)]).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (blocks, names) = <(u16, Vec<u32>)>::deserialize(deserializer)?;
        let wrong = || D::Error::custom("a prefix has a name for each depth that it reaches");
        Self::from_names(blocks, &names).ok_or_else(wrong)
    }
}

/// What names are keyed by. Drawn anew by each process; it stands in no journal and has no display.
pub struct PrefixSecret(Zeroizing<[u8; 32]>);

impl core::fmt::Debug for PrefixSecret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("PrefixSecret(..)")
    }
}

impl PrefixSecret {
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Begins to name a prompt. Those of two accounts or models have no name in common.
    #[must_use]
    pub fn namer(&self, account: AccountId, model: ModelIx) -> Namer {
        let mut block = Sha256::new();
        block.update(self.0.as_slice());
        block.update(account.0.to_le_bytes());
        block.update(model.0.to_le_bytes());
        Namer {
            start: block.clone(),
            block,
            bytes: 0,
            names: Vec::new(),
        }
    }
}

/// Names a prompt while its text comes.
pub struct Namer {
    start: Sha256,
    block: Sha256,
    /// In the block under way.
    bytes: usize,
    names: Vec<u32>,
}

impl Namer {
    /// A piece of the text; where pieces end makes no difference.
    pub fn push(&mut self, mut text: &[u8]) {
        // Beyond the deepest name nothing is of use.
        while !text.is_empty() && self.names.len() < usize::from(depth(NAMES_MAX - 1)) {
            let (piece, rest) = text.split_at(text.len().min(BLOCK_BYTES - self.bytes));
            self.block.update(piece);
            self.bytes += piece.len();
            text = rest;
            if self.bytes == BLOCK_BYTES {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        let chained = core::mem::replace(&mut self.block, self.start.clone()).finalize();
        self.block.update(chained);
        self.bytes = 0;
        let name = chained.first_chunk().expect("a digest has 32 bytes");
        self.names.push(u32::from_le_bytes(*name));
    }

    #[must_use]
    pub fn end(self) -> Prefix {
        Prefix::of(self.names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &[u8], account: u64) -> Prefix {
        let secret = PrefixSecret::new([7; 32]);
        let mut namer = secret.namer(AccountId(account), ModelIx(0));
        namer.push(text);
        namer.end()
    }

    fn shared(one: &Prefix, other: &Prefix) -> u16 {
        let both = one.named().zip(other.named());
        let equal = both.take_while(|(one, other)| one == other);
        equal.last().map_or(0, |(one, _)| one.blocks)
    }

    #[test]
    fn depths_are_near_at_first_and_then_a_quarter_of_an_octave_apart() {
        let depths: Vec<u16> = (0..NAMES_MAX).map(depth).collect();
        assert_eq!(
            depths[..16],
            [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
        );
        assert_eq!(depths[27], 256);
    }

    #[test]
    fn prompts_share_names_as_far_as_they_are_equal() {
        let long: Vec<u8> = (0..60_000u32).map(|at| (at % 251) as u8).collect();
        let mut other = long.clone();
        other[20_000] ^= 1;
        let (one, two) = (named(&long, 1), named(&other, 1));
        assert_eq!(one.blocks(), 29);
        assert_eq!(shared(&one, &two), 8, "the tenth block differs");
        assert_eq!(shared(&one, &named(&long[..41_000], 1)), 20);
        assert_eq!(shared(&one, &named(&long, 2)), 0, "another's");
        assert_eq!(named(b"short", 1), Prefix::NONE);
    }

    #[test]
    fn where_pieces_end_makes_no_difference() {
        let text: Vec<u8> = (0..9_000u32).map(|at| (at % 13) as u8).collect();
        let secret = PrefixSecret::new([7; 32]);
        let mut namer = secret.namer(AccountId(1), ModelIx(0));
        text.chunks(77).for_each(|piece| namer.push(piece));
        assert_eq!(namer.end(), named(&text, 1));
    }

    #[test]
    fn what_is_longer_than_all_depths_is_named_to_the_last() {
        let prefix = named(&vec![3; 2_048 * 300], 1);
        assert_eq!(prefix.named().count(), NAMES_MAX);
        assert_eq!(prefix.named().last().unwrap().blocks, 256);
    }

    #[test]
    fn a_prefix_reads_back_and_a_wrong_one_is_none() {
        for blocks in [0u32, 1, 9, 40, 300] {
            let prefix = Prefix::of((0..blocks).map(|at| at * 3));
            let bytes = postcard::to_stdvec(&prefix).unwrap();
            assert_eq!(postcard::from_bytes::<Prefix>(&bytes).unwrap(), prefix);
        }
        let wrong = postcard::to_stdvec(&(9u16, vec![1u32; 3])).unwrap();
        assert!(postcard::from_bytes::<Prefix>(&wrong).is_err());
    }
}
