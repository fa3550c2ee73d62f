//! The books of files, against a slow model of them.

use cereus_core::time::{Span, Tick};
use proptest::prelude::*;

use crate::kv::disk::{BlockTag, DiskIndex, DiskLimits, DiskRoom, FileId, NotKept, WriteFault};

const LIMITS: DiskLimits = DiskLimits {
    size_max: 100,
    file_size_max: 60,
    files_max: 5,
    file_blocks_max: 6,
    ttl: Span(50),
    day_size_max: 100_000,
    free_min: 0,
    full_wait: Span(30),
};

const fn tag(number: u8) -> BlockTag {
    BlockTag([number; 16])
}

fn tags(numbers: impl IntoIterator<Item = u8>) -> Vec<BlockTag> {
    numbers.into_iter().map(tag).collect()
}

/// Admits and writes a file of these blocks; what went for it.
fn write(index: &mut DiskIndex, now: u64, blocks: &[BlockTag], size: u64) -> Vec<BlockTag> {
    let mut out = Vec::new();
    let id = index.admit(Tick(now), blocks, size, &mut out).unwrap();
    index.written(Tick(now), id);
    out
}

#[test]
fn the_limits_are_those_of_the_specification() {
    const GIB: u64 = 1 << 30;
    let unknown = DiskLimits::reference(None);
    assert_eq!(unknown.size_max, 20 * GIB);
    assert_eq!(unknown.free_min, 20 * GIB);
    let roomy = DiskLimits::reference(Some(DiskRoom {
        size: 1_000 * GIB,
        free: 300 * GIB,
    }));
    assert_eq!(roomy.size_max, 150 * GIB);
    assert_eq!(roomy.free_min, 50 * GIB);
    assert_eq!(roomy.ttl, Span::secs(1_800));
    assert_eq!(roomy.full_wait, Span::secs(600));
}

#[test]
fn a_run_is_found_from_any_of_its_blocks_once_it_is_written() {
    let mut index = DiskIndex::new(LIMITS);
    let run = tags(1..=4);
    let id = index.admit(Tick(0), &run, 10, &mut Vec::new()).unwrap();
    assert_eq!(index.leading(Tick(0), &run), 0, "it is on its way");
    assert_eq!(index.locate(Tick(0), &run), None);
    index.written(Tick(1), id);
    assert_eq!(index.leading(Tick(1), &tags(1..=9)), 4);
    let located = index.locate(Tick(1), &tags([2, 3, 9])).unwrap();
    assert_eq!((located.first, located.blocks), (1, 2));
    assert_eq!((located.file, located.name), (id, tag(4)));
}

#[test]
fn only_what_is_new_of_a_run_is_worth_a_file() {
    let mut index = DiskIndex::new(LIMITS);
    write(&mut index, 0, &tags(1..=3), 10);
    assert_eq!(index.unknown(&tags(1..=5)), 3..5);
    assert_eq!(index.unknown(&tags(1..=3)), 0..0);
    assert_eq!(index.unknown(&tags([8, 9, 1])), 0..2);
    let again = index.admit(Tick(0), &tags(1..=3), 10, &mut Vec::new());
    assert_eq!(again, Err(NotKept::Known));
    // A block in two files is found in the first for as long as that is there.
    write(&mut index, 1, &tags([3, 4]), 10);
    assert_eq!(index.locate(Tick(1), &[tag(3)]).unwrap().first, 2);
    assert_eq!(index.leading(Tick(1), &tags(1..=5)), 4);
}

#[test]
fn the_least_recently_used_file_goes_first() {
    let mut index = DiskIndex::new(LIMITS);
    assert_eq!(write(&mut index, 0, &[tag(1)], 40), []);
    assert_eq!(write(&mut index, 1, &[tag(2)], 40), []);
    index.locate(Tick(2), &[tag(1)]).unwrap();
    assert_eq!(write(&mut index, 3, &[tag(3)], 40), [tag(2)]);
    assert_eq!(write(&mut index, 4, &[tag(4)], 60), [tag(1)]);
    assert_eq!(index.size(), 100);
}

#[test]
fn refusals_say_why() {
    let mut index = DiskIndex::new(LIMITS);
    let mut admit = |now, blocks: &[BlockTag], size| {
        let mut out = Vec::new();
        index.admit(Tick(now), blocks, size, &mut out).err()
    };
    assert_eq!(admit(0, &[], 1), Some(NotKept::Empty));
    assert_eq!(admit(0, &[tag(1)], 61), Some(NotKept::TooLarge));
    assert_eq!(admit(0, &tags(1..=7), 1), Some(NotKept::TooLarge));
    assert_eq!(admit(0, &[tag(1)], 60), None);
    assert_eq!(
        admit(0, &[tag(2)], 60),
        Some(NotKept::NoRoom),
        "all is on its way"
    );
    index.free_told(Some(9));
    let low = index.admit(Tick(0), &[tag(2)], 10, &mut Vec::new());
    assert_eq!(low, Err(NotKept::LowDisk));
}

#[test]
fn a_full_disk_is_left_alone_for_a_while() {
    let mut index = DiskIndex::new(LIMITS);
    let admit = |index: &mut DiskIndex, now| index.admit(Tick(now), &[tag(1)], 9, &mut Vec::new());
    let id = admit(&mut index, 0).unwrap();
    index.failed(Tick(5), id, WriteFault::DiskFull);
    assert_eq!(admit(&mut index, 34), Err(NotKept::WasFull));
    let id = admit(&mut index, 35).unwrap();
    index.failed(Tick(36), id, WriteFault::Other);
    assert!(admit(&mut index, 36).is_ok());
}

#[test]
fn a_day_has_so_much_writing_in_it() {
    let limits = DiskLimits {
        day_size_max: 100,
        ..LIMITS
    };
    let mut index = DiskIndex::new(limits);
    let day = 86_400_000_000;
    write(&mut index, 7, &[tag(1)], 60);
    write(&mut index, 7, &[tag(2)], 40);
    let mut admit = |now| index.admit(Tick(now), &[tag(3)], 1, &mut Vec::new());
    assert_eq!(admit(7 + day - 1), Err(NotKept::WornOut));
    assert!(admit(7 + day).is_ok());
}

#[test]
fn what_comes_late_of_an_earlier_file_changes_nothing() {
    let mut index = DiskIndex::new(LIMITS);
    let first = index.admit(Tick(0), &[tag(1)], 9, &mut Vec::new()).unwrap();
    index.failed(Tick(0), first, WriteFault::Other);
    let second = index.admit(Tick(0), &[tag(1)], 9, &mut Vec::new()).unwrap();
    let before = index.clone();
    index.written(Tick(1), first);
    index.forget(first);
    assert_eq!(index, before);
    index.written(Tick(1), second);
    assert_eq!(index.leading(Tick(1), &[tag(1)]), 1);
}

#[test]
fn files_of_an_earlier_life_keep_their_age_and_the_bounds_hold() {
    let mut index = DiskIndex::new(LIMITS);
    let mut restore = |number, size, idle| index.restore(Tick(3), &[tag(number)], size, Span(idle));
    assert_eq!(restore(1, 9, 50), None, "too old");
    assert!(restore(2, 50, 49).is_some());
    assert!(restore(3, 30, 20).is_some());
    assert_eq!(restore(3, 30, 10), None, "another has its blocks");
    assert!(restore(4, 30, 0).is_some());
    let mut out = Vec::new();
    index.trim(&mut out);
    assert_eq!(out, [tag(2)]);
    assert_eq!(index.next_expiry(), Some(Tick(3 + 30)));
    index.expire(Tick(33), &mut out);
    assert_eq!(out, [tag(2), tag(3)]);
    assert_eq!(index.leading(Tick(52), &[tag(4)]), 1);
    assert_eq!(
        index.leading(Tick(53), &[tag(4)]),
        0,
        "expired, swept or not"
    );
    index.clear(&mut out);
    assert_eq!((index.size(), index.files()), (0, 0));
}

#[derive(Clone, Debug)]
enum Op {
    /// Blocks from here on, so many, of so many bytes each.
    Admit(u8, u8, u64),
    /// The oldest write that is under way ends.
    End(Option<WriteFault>),
    Expire,
    Forget(u8),
    Locate(u8),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let end = prop_oneof![
        4 => Just(None),
        1 => Just(Some(WriteFault::Other)),
        1 => Just(Some(WriteFault::DiskFull)),
    ];
    prop_oneof![
        5 => (0u8..20, 1u8..7, 1u64..12).prop_map(|(from, blocks, size)| Op::Admit(from, blocks, size)),
        5 => end.prop_map(Op::End),
        1 => Just(Op::Expire),
        1 => (0u8..26).prop_map(Op::Forget),
        3 => (0u8..26).prop_map(Op::Locate),
        2 => (1u64..20).prop_map(Op::Wait),
    ]
}

/// A file as the disk and the slow model know it.
#[derive(Clone, Debug)]
struct Known {
    id: FileId,
    tags: Vec<BlockTag>,
    size: u64,
    used: u64,
}

#[derive(Default)]
struct Model {
    /// In order of use.
    whole: Vec<Known>,
    writing: Vec<Known>,
}

impl Model {
    fn removed(&mut self, names: &[BlockTag]) {
        for name in names {
            let oldest = self.whole.remove(0);
            assert_eq!(oldest.tags.last(), Some(name), "the oldest goes first");
        }
    }

    fn check(&self, index: &DiskIndex, now: u64) {
        let all = self.whole.iter().chain(&self.writing);
        let size: u64 = all.clone().map(|file| file.size).sum();
        assert_eq!(index.size(), size);
        assert!(size <= LIMITS.size_max);
        assert_eq!(index.files(), all.count());
        assert!(index.files() <= LIMITS.files_max as usize);
        for number in 0..26 {
            let is_found = index.leading(Tick(now), &[tag(number)]) == 1;
            let fresh = self
                .whole
                .iter()
                .filter(|file| now < file.used + LIMITS.ttl.0);
            let mut holders = fresh.filter(|file| file.tags.contains(&tag(number)));
            assert!(!is_found || holders.next().is_some(), "found is there");
        }
    }
}

fn play(ops: &[Op]) {
    let mut index = DiskIndex::new(LIMITS);
    let mut model = Model::default();
    let mut now = 0;
    for op in ops {
        let mut out = Vec::new();
        match *op {
            Op::Admit(from, blocks, each) => {
                let run = tags(from..from + blocks);
                let run = &run[index.unknown(&run)];
                let size = run.len() as u64 * each;
                let admitted = index.admit(Tick(now), run, size, &mut out);
                model.removed(&out);
                if let Ok(id) = admitted {
                    let tags = run.to_vec();
                    model.writing.push(Known {
                        id,
                        tags,
                        size,
                        used: now,
                    });
                }
            }
            Op::End(fault) if !model.writing.is_empty() => {
                let mut file = model.writing.remove(0);
                file.used = now;
                match fault {
                    None => {
                        index.written(Tick(now), file.id);
                        model.whole.push(file);
                    }
                    Some(fault) => index.failed(Tick(now), file.id, fault),
                }
            }
            Op::Expire => {
                index.expire(Tick(now), &mut out);
                model.removed(&out);
                assert!(
                    model
                        .whole
                        .iter()
                        .all(|file| now < file.used + LIMITS.ttl.0)
                );
            }
            Op::Forget(number) => {
                if let Some(located) = index.locate(Tick(now), &[tag(number)]) {
                    index.forget(located.file);
                    model.whole.retain(|file| file.id != located.file);
                    let ended = index.locate(Tick(now), &[located.name]);
                    assert!(ended.is_none_or(|other| other.file != located.file));
                }
            }
            Op::Locate(number) => {
                if let Some(located) = index.locate(Tick(now), &[tag(number), tag(number + 1)]) {
                    let ix = model.whole.iter().position(|file| file.id == located.file);
                    let mut file = model.whole.remove(ix.expect("what is located is there"));
                    let held = &file.tags[located.first as usize..];
                    assert_eq!(held[0], tag(number));
                    assert!(located.blocks == 1 || held[1] == tag(number + 1));
                    file.used = now;
                    model.whole.push(file);
                }
            }
            Op::Wait(span) => now += span,
            Op::End(_) => {}
        }
        model.check(&index, now);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn bounds_hold_and_the_oldest_goes_first_whatever_happens(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        play(&ops);
    }
}
