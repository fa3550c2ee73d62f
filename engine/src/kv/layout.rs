//! How a model's keys and values are cut into pages, and what that costs in bytes.

use core::num::NonZeroU32;

use thiserror::Error;

/// Groups of one model: its full attention and its distinct windows. The models we know have two.
pub const GROUPS_MAX: usize = 8;

/// Layers that keep the same positions and so share a page table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// A query sees so many positions, its own included; `None` sees all.
    pub window_tokens: Option<NonZeroU32>,
    /// One page over all layers of the group, keys and values.
    pub bytes_per_page: u64,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    pub page_tokens: u32,
    /// What is hashed, shared and forgotten as one; a multiple of the page.
    pub block_tokens: u32,
    pub groups: Vec<Group>,
    /// Constant-size state of a row in recurrent layers; 0 when there are none.
    pub state_bytes: u64,
    /// All that pages and states may take together. The poison page of each group comes on top.
    pub grant_bytes: u64,
}

/// A layout that no ledger can keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LayoutError {
    #[error("block_tokens must be a multiple of page_tokens, not 0")]
    BlockNotOfPages,
    #[error("bytes_per_page of each group must be at least 1")]
    FreePages,
    #[error("a layout needs a group of layers or a recurrent state")]
    Nothing,
    #[error("page_tokens must be at least 1")]
    NoTokens,
    #[error("a layout has at most {GROUPS_MAX} groups of layers")]
    TooManyGroups,
}

impl KvLayout {
    /// Tokens of a page: the unit in which memory is given out. A row wastes less than one page.
    pub const PAGE_TOKENS: u32 = 16;
    /// Tokens of a block. The reference has 256; 64 reuses more of short prompts.
    pub const BLOCK_TOKENS: u32 = 64;

    /// A model whose layers all see everything.
    #[must_use]
    pub fn full_attention(bytes_per_token: u64, grant_bytes: u64) -> Self {
        Self {
            page_tokens: Self::PAGE_TOKENS,
            block_tokens: Self::BLOCK_TOKENS,
            groups: vec![Group {
                window_tokens: None,
                bytes_per_page: bytes_per_token.saturating_mul(u64::from(Self::PAGE_TOKENS)),
            }],
            state_bytes: 0,
            grant_bytes,
        }
    }

    pub fn check(&self) -> Result<(), LayoutError> {
        if self.page_tokens == 0 {
            return Err(LayoutError::NoTokens);
        }
        if self.block_tokens == 0 || !self.block_tokens.is_multiple_of(self.page_tokens) {
            return Err(LayoutError::BlockNotOfPages);
        }
        if self.groups.len() > GROUPS_MAX {
            return Err(LayoutError::TooManyGroups);
        }
        if self.groups.is_empty() && self.state_bytes == 0 {
            return Err(LayoutError::Nothing);
        }
        if self.groups.iter().any(|group| group.bytes_per_page == 0) {
            return Err(LayoutError::FreePages);
        }
        Ok(())
    }

    /// The most pages of `group` that a row of `tokens` holds at once, when no step writes more than
    /// `step_tokens` of it. A window keeps what the first query of a step still sees and what the
    /// step writes, a run that may begin anywhere in a page.
    #[must_use]
    pub fn pages(&self, group: usize, tokens: u32, step_tokens: u32) -> u64 {
        let page = u64::from(self.page_tokens);
        let all = u64::from(tokens).div_ceil(page);
        match self.groups[group].window_tokens {
            None => all,
            Some(window) => {
                let run = u64::from(window.get()) - 1 + u64::from(step_tokens.max(1));
                all.min((run - 1).div_ceil(page) + 1)
            }
        }
    }

    /// The most bytes that a row of `tokens` holds at once.
    #[must_use]
    pub fn bytes(&self, tokens: u32, step_tokens: u32) -> u64 {
        let pages = |group| {
            let pages = self.pages(group, tokens, step_tokens);
            pages.saturating_mul(self.groups[group].bytes_per_page)
        };
        let groups = 0..self.groups.len();
        groups.fold(self.state_bytes, |sum, group| {
            sum.saturating_add(pages(group))
        })
    }

    /// What one more page's worth of a long row costs, by which bytes are reported as tokens: the
    /// groups that grow without end, or all of them when none does.
    #[must_use]
    pub fn bytes_per_page_of_row(&self) -> u64 {
        let of = |group: &Group| group.bytes_per_page;
        let full = self
            .groups
            .iter()
            .filter(|group| group.window_tokens.is_none());
        let full: u64 = full.map(of).fold(0, u64::saturating_add);
        if full > 0 {
            return full;
        }
        let all = self.groups.iter().map(of).fold(0, u64::saturating_add);
        if all > 0 { all } else { self.state_bytes }
    }

    /// All layers see all positions and nothing else is kept of a row: whoever has a block's pages and
    /// those of the blocks before it goes on from there.
    #[must_use]
    pub fn is_full_attention(&self) -> bool {
        let is_one = matches!(
            self.groups[..],
            [Group {
                window_tokens: None,
                ..
            }]
        );
        is_one && self.state_bytes == 0
    }

    /// Bytes of a block in all groups.
    #[must_use]
    pub fn block_bytes(&self) -> u64 {
        let page: u64 = self.groups.iter().map(|group| group.bytes_per_page).sum();
        page.saturating_mul(u64::from(self.block_pages()))
    }

    pub(crate) const fn block_pages(&self) -> u32 {
        self.block_tokens / self.page_tokens
    }
}
