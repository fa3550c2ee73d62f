//! The transfers that are durable and not in the database yet: one file that only grows, synced at each
//! batch. A batch is there when its line is; the database takes many of them at once a moment later
//! (`applier`), and a start takes what the last process could not.
//!
//! A line is the checksum of what follows, in hexadecimal, and a batch as JSON. Two files take turns: when
//! one has become long, the next batch goes to the other as soon as the database has all that is in it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cereus_core::effect::{Cause, Posting, Postings, Transfer, TransferKind};
use cereus_core::ids::RequestId;
use serde::{Deserialize, Serialize};

use super::folder::private_file;

const NAMES: [&str; 2] = ["transfers.0.log", "transfers.1.log"];
/// From here on the other file takes over. A start reads this in a moment.
const LONG: u64 = 8 << 20;
const CHECKSUM_DIGITS: usize = 8;

/// Batches are numbered from 1 for as long as the data folder lives.
pub(crate) type BatchNo = u64;

/// See the module.
#[derive(Debug)]
pub(crate) struct Log {
    files: [Half; 2],
    /// Which of the two files grows now.
    current: usize,
    newest: BatchNo,
    line: Vec<u8>,
}

#[derive(Debug)]
struct Half {
    file: File,
    size: u64,
    /// 0 while it is empty.
    newest: BatchNo,
}

/// One line of the log: one batch.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    batch: BatchNo,
    transfers: Vec<Logged>,
}

/// A transfer. It was numbered by the process that is gone, which tells nobody anything.
#[derive(Debug, Serialize, Deserialize)]
struct Logged {
    kind: TransferKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<RequestId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<u64>,
    postings: Vec<Posting>,
}

/// What an earlier process left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Those after the batch that was asked for, oldest first.
    pub(crate) transfers: Vec<Transfer>,
    /// The newest batch of all.
    pub(crate) up_to: BatchNo,
}

impl Log {
    /// What the log of a folder holds beyond the batch that the database has.
    ///
    /// # Errors
    /// The files cannot be read, or a batch is missing between two that are there.
    pub(crate) fn left(folder: &Path, applied: BatchNo) -> io::Result<Left> {
        let mut batches = Vec::new();
        for name in NAMES {
            batches.extend(read(&folder.join(name))?);
        }
        batches.sort_by_key(|batch| batch.batch);
        let mut left = Left {
            transfers: Vec::new(),
            up_to: applied,
        };
        for batch in batches {
            if batch.batch <= left.up_to {
                continue;
            }
            if batch.batch != left.up_to + 1 {
                let (is, should) = (batch.batch, left.up_to + 1);
                let what = format!("batch {is} of transfers follows where {should} should");
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
            left.up_to = batch.batch;
            for logged in batch.transfers {
                left.transfers.push(logged.into_transfer()?);
            }
        }
        Ok(left)
    }

    /// Opens the log to go on after `applied`, which is all that there is in it.
    pub(crate) fn open(folder: &Path, applied: BatchNo) -> io::Result<Self> {
        let half = |name| {
            let file = private_file(&folder.join(name))?;
            let mut half = Half {
                file,
                size: 0,
                newest: 0,
            };
            half.clear()?;
            Ok::<_, io::Error>(half)
        };
        let files = [half(NAMES[0])?, half(NAMES[1])?];
        // The names of new files must be as durable as what comes into them.
        File::open(folder)?.sync_all()?;
        Ok(Self {
            files,
            current: 0,
            newest: applied,
            line: Vec::new(),
        })
    }

    /// Makes a batch durable. The database has all up to `applied`.
    pub(crate) fn append<'t>(
        &mut self,
        transfers: impl Iterator<Item = &'t Transfer>,
        applied: BatchNo,
    ) -> io::Result<BatchNo> {
        self.turn(applied)?;
        let batch = Batch {
            batch: self.newest + 1,
            transfers: transfers.map(Logged::of).collect(),
        };
        self.line.clear();
        self.line.extend([b' '; CHECKSUM_DIGITS + 1]);
        serde_json::to_writer(&mut self.line, &batch)?;
        let checksum = crc32fast::hash(&self.line[CHECKSUM_DIGITS + 1..]);
        write!(&mut self.line[..CHECKSUM_DIGITS], "{checksum:08x}")?;
        self.line.push(b'\n');
        let half = &mut self.files[self.current];
        half.file.write_all_at(&self.line, half.size)?;
        half.file.sync_data()?;
        half.size += u64::try_from(self.line.len()).unwrap_or(u64::MAX);
        half.newest = batch.batch;
        self.newest = batch.batch;
        Ok(batch.batch)
    }

    fn turn(&mut self, applied: BatchNo) -> io::Result<()> {
        let other = 1 - self.current;
        if self.files[self.current].size < LONG || self.files[other].newest > applied {
            return Ok(());
        }
        self.files[other].clear()?;
        self.current = other;
        Ok(())
    }
}

impl Half {
    fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.size = 0;
        self.newest = 0;
        Ok(())
    }
}

impl Logged {
    fn of(transfer: &Transfer) -> Self {
        Self {
            kind: transfer.kind,
            request: transfer.request(),
            reference: transfer.reference,
            postings: transfer.postings.iter().copied().collect(),
        }
    }

    fn into_transfer(self) -> io::Result<Transfer> {
        let wrong = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        if self.postings.len() > cereus_core::effect::POSTINGS_MAX {
            return Err(wrong("a transfer has more postings than there can be"));
        }
        let transfer = Transfer {
            seq: 0,
            kind: self.kind,
            cause: self.request.map_or(Cause::Outside, Cause::Request),
            reference: self.reference,
            postings: Postings::of(&self.postings),
        };
        if !transfer.is_balanced() {
            return Err(wrong("a transfer does not sum to zero"));
        }
        Ok(transfer)
    }
}

/// The whole lines of a file. What follows the first that is none was never told to anybody: its write
/// or its sync did not return.
fn read(path: &PathBuf) -> io::Result<Vec<Batch>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    Ok(lines.map_while(batch).collect())
}

fn batch(line: &[u8]) -> Option<Batch> {
    let line = line.strip_suffix(b"\n")?;
    let (checksum, rest) = line.split_at_checked(CHECKSUM_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    let checksum = u32::from_str_radix(core::str::from_utf8(checksum).ok()?, 16).ok()?;
    if crc32fast::hash(json) != checksum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use cereus_core::effect::LedgerAccount;
    use cereus_core::ids::AccountId;
    use cereus_core::money::MicroUsd;

    use super::*;

    fn transfer(request: u128, amount: i64) -> Transfer {
        let account = AccountId(3);
        Transfer {
            seq: 0,
            kind: TransferKind::Hold,
            cause: Cause::Request(RequestId(request)),
            reference: None,
            postings: Postings::listed(&[
                (LedgerAccount::Consumer(account), MicroUsd(-amount)),
                (LedgerAccount::Held(account), MicroUsd(amount)),
            ]),
        }
    }

    fn deposit(reference: u64) -> Transfer {
        Transfer {
            kind: TransferKind::Deposit,
            cause: Cause::Outside,
            reference: Some(reference),
            ..transfer(0, 5)
        }
    }

    #[test]
    fn what_was_appended_is_read_again_and_what_the_database_has_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        let (first, second) = ([transfer(u128::MAX, 7), deposit(4)], [transfer(8, 0)]);
        assert_eq!(log.append(first.iter(), 0).unwrap(), 1);
        assert_eq!(log.append(second.iter(), 0).unwrap(), 2);
        let left = Log::left(folder.path(), 0).unwrap();
        assert_eq!(left.transfers, [first[0], first[1], second[0]]);
        assert_eq!(left.up_to, 2);
        assert_eq!(Log::left(folder.path(), 1).unwrap().transfers, second);
        assert!(Log::left(folder.path(), 2).unwrap().transfers.is_empty());
        // A log that was emptied goes on with the numbers.
        let mut log = Log::open(folder.path(), 2).unwrap();
        assert_eq!(log.append(first.iter(), 2).unwrap(), 3);
        assert_eq!(Log::left(folder.path(), 2).unwrap().up_to, 3);
    }

    #[test]
    fn a_line_that_was_cut_or_changed_ends_the_log_wherever_it_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        for number in 1..=2 {
            log.append([transfer(number, 9)].iter(), 0).unwrap();
        }
        let path = folder.path().join(NAMES[0]);
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for size in 0..whole.len() {
            std::fs::write(&path, &whole[..size]).unwrap();
            let up_to = Log::left(folder.path(), 0).unwrap().up_to;
            assert_eq!(up_to, u64::from(size >= first), "{size} bytes");
        }
        for at in first..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            std::fs::write(&path, &changed).unwrap();
            assert_eq!(Log::left(folder.path(), 0).unwrap().up_to, 1, "byte {at}");
        }
    }

    #[test]
    fn a_batch_that_is_missing_in_between_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 4).unwrap();
        log.append([transfer(1, 9)].iter(), 4).unwrap();
        let error = Log::left(folder.path(), 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "batch 5 of transfers follows where 4 should"
        );
    }

    #[test]
    fn the_files_take_turns_once_the_database_has_what_the_other_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        let many: Vec<Transfer> = (0..20_000).map(|number| transfer(number, 9)).collect();
        let mut applied = 0;
        for turn in 1..=12 {
            let newest = log.append(many.iter(), applied).unwrap();
            assert_eq!(newest, turn);
            if turn % 3 == 0 {
                applied = newest;
            }
            let left = Log::left(folder.path(), applied).unwrap();
            assert_eq!(left.up_to, newest, "nothing is lost");
        }
        let sizes = NAMES.map(|name| folder.path().join(name).metadata().unwrap().len());
        assert!(sizes.iter().all(|size| *size > 0), "both were used");
        assert!(sizes.iter().sum::<u64>() < 8 * LONG, "{sizes:?}");
    }
}
