//! A process that is killed while it writes leaves nothing that is found and not whole.
//!
//! Without the usual harness, because the process that is killed is this program again.

use std::io::{BufRead as _, BufReader, Write as _, stdout};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use cereus_core::time::Tick;
use cereus_engine::disk::{DiskCache, DiskConfig, DiskKey, Fingerprint, Offered};
use cereus_engine::kv::BlockHash;
use cereus_engine::kv::disk::DiskLimits;

/// Names the folder to a process that is to write until it is killed.
const FOLDER: &str = "CEREUS_DISK_KILLED_FOLDER";
const MODEL: Fingerprint = Fingerprint([7; 32]);
/// Long to write, as kills go.
const BLOCK_SIZE: usize = 8 << 20;
const FILES: u8 = 100;
/// So many processes must have left a part of a file, for the test to have tested anything.
const PARTS: usize = 3;
const KILLS_MAX: usize = 200;

fn main() {
    match std::env::var_os(FOLDER) {
        Some(folder) => write_for_ever(Path::new(&folder)),
        None => what_a_killed_process_leaves_is_whole_or_not_there(),
    }
}

fn open(folder: &Path) -> DiskCache {
    let limits = DiskLimits {
        free_min: 0,
        size_max: 1 << 30,
        ..DiskLimits::reference(None)
    };
    let key = DiskKey::from_bytes([1; 32]);
    let config = DiskConfig::reference(folder.to_owned(), key, limits);
    DiskCache::open(Tick(0), &config).expect("the folder is nobody else's")
}

fn run(number: u8) -> [BlockHash; 2] {
    [0, 1].map(|half| BlockHash([number.wrapping_mul(2).wrapping_add(half); 32]))
}

fn write_for_ever(folder: &Path) {
    let mut cache = open(folder);
    for number in 0..FILES {
        let hashes = run(number);
        let blocks = hashes.map(|hash| vec![hash.0[0]; BLOCK_SIZE]).to_vec();
        let offered = cache.write(Tick(0), &MODEL, &hashes, blocks);
        assert_eq!(offered, Offered::Taken);
        println!("{number}");
        stdout().flush().expect("the parent listens");
        cache.flush(Tick(0));
    }
}

/// ENG-11.
fn what_a_killed_process_leaves_is_whole_or_not_there() {
    let mut kills = 0;
    let mut parts_left = 0;
    while parts_left < PARTS {
        assert!(kills < KILLS_MAX, "no kill met a file half written");
        let folder = tempfile::tempdir().expect("a folder for the test");
        let begun = kill_a_writer(folder.path(), 1 + kills % 3);
        kills += 1;
        parts_left += parts(folder.path());
        let mut cache = open(folder.path());
        assert_eq!(parts(folder.path()), 0, "what was begun is removed");
        assert_eq!(cache.counts().damaged, 0, "what has a name is whole");
        assert!(cache.index().files() >= begun - 1, "what was ended stays");
        for number in 0..FILES {
            check(&mut cache, number);
        }
    }
    println!("of {kills} processes that were killed {parts_left} left a part of a file");
}

/// Kills a process in the middle of a file, when it has begun so many. Returns how many it had begun.
fn kill_a_writer(folder: &Path, files: usize) -> usize {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs");
    let said = BufReader::new(child.stdout.take().expect("piped"));
    let begun = said.lines().take(files).count();
    let has_ended = |child: &mut Child| child.try_wait().expect("it was ours").is_some();
    while parts(folder) == 0 {
        assert!(!has_ended(&mut child), "it writes until it is killed");
    }
    child.kill().expect("it has not ended");
    child.wait().expect("it was ours");
    begun
}

fn check(cache: &mut DiskCache, number: u8) {
    let hashes = run(number);
    let there = cache.leading(Tick(0), &MODEL, &hashes) as usize;
    let blocks = cache.read(Tick(0), &MODEL, &hashes);
    assert_eq!(blocks.len(), there);
    for (block, hash) in blocks.iter().zip(hashes) {
        assert_eq!(block.len(), BLOCK_SIZE);
        assert!(block.iter().all(|&byte| byte == hash.0[0]));
    }
}

/// Files in the folder that have no name yet.
fn parts(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).expect("it is there");
    let paths = entries.map(|entry| entry.expect("it can be listed").path());
    let is_part = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "part");
    paths.filter(is_part).count()
}
