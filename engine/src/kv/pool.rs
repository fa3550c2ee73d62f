//! The pages of one group: who holds each, and which are free.

use super::PageId;
use super::index::PartIx;

/// What is known of a page that was handed out at least once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Page {
    /// Tables that name it.
    refs: u32,
    /// The part of the index that it belongs to: it is full and will not be written again.
    part: PartIx,
}

/// A page lost its last holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Let {
    /// Nobody can find it; it is free.
    Free,
    /// The index can still find it, through this part.
    Idle(PartIx),
    /// Another table names it.
    Shared,
}

/// See the module. Ids below the extent have been handed out before; the tensor side needs storage
/// for those alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Pool {
    pages: Vec<Page>,
    /// Last in, first out.
    free: Vec<PageId>,
    /// Pages held or found by the index.
    in_use: u32,
    in_use_max: u32,
}

impl Pool {
    /// Ids are 32 bits, and the last is no page.
    pub(super) const PAGES_MAX: u32 = u32::MAX - 1;

    pub(super) fn new(in_use_max: u32) -> Self {
        let poison = Page {
            refs: 1,
            part: PartIx::NONE,
        };
        Self {
            pages: vec![poison],
            free: Vec::new(),
            in_use: 0,
            in_use_max,
        }
    }

    /// One above the highest id ever handed out; the poison page counts.
    pub(super) fn extent(&self) -> u32 {
        u32::try_from(self.pages.len()).expect("pages are bounded by their limit")
    }

    pub(super) const fn in_use(&self) -> u32 {
        self.in_use
    }

    pub(super) const fn in_use_max(&self) -> u32 {
        self.in_use_max
    }

    pub(super) const fn set_in_use_max(&mut self, in_use_max: u32) {
        self.in_use_max = in_use_max;
    }

    /// Hands out a page to its first holder. The caller has made room.
    pub(super) fn take(&mut self) -> PageId {
        assert!(self.in_use < self.in_use_max, "room was made for a page");
        self.in_use += 1;
        if let Some(id) = self.free.pop() {
            let page = self.page_mut(id);
            assert_eq!(page.refs, 0, "a free page has no holder");
            assert_eq!(page.part, PartIx::NONE, "a free page is not in the index");
            page.refs = 1;
            return id;
        }
        let id = PageId(self.extent());
        assert!(id.0 <= Self::PAGES_MAX, "ids are 32 bits");
        self.pages.push(Page {
            refs: 1,
            part: PartIx::NONE,
        });
        id
    }

    /// One more table names the page. Says whether it had no holder before.
    pub(super) fn hold(&mut self, id: PageId) -> bool {
        let page = self.page_mut(id);
        page.refs += 1;
        page.refs == 1
    }

    /// One table less names the page.
    pub(super) fn let_go(&mut self, id: PageId) -> Let {
        let page = self.page_mut(id);
        page.refs = page.refs.checked_sub(1).expect("only a holder lets go");
        if page.refs > 0 {
            return Let::Shared;
        }
        if page.part == PartIx::NONE {
            self.set_free(id);
            return Let::Free;
        }
        Let::Idle(page.part)
    }

    /// More than one table names it.
    pub(super) fn is_shared(&self, id: PageId) -> bool {
        self.page(id).refs > 1
    }

    pub(super) const fn is_full(&self) -> bool {
        self.in_use >= self.in_use_max
    }

    pub(super) fn part(&self, id: PageId) -> PartIx {
        self.page(id).part
    }

    #[cfg(test)]
    pub(super) fn refs(&self, id: PageId) -> u32 {
        self.page(id).refs
    }

    pub(super) fn enter_part(&mut self, id: PageId, part: PartIx) {
        let page = self.page_mut(id);
        assert_eq!(page.part, PartIx::NONE, "a page is in one part");
        page.part = part;
    }

    /// The index forgets the page, which is free when nobody holds it.
    pub(super) fn leave_part(&mut self, id: PageId, part: PartIx) {
        let page = self.page_mut(id);
        assert_eq!(page.part, part, "the index names the pages of its part");
        page.part = PartIx::NONE;
        if page.refs == 0 {
            self.set_free(id);
        }
    }

    /// Forgets the free pages at the end, so that the tensor side may cut its storage.
    pub(super) fn trim(&mut self) {
        self.free.sort_unstable_by(|a, b| b.cmp(a));
        let last = |pages: &Vec<Page>| PageId(u32::try_from(pages.len() - 1).expect("bounded"));
        let mut cut = 0;
        while self.free.get(cut) == Some(&last(&self.pages)) {
            self.pages.pop();
            cut += 1;
        }
        self.free.drain(..cut);
    }

    #[cfg(test)]
    pub(super) fn free(&self) -> &[PageId] {
        &self.free
    }

    fn set_free(&mut self, id: PageId) {
        self.in_use -= 1;
        self.free.push(id);
    }

    fn page(&self, id: PageId) -> &Page {
        assert_ne!(id, PageId::POISON, "nobody holds the poison page");
        &self.pages[id.0 as usize]
    }

    fn page_mut(&mut self, id: PageId) -> &mut Page {
        assert_ne!(id, PageId::POISON, "nobody holds the poison page");
        &mut self.pages[id.0 as usize]
    }
}
