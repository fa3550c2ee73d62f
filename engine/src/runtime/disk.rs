//! The tier below memory. A row whose prompt is on disk further than in memory waits, as long as that
//! is short, for what is read; the scheduler then finds it like all that is in memory. What a row
//! that ends has left is written, as far as it is not on disk yet.
//!
//! Files are read and written on threads of their own. The engine's thread copies bytes, a little at
//! a time, and never waits: a file that cannot be read, or not in time, is a miss.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cereus_core::time::{Span, Tick};
use sha2::{Digest as _, Sha256};

use super::backend::{Backend, FilledBlock};
use super::inbox::Inbox;
use crate::disk::{
    DiskCache, DiskConfig, DiskCounts, Fingerprint, Offered, OpenError, Reader, Ticket,
};
use crate::kv::{BlockHash, KvLayout, Ledger};
use crate::scheduler::{RowId, Scheduler};

/// Between two looks for files whose time is over: it runs out in half an hour, so a minute is soon.
const SWEEP_EVERY: Span = Span::secs(60);
/// What an exported block may have above its numbers.
const BLOCK_MARGIN: u64 = 1_024;
/// Copied between two steps, about 10 ms of a slow machine's; and so the most that one file has.
const RUN_SIZE_MAX: u64 = 32 << 20;
/// Rows that ended and are still to be written. The blocks of more are not.
const LEAVING_MAX: usize = 64;
/// While files are written an idle thread looks for room in their queue so often.
const ROOM_POLL: Span = Span::millis(20);

/// Blocks on disk, for one engine. Used by models whose layers all have full attention; others
/// leave the folder alone.
#[derive(Clone, Debug)]
pub struct DiskTier {
    pub files: DiskConfig,
    /// Shorter runs are neither read nor kept: computing them is soon done.
    pub tokens_min: u32,
    /// Rows that wait for the disk at once. Others go on without.
    pub reads_max: usize,
    /// Of one prompt.
    pub read_size_max: u64,
    /// After so long a row goes on with what has come.
    pub read_wait_max: Span,
}

impl DiskTier {
    /// The published engine reads a prompt from 1,024 tokens on, since a shorter one is not
    /// worth a read, and at most 1 GiB of it in 1 s, which takes a disk of 1.5 GB/s. The wait here is
    /// twice that long, for disks that are slower.
    #[must_use]
    pub const fn reference(files: DiskConfig) -> Self {
        Self {
            files,
            tokens_min: 1_024,
            reads_max: 2,
            read_size_max: 1 << 30,
            read_wait_max: Span::secs(2),
        }
    }
}

/// See the module.
pub(super) struct Disk {
    tier: DiskTier,
    cache: DiskCache,
    model: Fingerprint,
    reader: Reader,
    staged: BTreeMap<RowId, Staged>,
    /// Names of what rows have left, to be written.
    leaving: VecDeque<Vec<BlockHash>>,
    next_sweep: Tick,
}

/// A row that is paused until its blocks have come.
struct Staged {
    /// As far as is read.
    chain: Vec<BlockHash>,
    /// Those of it that were in memory when the ticket was taken.
    from: usize,
    ticket: Ticket,
    until: Tick,
}

impl Disk {
    /// `None` for a model whose blocks do not leave memory.
    pub(super) fn open(
        tier: DiskTier,
        backend: &impl Backend,
        layout: &KvLayout,
        inbox: &Arc<Inbox>,
    ) -> Result<Option<Self>, OpenError> {
        let names = (backend.blocks_id(), backend.contract());
        let (Some(blocks), Some(contract), true) = (names.0, names.1, layout.is_full_attention())
        else {
            return Ok(None);
        };
        let inbox = Arc::clone(inbox);
        let reader = Reader::start(move || inbox.wake())?;
        Ok(Some(Self {
            cache: DiskCache::open(Tick::ZERO, &tier.files)?,
            model: fingerprint(&blocks, &contract, layout),
            reader,
            staged: BTreeMap::new(),
            leaving: VecDeque::new(),
            next_sweep: Tick::ZERO + SWEEP_EVERY,
            tier,
        }))
    }

    pub(super) const fn counts(&self) -> DiskCounts {
        self.cache.counts()
    }

    /// When there is something to do although nobody calls.
    pub(super) fn next_wake(&self, now: Tick) -> Tick {
        let room = match (self.leaving.is_empty(), self.cache.has_room()) {
            (true, _) => self.next_sweep,
            (false, true) => now,
            (false, false) => now + ROOM_POLL,
        };
        let untils = self.staged.values().map(|staged| staged.until);
        untils.fold(self.next_sweep.min(room), Tick::min)
    }

    /// A row was submitted, with these blocks that it may find. It is paused if waiting is worth it.
    pub(super) fn stage(
        &mut self,
        now: Tick,
        id: RowId,
        chain: &[BlockHash],
        scheduler: &mut Scheduler,
    ) {
        // A read whose row is gone still occupies the reader, so it counts until it has come.
        if self.staged.len().max(self.reader.in_flight()) >= self.tier.reads_max {
            return;
        }
        let layout = scheduler.kv().layout();
        let from = scheduler.kv().found(chain);
        let leading = self.cache.leading(now, &self.model, &chain[from..]);
        if leading.saturating_mul(layout.block_tokens) < self.tier.tokens_min.max(1) {
            return;
        }
        let most = self.tier.read_size_max / layout.block_bytes();
        let most = usize::try_from(most.min(u64::from(leading))).expect("a prompt is in memory");
        let chain = &chain[..from + most];
        if let Some(ticket) = self.ask(now, &chain[from..]) {
            scheduler.pause(id);
            let staged = Staged {
                chain: chain.to_vec(),
                from,
                ticket,
                until: now + self.tier.read_wait_max,
            };
            self.staged.insert(id, staged);
        }
    }

    /// The row is gone. What comes for it is passed over, and what it has left is to be written as far
    /// as it can be found and is not on disk.
    pub(super) fn ended(&mut self, id: RowId, mut chain: Vec<BlockHash>, kv: &Ledger) {
        self.staged.remove(&id);
        chain.truncate(kv.found(&chain));
        let tokens = chain.len() as u64 * u64::from(kv.layout().block_tokens);
        if chain.is_empty() || tokens < u64::from(self.tier.tokens_min) {
            return;
        }
        if self.leaving.len() < LEAVING_MAX {
            self.leaving.push_back(chain);
        } else {
            self.cache.note_dropped();
        }
    }

    /// Takes what has been read, lets rows go on whose time is up, has a file written, and sweeps.
    pub(super) fn turn(
        &mut self,
        now: Tick,
        scheduler: &mut Scheduler,
        backend: &mut impl Backend,
    ) {
        while let Some((ticket, done)) = self.reader.poll() {
            let blocks = self.cache.finish(done);
            let mut staged = self.staged.iter();
            let id = staged.find(|(_, staged)| staged.ticket == ticket);
            if let Some(id) = id.map(|(id, _)| *id) {
                self.bring_in(id, &blocks, scheduler, backend);
                self.go_on(now, id, scheduler);
            }
        }
        self.staged.retain(|&id, staged| {
            let is_waiting = now < staged.until;
            if !is_waiting {
                scheduler.resume(id);
            }
            is_waiting
        });
        self.write_some(now, scheduler.kv(), backend);
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP_EVERY;
            self.cache.sweep(now);
        }
    }

    /// Waits until all is on disk that was to be.
    pub(super) fn flush(&mut self, now: Tick, kv: &Ledger, backend: &mut impl Backend) {
        while !self.leaving.is_empty() {
            self.write_some(now, kv, backend);
            if !self.cache.has_room() {
                self.cache.flush(now);
            }
            // Still no room after a flush: the writing thread is gone, and nothing will make any.
            if !self.cache.has_room() {
                return;
            }
        }
        self.cache.flush(now);
    }

    /// Has a file written of what the first row has left, if there is room in the queue.
    fn write_some(&mut self, now: Tick, kv: &Ledger, backend: &mut impl Backend) {
        let Some(chain) = self.leaving.front() else {
            return;
        };
        let block_size = kv.layout().block_bytes().saturating_add(BLOCK_MARGIN);
        // Of the blocks of a row that has left, some may have been forgotten meanwhile: only those
        // still in memory can be written.
        let found = &chain[..kv.found(chain)];
        let wanted = self
            .cache
            .wanted(now, &self.model, found, block_size, RUN_SIZE_MAX);
        if wanted.is_empty() && !self.cache.has_room() {
            return;
        }
        let run = &found[wanted];
        let mut export = |&hash: &BlockHash| backend.export(&kv.block(hash)?).ok();
        let blocks: Option<Vec<Vec<u8>>> = run.iter().map(&mut export).collect();
        let is_written = blocks
            .filter(|blocks| !blocks.is_empty())
            .is_some_and(|blocks| {
                self.cache.write(now, &self.model, run, blocks) == Offered::Taken
            });
        if !is_written {
            self.leaving.pop_front();
        }
    }

    fn ask(&mut self, now: Tick, chain: &[BlockHash]) -> Option<Ticket> {
        let reading = self.cache.locate(now, &self.model, chain)?;
        self.reader.ask(reading)
    }

    /// Puts into memory what has come for a staged row, as far as there is room.
    fn bring_in(
        &self,
        id: RowId,
        blocks: &[Vec<u8>],
        scheduler: &mut Scheduler,
        backend: &mut impl Backend,
    ) {
        let Staged { chain, from, .. } = &self.staged[&id];
        // Blocks behind a gap would be found by nobody.
        if scheduler.kv().found(chain) < *from {
            return;
        }
        let chain = &chain[..chain.len().min(from + blocks.len())];
        let taken = scheduler.take_in(chain, *from);
        let filled = taken.iter().map(|taken| FilledBlock {
            pages: &taken.pages,
            bytes: &blocks[taken.ix - from],
        });
        let filled: Vec<FilledBlock<'_>> = filled.collect();
        if backend.import(scheduler.kv(), &filled).is_err() {
            for taken in &taken {
                scheduler.forget_block(chain[taken.ix]);
            }
        }
    }

    /// Asks for what is still to come, if the last that came was of use; else the row goes on.
    fn go_on(&mut self, now: Tick, id: RowId, scheduler: &mut Scheduler) {
        let Some(mut staged) = self.staged.remove(&id) else {
            return;
        };
        let found = scheduler.kv().found(&staged.chain);
        let ticket = if found > staged.from {
            self.ask(now, &staged.chain[found..])
        } else {
            None
        };
        match ticket {
            Some(ticket) => {
                staged.from = found;
                staged.ticket = ticket;
                self.staged.insert(id, staged);
            }
            None => scheduler.resume(id),
        }
    }
}

/// All that a block's bytes mean something under, but its own tokens and scope.
fn fingerprint(blocks: &[u8; 32], contract: &[u8; 32], layout: &KvLayout) -> Fingerprint {
    let mut items = Sha256::new_with_prefix(b"cereus.disk-blocks.v1");
    items.update(blocks);
    items.update(contract);
    for size in [layout.page_tokens, layout.block_tokens] {
        items.update(size.to_be_bytes());
    }
    items.update(layout.block_bytes().to_be_bytes());
    Fingerprint(items.finalize().into())
}
