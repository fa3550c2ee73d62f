//! Names of prompt blocks: each hash binds the tenant, the prompt's contract, and all tokens up to
//! the end of the block, so that an equal name means an equal prefix of the same tenant.

use core::fmt;

use cereus_core::lookup::LookupKey;
use sha2::{Digest as _, Sha256};

const LABEL: &[u8] = b"darkbloom.prefix-block-chain.v1";

/// Whose prompts may share: the tenant's salt. Without one nothing is looked up or kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Scope(Box<[u8]>);

impl Scope {
    /// `None` for an empty salt, which would be everybody's.
    #[must_use]
    pub fn new(salt: &[u8]) -> Option<Self> {
        (!salt.is_empty()).then(|| Self(salt.into()))
    }

    /// For the names of what a tenant keeps beside its prompts.
    #[cfg(feature = "mlx")]
    pub(crate) fn salt(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({} bytes)", self.0.len())
    }
}

/// The name of a full block and of everything before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

impl LookupKey for BlockHash {
    fn bits(self) -> u128 {
        let head = self.0.first_chunk().expect("16 of 32 bytes");
        u128::from_be_bytes(*head)
    }
}

/// The hashes of one sequence, block by block, as its tokens come. Each covers the one before it, the
/// tenant's scope and the contract of the prompt, so equal hashes mean an equal past of one tenant.
#[derive(Clone)]
pub struct Chain {
    /// The constant head of each block's input.
    seed: Sha256,
    block_tokens: u32,
    parent: [u8; 32],
    index: u32,
    /// The block under way, and its tokens so far.
    open: Sha256,
    open_tokens: u32,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chain({} blocks)", self.index)
    }
}

impl Chain {
    /// `contract` names the tokeniser and the template that made the tokens.
    ///
    /// # Panics
    /// When a block has no tokens.
    #[must_use]
    pub fn new(contract: &[u8], scope: &Scope, block_tokens: u32) -> Self {
        assert!(block_tokens > 0, "a block has tokens");
        let mut seed = Sha256::new_with_prefix(LABEL);
        for item in [contract, &scope.0] {
            let size = u32::try_from(item.len()).expect("an id is shorter than 4 GiB");
            seed.update(size.to_be_bytes());
            seed.update(item);
        }
        let mut chain = Self {
            open: seed.clone(),
            seed,
            block_tokens,
            parent: [0; 32],
            index: 0,
            open_tokens: 0,
        };
        chain.begin();
        chain
    }

    /// Takes the sequence's next tokens and appends the hash of each block that they fill.
    pub fn extend(&mut self, tokens: &[u32], out: &mut Vec<BlockHash>) {
        for token in tokens {
            self.open.update(token.to_be_bytes());
            self.open_tokens += 1;
            if self.open_tokens == self.block_tokens {
                let open = core::mem::replace(&mut self.open, self.seed.clone());
                self.parent = open.finalize().into();
                out.push(BlockHash(self.parent));
                self.index += 1;
                self.begin();
            }
        }
    }

    fn begin(&mut self) {
        self.open.update(self.parent);
        self.open.update(self.index.to_be_bytes());
        self.open_tokens = 0;
    }
}
