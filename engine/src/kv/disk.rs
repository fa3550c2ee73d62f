//! Which blocks are kept on disk: the books of files under bounds on bytes, age and wear.
//!
//! Pure: time is an argument, and nobody here opens a file. A file holds a run of consecutive blocks
//! and goes as a whole. Whoever does the input and output (`crate::disk`) asks before it writes, and
//! tells what came of it; it never finds here what is not whole on disk.

use std::collections::{BTreeMap, BTreeSet};

use cereus_core::time::{Span, Tick};

/// Names a block on disk. It tells nothing of tokens or tenant to who lacks the key that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockTag(pub [u8; 16]);

/// One life of a file: never given twice, so that what comes late of an earlier life is known as such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(u64);

/// What bounds the files of a machine, over all its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskLimits {
    /// Of all files together.
    pub size_max: u64,
    pub file_size_max: u64,
    pub files_max: u32,
    pub file_blocks_max: u32,
    /// A file goes when nobody has read it for so long.
    pub ttl: Span,
    /// Written in 24 hours: flash wears out.
    pub day_size_max: u64,
    /// Nothing is written where less than this would stay free on the disk.
    pub free_min: u64,
    /// After the disk was full, nothing is written for so long.
    pub full_wait: Span,
}

const GIB: u64 = 1 << 30;
const DAY: Span = Span::secs(86_400);

impl DiskLimits {
    /// The published engine's: half of what is free, or 20 GiB when nobody could tell (`None`); a file
    /// goes after half an hour unread; 750 GB a day, since flash wears out; and a twentieth of the disk,
    /// 20 GiB at least, stays free for everybody else.
    #[must_use]
    pub const fn reference(disk: Option<DiskRoom>) -> Self {
        let (size_max, twentieth) = match disk {
            Some(room) => (room.free / 2, room.size / 20),
            None => (20 * GIB, 0),
        };
        Self {
            size_max,
            file_size_max: GIB / 4,
            files_max: 65_536,
            file_blocks_max: 4_096,
            ttl: Span::secs(1_800),
            day_size_max: 750_000_000_000,
            free_min: if twentieth > 20 * GIB {
                twentieth
            } else {
                20 * GIB
            },
            full_wait: Span::secs(600),
        }
    }
}

/// What a file system has, and has free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DiskRoom {
    pub size: u64,
    pub free: u64,
}

/// Why a run is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NotKept {
    /// It has no blocks.
    Empty,
    /// All of it is on disk, or on its way there.
    Known,
    /// Other users of the disk have left too little.
    LowDisk,
    /// What is on its way to the disk leaves no room.
    NoRoom,
    /// One file cannot hold it.
    TooLarge,
    /// The disk was full a short while ago.
    WasFull,
    /// The day's writing is done.
    WornOut,
}

/// Blocks in a row that one file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Located {
    pub file: FileId,
    /// The tag that the file is named by: its last block's.
    pub name: BlockTag,
    /// Place of the first of them in the file.
    pub first: u32,
    pub blocks: u32,
}

/// Why a write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriteFault {
    DiskFull,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Whole,
    Writing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct File {
    tags: Vec<BlockTag>,
    size: u64,
    state: State,
    /// When it was last put at the end of its row.
    stamp: u64,
    expires: Tick,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Place {
    file: FileId,
    ix: u32,
}

/// See the module. Names of files that the caller removes are appended to `out`; a file in the course
/// of being written is never among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DiskIndex {
    limits: DiskLimits,
    files: BTreeMap<FileId, File>,
    places: BTreeMap<BlockTag, Place>,
    /// Whole files, least recently used first.
    order: BTreeSet<(u64, FileId)>,
    size: u64,
    next: u64,
    day_ends: Tick,
    day_size: u64,
    writes_from: Tick,
    free: Option<u64>,
}

impl DiskIndex {
    #[must_use]
    pub const fn new(limits: DiskLimits) -> Self {
        Self {
            limits,
            files: BTreeMap::new(),
            places: BTreeMap::new(),
            order: BTreeSet::new(),
            size: 0,
            next: 0,
            day_ends: Tick::ZERO,
            day_size: 0,
            writes_from: Tick::ZERO,
            free: None,
        }
    }

    #[must_use]
    pub const fn limits(&self) -> &DiskLimits {
        &self.limits
    }

    /// Bytes of all files, those on their way to the disk included.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    #[must_use]
    pub fn files(&self) -> usize {
        self.files.len()
    }

    /// What is free on the disk, as far as anybody knows. Asked now and then.
    pub const fn free_told(&mut self, free: Option<u64>) {
        self.free = free;
    }

    /// How many of `tags`, from the first, can be read.
    #[must_use]
    pub fn leading(&self, now: Tick, tags: &[BlockTag]) -> u32 {
        let is_there = |tag: &&BlockTag| self.readable(now, **tag).is_some();
        count(tags.iter().take_while(is_there).count())
    }

    /// The file that has the first of `tags`, and how many of those that follow are next to it. The
    /// file counts as used.
    pub fn locate(&mut self, now: Tick, tags: &[BlockTag]) -> Option<Located> {
        let Place { file: id, ix } = self.readable(now, *tags.first()?)?;
        let file = &self.files[&id];
        let held = file.tags.iter().skip(ix as usize);
        let same = held.zip(tags).take_while(|(held, tag)| held == tag);
        let located = Located {
            file: id,
            name: *file.tags.last().expect("a file has blocks"),
            first: ix,
            blocks: count(same.count()),
        };
        self.touch(now, id);
        Some(located)
    }

    /// Which part of a run is worth a file: what is left without the blocks at either end that are
    /// on disk already.
    #[must_use]
    pub fn unknown(&self, tags: &[BlockTag]) -> core::ops::Range<usize> {
        let is_new = |tag| !self.places.contains_key(tag);
        let first = tags.iter().position(is_new);
        let last = tags.iter().rposition(is_new);
        match (first, last) {
            (Some(first), Some(last)) => first..last + 1,
            _ => 0..0,
        }
    }

    /// Room for a file of `size` bytes with these blocks, of which the last is not on disk: older files
    /// go for it. [`Self::written`] or [`Self::failed`] follows.
    pub fn admit(
        &mut self,
        now: Tick,
        tags: &[BlockTag],
        size: u64,
        out: &mut Vec<BlockTag>,
    ) -> Result<FileId, NotKept> {
        let last = tags.last().ok_or(NotKept::Empty)?;
        if self.places.contains_key(last) {
            return Err(NotKept::Known);
        }
        let most = self.limits.file_size_max.min(self.limits.size_max);
        if size > most || tags.len() > self.limits.file_blocks_max as usize {
            return Err(NotKept::TooLarge);
        }
        if let Some(why) = self.refusal(now, size) {
            return Err(why);
        }
        if !self.make_room(size, out) {
            return Err(NotKept::NoRoom);
        }
        if now >= self.day_ends {
            self.day_ends = now + DAY;
            self.day_size = 0;
        }
        self.day_size += size;
        Ok(self.enter(tags, size, State::Writing, now + self.limits.ttl))
    }

    /// Why nothing of this size is written at the moment, whatever it is.
    #[must_use]
    pub fn refusal(&self, now: Tick, size: u64) -> Option<NotKept> {
        if now < self.writes_from {
            return Some(NotKept::WasFull);
        }
        let day_size = if now >= self.day_ends {
            0
        } else {
            self.day_size
        };
        if day_size.saturating_add(size) > self.limits.day_size_max {
            return Some(NotKept::WornOut);
        }
        let needed = self.limits.free_min.saturating_add(size);
        self.free
            .is_some_and(|free| free < needed)
            .then_some(NotKept::LowDisk)
    }

    /// Notes that the file was written to its end and has its final name.
    pub fn written(&mut self, now: Tick, id: FileId) {
        let Some(file) = self.files.get_mut(&id) else {
            return;
        };
        assert_eq!(file.state, State::Writing, "a file is written once");
        file.state = State::Whole;
        self.order.insert((file.stamp, id));
        self.touch(now, id);
    }

    /// The file was not written; there is nothing to remove.
    pub fn failed(&mut self, now: Tick, id: FileId, fault: WriteFault) {
        self.drop_file(id);
        match fault {
            WriteFault::DiskFull => self.writes_from = now + self.limits.full_wait,
            WriteFault::Other => {}
        }
    }

    /// The file turned out damaged or gone, or is not to be written. Returns its name, by which the
    /// caller removes it, unless it went before.
    pub fn forget(&mut self, id: FileId) -> Option<BlockTag> {
        self.drop_file(id)
    }

    /// A file of an earlier life of the process, unused for so long. The caller comes with the least
    /// recently used first, and with [`Self::trim`] after the last. `None`, and the caller removes it,
    /// when it is too old or another has its blocks.
    pub fn restore(
        &mut self,
        now: Tick,
        tags: &[BlockTag],
        size: u64,
        idle: Span,
    ) -> Option<FileId> {
        let left = Span(self.limits.ttl.0.saturating_sub(idle.0));
        let last = tags.last()?;
        let fits = tags.len() <= self.limits.file_blocks_max as usize;
        if left == Span::ZERO || !fits || self.places.contains_key(last) {
            return None;
        }
        let id = self.enter(tags, size, State::Whole, now + left);
        self.order.insert((self.files[&id].stamp, id));
        Some(id)
    }

    /// Sees that the bounds hold, after files were restored.
    pub fn trim(&mut self, out: &mut Vec<BlockTag>) {
        while self.size > self.limits.size_max || self.files.len() > self.limits.files_max as usize
        {
            if !self.drop_oldest(out) {
                return;
            }
        }
    }

    /// Lets go of the files that nobody has read for too long.
    pub fn expire(&mut self, now: Tick, out: &mut Vec<BlockTag>) {
        while self.next_expiry().is_some_and(|at| at <= now) {
            self.drop_oldest(out);
        }
    }

    /// When the first file expires if nobody reads it.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Tick> {
        let (_, id) = self.order.first()?;
        Some(self.files[id].expires)
    }

    /// Lets go of all files but those that are being written.
    pub fn clear(&mut self, out: &mut Vec<BlockTag>) {
        while self.drop_oldest(out) {}
    }

    fn readable(&self, now: Tick, tag: BlockTag) -> Option<Place> {
        let place = *self.places.get(&tag)?;
        let file = &self.files[&place.file];
        (file.state == State::Whole && now < file.expires).then_some(place)
    }

    fn touch(&mut self, now: Tick, id: FileId) {
        let stamp = self.stamp();
        let file = self.files.get_mut(&id).expect("the caller found it");
        let was_listed = self.order.remove(&(file.stamp, id));
        assert!(was_listed, "only whole files are used");
        file.stamp = stamp;
        file.expires = now + self.limits.ttl;
        self.order.insert((stamp, id));
    }

    fn enter(&mut self, tags: &[BlockTag], size: u64, state: State, expires: Tick) -> FileId {
        let stamp = self.stamp();
        let id = FileId(stamp);
        for (ix, &tag) in (0..).zip(tags) {
            self.places.entry(tag).or_insert(Place { file: id, ix });
        }
        let file = File {
            tags: tags.to_vec(),
            size,
            state,
            stamp,
            expires,
        };
        self.files.insert(id, file);
        self.size += size;
        id
    }

    const fn stamp(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn make_room(&mut self, size: u64, out: &mut Vec<BlockTag>) -> bool {
        while self.size.saturating_add(size) > self.limits.size_max
            || self.files.len() >= self.limits.files_max as usize
        {
            if !self.drop_oldest(out) {
                return false;
            }
        }
        true
    }

    fn drop_oldest(&mut self, out: &mut Vec<BlockTag>) -> bool {
        let Some(&(_, id)) = self.order.first() else {
            return false;
        };
        out.extend(self.drop_file(id));
        true
    }

    /// Returns the name of the file, if there was one.
    fn drop_file(&mut self, id: FileId) -> Option<BlockTag> {
        let file = self.files.remove(&id)?;
        self.order.remove(&(file.stamp, id));
        self.size -= file.size;
        for tag in &file.tags {
            if self.places.get(tag).is_some_and(|place| place.file == id) {
                self.places.remove(tag);
            }
        }
        file.tags.last().copied()
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).expect("runs are bounded")
}
