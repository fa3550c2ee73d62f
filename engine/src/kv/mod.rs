//! Where keys and values live: pages under one grant of bytes, and which of them may be read again.
//!
//! Pure books: nobody here touches a tensor. The scheduler asks for room, the tensor side reads the
//! page tables. A page is in two tables only when its block is full and will not be written again;
//! whoever writes into such a page gets a copy of its own first.
#![deny(clippy::disallowed_types, clippy::disallowed_methods)]

mod chain;
pub mod disk;
mod index;
mod layout;
mod ledger;
mod pool;
#[cfg(test)]
pub(crate) mod tests;

pub use chain::{BlockHash, Chain, Scope};
pub use layout::{GROUPS_MAX, Group, KvLayout, LayoutError};
pub use ledger::{Adopted, HitLimit, KvLimits, Ledger, TakenIn};

/// A page of one group: dense from 0, reused, so that the tensor side can index by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

impl PageId {
    /// Padding and rows that do nothing point here; no row ever writes it.
    pub const POISON: Self = Self(0);
    /// Stands in a table for a page that slid out of the window.
    pub const NONE: Self = Self(u32::MAX);
}

/// A saved recurrent state: dense from 0, reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId(pub u32);

/// The tensor side copies a page before the step that writes into the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageCopy {
    /// Index into [`KvLayout::groups`].
    pub group: u8,
    pub from: PageId,
    pub to: PageId,
}
