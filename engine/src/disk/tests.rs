//! Real files, and everything that may become of them.

use std::collections::BTreeMap;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

const MODEL: Fingerprint = Fingerprint([7; 32]);

fn limits(size_max: u64) -> DiskLimits {
    DiskLimits {
        size_max,
        free_min: 0,
        ..DiskLimits::reference(None)
    }
}

fn config(folder: &Path) -> DiskConfig {
    let key = DiskKey::from_bytes([1; 32]);
    DiskConfig::reference(folder.to_owned(), key, limits(1 << 20))
}

fn open(folder: &Path) -> DiskCache {
    DiskCache::open(Tick(0), &config(folder)).unwrap()
}

fn names(numbers: impl IntoIterator<Item = u8>) -> Vec<BlockHash> {
    let name = |number| BlockHash([number; 32]);
    numbers.into_iter().map(name).collect()
}

/// The bytes of block `number`, of another length for each.
fn block(number: u8) -> Vec<u8> {
    format!("the keys and values of block {number}")
        .bytes()
        .chain(std::iter::repeat_n(number, usize::from(number)))
        .collect()
}

fn blocks(numbers: impl IntoIterator<Item = u8>) -> Vec<Vec<u8>> {
    numbers.into_iter().map(block).collect()
}

fn write(cache: &mut DiskCache, numbers: impl IntoIterator<Item = u8> + Clone) {
    let offered = cache.write(Tick(0), &MODEL, &names(numbers.clone()), blocks(numbers));
    assert_eq!(offered, Offered::Taken);
    cache.flush(Tick(0));
}

fn read(cache: &mut DiskCache, numbers: impl IntoIterator<Item = u8>) -> Vec<Vec<u8>> {
    let blocks = cache.read(Tick(0), &MODEL, &names(numbers));
    cache.flush(Tick(0));
    blocks
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> = paths.filter(|path| !path.ends_with(LOCK)).collect();
    paths.sort();
    paths
}

fn only_file(folder: &Path) -> PathBuf {
    let files = files(folder);
    assert_eq!(files.len(), 1);
    files[0].clone()
}

/// A folder with one file of blocks 1 to 3, and its bytes.
fn kept() -> (TempDir, PathBuf, Vec<u8>) {
    let folder = TempDir::new().unwrap();
    let mut cache = open(folder.path());
    write(&mut cache, 1..=3);
    drop(cache);
    let path = only_file(folder.path());
    let bytes = fs::read(&path).unwrap();
    (folder, path, bytes)
}

#[test]
fn what_was_written_is_read_again_after_a_restart_as_well() {
    let (folder, _, bytes) = kept();
    let sum: usize = blocks(1..=3).iter().map(Vec::len).sum();
    assert_eq!(bytes.len() as u64, format::file_size(3, sum as u64));
    let mut cache = open(folder.path());
    assert_eq!(cache.leading(Tick(0), &MODEL, &names(1..=9)), 3);
    assert_eq!(read(&mut cache, 1..=9), blocks(1..=3));
    assert_eq!(read(&mut cache, 2..=3), blocks(2..=3));
    assert_eq!(read(&mut cache, [2]), blocks([2]));
    assert_eq!(read(&mut cache, [4, 1]), blocks([]));
    write(&mut cache, 1..=5);
    assert_eq!(files(folder.path()).len(), 2, "only what is new is written");
    assert_eq!(read(&mut cache, 1..=9), blocks(1..=5));
    assert_eq!(cache.counts().read, 3 + 2 + 1 + 5);
}

#[test]
fn neither_names_nor_files_tell_of_prompts() {
    let (_folder, path, bytes) = kept();
    let name = path.file_stem().unwrap().to_str().unwrap();
    assert_eq!(name.len(), 32);
    let holds = |needle: &[u8]| bytes.windows(needle.len()).any(|part| part == needle);
    assert!(holds(b"cereuskv"));
    for secret in [&block(2)[..16], &[2; 16], &MODEL.0[..16], &[1; 16]] {
        assert!(!holds(secret));
    }
    assert!(!name.contains("0202"));
    assert_eq!(format!("{:?}", DiskKey::from_bytes([1; 32])), "DiskKey");
}

/// Puts `bytes` in place of a good file, before the folder is opened and while it is open. Either way
/// nothing is read and nothing is left (ENG-11).
fn assert_miss(bytes: &[u8], folder: &Path, path: &Path, good: &[u8], what: &str) {
    fs::write(path, bytes).unwrap();
    let mut cache = open(folder);
    assert_eq!(read(&mut cache, 1..=3), blocks([]), "{what}");
    assert!(!path.exists(), "{what}");
    assert_eq!(cache.index().files(), 0);
    assert_eq!(cache.counts().damaged, 1, "{what}");
    drop(cache);

    fs::write(path, good).unwrap();
    let mut cache = open(folder);
    assert_eq!(cache.index().files(), 1);
    fs::write(path, bytes).unwrap();
    assert_eq!(read(&mut cache, 2..=3), blocks([]), "{what}");
    assert!(!path.exists(), "{what}");
    assert_eq!(cache.leading(Tick(0), &MODEL, &names(1..=3)), 0);
    assert_eq!((cache.index().size(), cache.counts().damaged), (0, 1));
}

#[test]
fn a_file_with_any_bit_changed_is_a_miss_and_is_removed() {
    let (folder, path, good) = kept();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        assert_miss(&bad, folder.path(), &path, &good, &format!("byte {at}"));
    }
}

#[test]
fn a_file_of_any_other_length_is_a_miss_and_is_removed() {
    let (folder, path, good) = kept();
    for size in 0..good.len() {
        let what = format!("{size} bytes");
        assert_miss(&good[..size], folder.path(), &path, &good, &what);
    }
    let longer = [&good[..], b"x"].concat();
    assert_miss(&longer, folder.path(), &path, &good, "a byte more");
}

#[test]
fn the_header_of_one_file_does_not_open_the_blocks_of_another() {
    let (folder, path, good) = kept();
    let (_, _, other) = kept();
    assert_eq!(good.len(), other.len());
    let header = good.len() - 150;
    let mixed = [&good[..header], &other[header..]].concat();
    assert_miss(&mixed, folder.path(), &path, &good, "mixed");
}

/// ENG-11.
#[test]
fn files_of_another_key_or_name_are_removed_and_those_of_nobody_stay() {
    let (folder, path, good) = kept();
    let stranger = folder.path().join("notes.txt");
    fs::write(&stranger, "not ours").unwrap();
    let misnamed = folder.path().join("00112233445566778899aabbccddeeff.kv");
    fs::write(&misnamed, &good).unwrap();
    drop(open(folder.path()));
    assert_eq!(files(folder.path()), {
        let mut left = vec![path.clone(), stranger.clone()];
        left.sort();
        left
    });
    let other = DiskConfig {
        key: DiskKey::from_bytes([2; 32]),
        ..config(folder.path())
    };
    let mut cache = DiskCache::open(Tick(0), &other).unwrap();
    assert_eq!(read(&mut cache, 1..=3), blocks([]));
    assert_eq!(files(folder.path()), [stranger]);
}

#[test]
fn another_model_finds_nothing_of_this_one() {
    let (folder, _, _) = kept();
    let mut cache = open(folder.path());
    let other = Fingerprint([8; 32]);
    assert_eq!(cache.leading(Tick(0), &other, &names(1..=3)), 0);
    assert!(cache.read(Tick(0), &other, &names(1..=3)).is_empty());
    assert_eq!(read(&mut cache, 1..=3), blocks(1..=3));
}

/// ENG-11: a process that is stopped while it writes leaves any beginning of a file, under the name of
/// a part; that a part is all it leaves is what `tests/disk_killed.rs` shows.
#[test]
fn a_part_of_any_length_is_removed_at_the_next_start() {
    let (folder, path, good) = kept();
    fs::remove_file(&path).unwrap();
    let part = path.with_extension(PART);
    for size in (0..=good.len()).step_by(7) {
        fs::write(&part, &good[..size]).unwrap();
        let mut cache = open(folder.path());
        assert_eq!(read(&mut cache, 1..=3), blocks([]));
        assert!(files(folder.path()).is_empty());
    }
}

#[test]
fn the_bound_holds_on_the_disk_itself_and_the_least_recently_used_goes() {
    let folder = TempDir::new().unwrap();
    let config = DiskConfig {
        limits: limits(1_000),
        ..config(folder.path())
    };
    let mut cache = DiskCache::open(Tick(0), &config).unwrap();
    for number in 0..60 {
        write(&mut cache, [number]);
        if number >= 1 {
            assert_eq!(read(&mut cache, [1]), blocks([1]), "it is always in use");
        }
        let sizes = files(folder.path());
        let sizes = sizes.iter().map(|path| fs::metadata(path).unwrap().len());
        let size: u64 = sizes.sum();
        assert_eq!(cache.index().size(), size);
        assert!(size <= 1_000);
    }
    assert_eq!(cache.leading(Tick(0), &MODEL, &names([0])), 0);
    assert_eq!(cache.leading(Tick(0), &MODEL, &names([59])), 1);
    let counts = cache.counts();
    assert_eq!(counts.written, 60);
    assert_eq!(counts.forgotten, 60 - cache.index().files() as u64);
}

#[test]
fn age_and_order_survive_a_restart() {
    let folder = TempDir::new().unwrap();
    let mut cache = open(folder.path());
    let mut paths = BTreeMap::new();
    for number in 1..=4 {
        write(&mut cache, [number]);
        let path = files(folder.path()).into_iter();
        let mut new = path.filter(|path| !paths.values().any(|old| old == path));
        paths.insert(number, new.next_back().unwrap());
    }
    drop(cache);
    let now = SystemTime::now();
    for (number, minutes) in [(1, 10), (2, 40), (3, 29), (4, 20)] {
        let file = File::options().write(true).open(&paths[&number]).unwrap();
        file.set_modified(now - Duration::from_secs(minutes * 60))
            .unwrap();
    }
    // Room for two: 2 is too old, and 3 the oldest of the rest.
    let small = DiskConfig {
        limits: limits(2 * fs::metadata(&paths[&4]).unwrap().len()),
        ..config(folder.path())
    };
    let mut cache = DiskCache::open(Tick(0), &small).unwrap();
    let found = (1..=4).filter(|&number| cache.leading(Tick(0), &MODEL, &names([number])) == 1);
    assert_eq!(found.collect::<Vec<_>>(), [1, 4]);
    assert_eq!(files(folder.path()).len(), 2);
    // A quarter of an hour later only what was 10 minutes old is left of them.
    let later = Tick(0) + Span::secs(15 * 60);
    cache.sweep(later);
    cache.flush(later);
    assert_eq!(cache.leading(later, &MODEL, &names([1])), 1);
    assert_eq!(files(folder.path()), [paths[&1].clone()]);
    // Reading makes it young again, in the next life as well.
    assert_eq!(cache.read(later, &MODEL, &names([1])), blocks([1]));
    drop(cache);
    let mut cache = open(folder.path());
    cache.sweep(Tick(0) + Span::secs(29 * 60));
    cache.flush(Tick(0));
    assert_eq!(files(folder.path()), [paths[&1].clone()]);
}

#[test]
fn a_folder_is_used_by_one_process_at_a_time() {
    let (folder, _, _) = kept();
    let cache = open(folder.path());
    let second = DiskCache::open(Tick(0), &config(folder.path()));
    assert!(matches!(second, Err(OpenError::InUse)));
    drop(cache);
    open(folder.path());
}

#[test]
fn what_does_not_fit_the_queue_is_dropped_and_counted() {
    let folder = TempDir::new().unwrap();
    let config = DiskConfig {
        queue_size_max: 50,
        ..config(folder.path())
    };
    let mut cache = DiskCache::open(Tick(0), &config).unwrap();
    let mut write = |numbers: Vec<u8>| {
        let run = (names(numbers.clone()), blocks(numbers));
        cache.write(Tick(0), &MODEL, &run.0, run.1)
    };
    assert_eq!(write(vec![1, 2]), Offered::Dropped);
    assert_eq!(write(vec![1]), Offered::Taken);
    assert_eq!(write(vec![1]), Offered::Refused(NotKept::Known));
    assert_eq!(write(vec![]), Offered::Refused(NotKept::Empty));
    cache.flush(Tick(0));
    assert_eq!(cache.counts().dropped, 1);
    assert_eq!(read(&mut cache, 1..=2), blocks([1]));
}

#[test]
fn a_write_that_fails_is_a_miss_and_no_more() {
    let folder = TempDir::new().unwrap();
    let mut cache = open(folder.path());
    fs::remove_dir_all(folder.path()).unwrap();
    write(&mut cache, 1..=3);
    assert_eq!(cache.counts().failed, 1);
    assert_eq!(cache.index().size(), 0);
    assert_eq!(read(&mut cache, 1..=3), blocks([]));
    fs::create_dir(folder.path()).unwrap();
    write(&mut cache, 1..=3);
    assert_eq!(read(&mut cache, 1..=3), blocks(1..=3));
}

#[test]
fn a_file_that_goes_while_it_is_read_is_a_miss_and_its_successor_stays() {
    let folder = TempDir::new().unwrap();
    let mut cache = open(folder.path());
    write(&mut cache, 1..=3);
    let early = cache.locate(Tick(0), &MODEL, &names(1..=3)).unwrap();
    cache.clear(Tick(0));
    assert!(files(folder.path()).is_empty());
    // The same name, other blocks before it.
    write(&mut cache, [9, 3]);
    assert_eq!(cache.finish(early.read()), blocks([]));
    assert_eq!(read(&mut cache, [9, 3]), blocks([9, 3]));
    assert_eq!(cache.counts().damaged, 0);
}

#[test]
fn only_what_would_be_written_now_is_wanted() {
    let folder = TempDir::new().unwrap();
    let small = DiskConfig {
        limits: DiskLimits {
            file_blocks_max: 3,
            ..limits(1 << 20)
        },
        queue_jobs_max: 1,
        ..config(folder.path())
    };
    let mut cache = DiskCache::open(Tick(0), &small).unwrap();
    let run = names(1..=5);
    let wanted =
        |cache: &mut DiskCache, size, size_max| cache.wanted(Tick(0), &MODEL, &run, size, size_max);
    assert_eq!(
        wanted(&mut cache, 100, 1 << 20),
        0..3,
        "as many as a file has"
    );
    assert_eq!(
        wanted(&mut cache, 100, 400),
        0..2,
        "as many as the caller wants"
    );
    assert_eq!(
        wanted(&mut cache, 400_000, 1 << 30),
        0..2,
        "as many as fit the bytes"
    );
    assert!(wanted(&mut cache, 1 << 30, 1 << 40).is_empty());
    let offered = cache.write(Tick(0), &MODEL, &run[..3], blocks(1..=3));
    assert_eq!(offered, Offered::Taken);
    assert!(!cache.has_room(), "as far as anybody has heard");
    cache.flush(Tick(0));
    assert!(cache.has_room());
    assert_eq!(
        wanted(&mut cache, 100, 1 << 20),
        3..5,
        "those that are not there"
    );
    write(&mut cache, 4..=5);
    assert!(wanted(&mut cache, 100, 1 << 20).is_empty());
    let full = DiskConfig {
        limits: DiskLimits {
            free_min: u64::MAX / 2,
            ..limits(1 << 20)
        },
        ..config(folder.path())
    };
    drop(cache);
    let mut cache = DiskCache::open(Tick(0), &full).unwrap();
    let wanted = cache.wanted(Tick(0), &MODEL, &names(7..9), 100, 1 << 20);
    assert!(wanted.is_empty(), "the disk is as good as full");
    assert_eq!(cache.counts().dropped, 1);
}

#[test]
fn a_reader_reads_beside_and_says_when_it_has() {
    let (folder, _, _) = kept();
    let mut cache = open(folder.path());
    let (done, when_done) = std::sync::mpsc::channel();
    let mut reader = Reader::start(move || done.send(()).unwrap()).unwrap();
    let mut tickets = Vec::new();
    for numbers in [1..=3, 2..=3] {
        let reading = cache.locate(Tick(0), &MODEL, &names(numbers)).unwrap();
        tickets.push(reader.ask(reading).unwrap());
    }
    assert_eq!(reader.in_flight(), 2);
    for (ticket, numbers) in tickets.into_iter().zip([1..=3, 2..=3]) {
        when_done.recv().unwrap();
        let (came, what) = reader.poll().unwrap();
        assert_eq!(came, ticket);
        assert_eq!(cache.finish(what), blocks(numbers));
    }
    assert_eq!(reader.in_flight(), 0);
    assert!(reader.poll().is_none());
}

#[test]
fn a_key_is_made_once_and_read_by_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = TempDir::new().unwrap();
    let path = folder.path().join("state/cache.key");
    let key = DiskKey::load_or_make(&path).unwrap();
    assert_eq!(DiskKey::load_or_make(&path).unwrap().0, key.0);
    let other = DiskKey::load_or_make(&folder.path().join("other.key")).unwrap();
    assert_ne!(other.0, key.0);
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let about = fs::metadata(&path).unwrap();
    assert_eq!(
        (about.permissions().mode() & 0o777, about.len()),
        (0o600, 32)
    );
    mode(0o640);
    let exposed = DiskKey::load_or_make(&path);
    assert!(matches!(exposed, Err(KeyError::Exposed(0o640))));
    mode(0o600);
    for bytes in [&[1; 31][..], &[1; 33]] {
        fs::write(&path, bytes).unwrap();
        let malformed = DiskKey::load_or_make(&path);
        assert!(matches!(malformed, Err(KeyError::Malformed)));
    }
    let names = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(
        names(path.parent().unwrap()),
        1,
        "nothing is left beside it"
    );
}
