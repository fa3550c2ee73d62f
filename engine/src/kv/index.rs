//! Which blocks can be read again: from a block's hash to its pages and its saved state.
//!
//! An entry has a part for each group and one for the state. A part that holds something nobody
//! uses stands in its kind's list, least recently used first; the ledger takes parts from there when
//! it needs their room. The index owns no page: holders are counted in the pools.

use cereus_core::lookup::Lookup;

use super::{BlockHash, PageId};

/// Place of a part in the table; reused once the part is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PartIx(pub(super) u32);

impl PartIx {
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// Where an entry lives. Reused, so nobody keeps one across a change of the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryIx(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Part {
    entry: u32,
    kind: u8,
    /// Pages of it that some table names.
    held: u32,
    /// When it was last put at its list's end.
    stamp: u64,
    previous: PartIx,
    next: PartIx,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct List {
    first: PartIx,
    last: PartIx,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Index {
    by_hash: Lookup<BlockHash>,
    hashes: Vec<BlockHash>,
    /// By entry, then by kind.
    parts_of: Vec<PartIx>,
    free_entries: Vec<u32>,
    parts: Vec<Part>,
    /// By part: a block's pages, or one saved state.
    items: Vec<u32>,
    free_parts: Vec<PartIx>,
    lists: Vec<List>,
    stamp: u64,
    block_pages: u32,
}

impl Index {
    pub(super) fn new(groups: usize, block_pages: u32) -> Self {
        let empty = List {
            first: PartIx::NONE,
            last: PartIx::NONE,
        };
        Self {
            by_hash: Lookup::default(),
            hashes: Vec::new(),
            parts_of: Vec::new(),
            free_entries: Vec::new(),
            parts: Vec::new(),
            items: Vec::new(),
            free_parts: Vec::new(),
            lists: vec![empty; groups + 1],
            stamp: 0,
            block_pages,
        }
    }

    /// The kind of part that is a saved state; below it are the groups.
    pub(super) fn state_kind(&self) -> usize {
        self.lists.len() - 1
    }

    pub(super) fn find(&self, hash: BlockHash) -> Option<EntryIx> {
        self.by_hash.get(hash).map(EntryIx)
    }

    pub(super) fn find_or_enter(&mut self, hash: BlockHash) -> EntryIx {
        self.find(hash).unwrap_or_else(|| self.enter(hash))
    }

    /// An entry for a hash that has none.
    pub(super) fn enter(&mut self, hash: BlockHash) -> EntryIx {
        let kinds = self.lists.len();
        let entry = if let Some(entry) = self.free_entries.pop() {
            self.hashes[entry as usize] = hash;
            entry
        } else {
            let entry = u32::try_from(self.hashes.len()).expect("entries are fewer than pages");
            self.hashes.push(hash);
            self.parts_of
                .resize(self.parts_of.len() + kinds, PartIx::NONE);
            entry
        };
        self.by_hash.insert(hash, entry);
        EntryIx(entry)
    }

    pub(super) fn part(&self, entry: EntryIx, kind: usize) -> Option<PartIx> {
        let part = self.parts_of[entry.0 as usize * self.lists.len() + kind];
        (part != PartIx::NONE).then_some(part)
    }

    /// Adds a part whose items are all held by the tables that they come from.
    pub(super) fn add_pages(
        &mut self,
        entry: EntryIx,
        group: usize,
        pages: impl Iterator<Item = PageId>,
    ) -> PartIx {
        let part = self.new_part(entry, group, self.block_pages);
        let at = self.at(part);
        let mut count = 0;
        for (ix, page) in pages.enumerate() {
            self.items[at + ix] = page.0;
            count += 1;
        }
        assert_eq!(
            count, self.block_pages,
            "a block is a whole number of pages"
        );
        part
    }

    /// Adds a saved state, which nobody holds.
    pub(super) fn add_state(&mut self, entry: EntryIx, state: u32) {
        let part = self.new_part(entry, self.state_kind(), 0);
        let at = self.at(part);
        self.items[at] = state;
        self.append(part);
    }

    pub(super) fn page(&self, part: PartIx, ix: u32) -> PageId {
        assert!(ix < self.block_pages, "a block has so many pages");
        PageId(self.items[self.at(part) + ix as usize])
    }

    pub(super) fn state(&self, part: PartIx) -> u32 {
        self.items[self.at(part)]
    }

    /// Counts a page of the part, held by nobody until now, as held by a row.
    pub(super) fn page_held(&mut self, part: PartIx) {
        let held = &mut self.parts[part.0 as usize].held;
        *held += 1;
        assert!(*held <= self.block_pages, "no more pages than a block has");
        if *held == self.block_pages {
            self.unlink(part);
        }
    }

    /// Counts a page of the part as held by no row any more.
    pub(super) fn page_idle(&mut self, part: PartIx) {
        let held = &mut self.parts[part.0 as usize].held;
        let was_whole = *held == self.block_pages;
        *held = held.checked_sub(1).expect("a held page goes idle");
        if was_whole {
            self.append(part);
        }
    }

    /// A listed part was read: it is the most recently used.
    pub(super) fn touch(&mut self, part: PartIx) {
        self.unlink(part);
        self.append(part);
    }

    /// The part is the most recently used, if something unused is in it.
    pub(super) fn refresh(&mut self, part: PartIx) {
        if self.parts[part.0 as usize].held < self.block_pages {
            self.touch(part);
        }
    }

    /// Parts that are put at their list's end from now on have a higher one.
    pub(super) const fn stamp(&self) -> u64 {
        self.stamp
    }

    /// The part of this kind that went unused the longest, and since when.
    pub(super) fn oldest(&self, kind: usize) -> Option<(u64, PartIx)> {
        let first = self.lists[kind].first;
        (first != PartIx::NONE).then(|| (self.parts[first.0 as usize].stamp, first))
    }

    /// The part that went unused the longest of all, and its kind.
    pub(super) fn oldest_of_all(&self) -> Option<PartIx> {
        let kinds = 0..self.lists.len();
        kinds
            .filter_map(|kind| self.oldest(kind))
            .min_by_key(|found| found.0)
            .map(|found| found.1)
    }

    pub(super) fn kind(&self, part: PartIx) -> usize {
        usize::from(self.parts[part.0 as usize].kind)
    }

    /// Forgets a part, and the entry with its last.
    pub(super) fn remove(&mut self, part: PartIx) {
        let Part {
            entry, kind, held, ..
        } = self.parts[part.0 as usize];
        if usize::from(kind) == self.state_kind() || held < self.block_pages {
            self.unlink(part);
        }
        self.free_parts.push(part);
        let kinds = self.lists.len();
        let at = entry as usize * kinds;
        self.parts_of[at + usize::from(kind)] = PartIx::NONE;
        let is_empty = self.parts_of[at..at + kinds]
            .iter()
            .all(|&part| part == PartIx::NONE);
        if is_empty {
            let removed = self.by_hash.remove(self.hashes[entry as usize]);
            assert_eq!(removed, Some(entry), "an entry is found by its hash");
            self.free_entries.push(entry);
        }
    }

    pub(super) const fn block_pages(&self) -> u32 {
        self.block_pages
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.by_hash.count()
    }

    #[cfg(test)]
    pub(super) fn held(&self, part: PartIx) -> u32 {
        self.parts[part.0 as usize].held
    }

    /// The parts of a kind that something unused is in, least recently used first.
    #[cfg(test)]
    pub(super) fn listed(&self, kind: usize) -> Vec<PartIx> {
        let mut listed = Vec::new();
        let mut part = self.lists[kind].first;
        while part != PartIx::NONE {
            listed.push(part);
            part = self.parts[part.0 as usize].next;
        }
        listed
    }

    fn new_part(&mut self, entry: EntryIx, kind: usize, held: u32) -> PartIx {
        let new = Part {
            entry: entry.0,
            kind: u8::try_from(kind).expect("groups are few"),
            held,
            stamp: 0,
            previous: PartIx::NONE,
            next: PartIx::NONE,
        };
        let part = if let Some(part) = self.free_parts.pop() {
            self.parts[part.0 as usize] = new;
            part
        } else {
            let part = PartIx(u32::try_from(self.parts.len()).expect("parts are bounded by bytes"));
            self.parts.push(new);
            let items = self.items.len() + self.block_pages as usize;
            self.items.resize(items, PageId::NONE.0);
            part
        };
        let place = &mut self.parts_of[entry.0 as usize * self.lists.len() + kind];
        assert_eq!(*place, PartIx::NONE, "an entry has one part of a kind");
        *place = part;
        part
    }

    const fn at(&self, part: PartIx) -> usize {
        part.0 as usize * self.block_pages as usize
    }

    fn append(&mut self, part: PartIx) {
        self.stamp += 1;
        let list = &mut self.lists[usize::from(self.parts[part.0 as usize].kind)];
        let last = core::mem::replace(&mut list.last, part);
        if last == PartIx::NONE {
            list.first = part;
        } else {
            self.parts[last.0 as usize].next = part;
        }
        let moved = &mut self.parts[part.0 as usize];
        moved.previous = last;
        moved.next = PartIx::NONE;
        moved.stamp = self.stamp;
    }

    fn unlink(&mut self, part: PartIx) {
        let Part {
            kind,
            previous,
            next,
            ..
        } = self.parts[part.0 as usize];
        let list = &mut self.lists[usize::from(kind)];
        if previous == PartIx::NONE {
            assert_eq!(list.first, part, "only a listed part is unlinked");
            list.first = next;
        } else {
            self.parts[previous.0 as usize].next = next;
        }
        if next == PartIx::NONE {
            list.last = previous;
        } else {
            self.parts[next.0 as usize].previous = previous;
        }
    }
}
