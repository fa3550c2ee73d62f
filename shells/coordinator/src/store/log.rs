//! The transfers that are durable and not in the database yet: one file that only grows, synced at each
//! batch. A batch is there when its line is; the database takes many of them at once a moment later
//! (`applier`), and a start takes what the last process could not.
//!
//! A settlement has its receipt beside it, so that whoever paid has one whatever happens next.
//!
//! A line is the checksum of what follows, in hexadecimal, and a batch as JSON. Two files take turns: when
//! one has become long, the next batch goes to the other as soon as the database has all that is in it.
//!
//! Nobody else may write to them. Where somebody did, nothing more is written: a line behind a hole, or
//! behind lines that are gone, would keep every start from reading on.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use cereus_core::effect::{Cause, Posting, Postings, Transfer, TransferKind};
use cereus_core::ids::RequestId;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::folder::private_growing_file;
use super::rows::LoggedReceipt;

const NAMES: [&str; 2] = ["transfers.0.log", "transfers.1.log"];
/// From here on the other file takes over. A start reads this in a moment.
const LONG: u64 = 8 << 20;
const CHECKSUM_DIGITS: usize = 8;
/// How every line goes on after its checksum, and nothing in the middle of one: JSON has no spaces here.
const LINE_MARK: &[u8] = b" {\"batch\":";

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
    /// What somebody else did to a file, once it was seen.
    changed: Option<Changed>,
    /// A write failed: how long the file is tells nothing any more.
    has_failed: bool,
}

/// A file is not as this process left it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum Changed {
    #[error("{} was deleted or replaced", .0.display())]
    Gone(PathBuf),
    #[error("{} has {found} bytes and not the {written} that were written", path.display())]
    Length {
        path: PathBuf,
        found: u64,
        written: u64,
    },
}

#[derive(Debug)]
struct Half {
    path: PathBuf,
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
    /// Of the settlements among them. Logs of before have none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    receipts: Vec<LoggedReceipt>,
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

/// A batch, and where its line is.
#[derive(Debug)]
struct Found {
    batch: Batch,
    file: &'static str,
    offset: usize,
}

/// All the batches in the log of a folder, oldest first.
#[derive(Debug)]
pub(crate) struct Read(Vec<Found>);

/// What an earlier process left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// Those after the batch that was asked for, oldest first.
    pub(crate) transfers: Vec<Transfer>,
    pub(crate) receipts: Vec<LoggedReceipt>,
    /// The newest batch of all.
    pub(crate) up_to: BatchNo,
}

impl Read {
    /// What there is beyond the batch that the database has.
    ///
    /// # Errors
    /// A batch is missing before the first of those, or between two.
    pub(crate) fn after(self, applied: BatchNo) -> io::Result<Left> {
        let mut left = Left {
            transfers: Vec::new(),
            receipts: Vec::new(),
            up_to: applied,
        };
        for found in self.0 {
            let (is, should) = (found.batch.batch, left.up_to + 1);
            if is < should {
                continue;
            }
            let damaged = |what: String| damaged(found.file, found.offset, &what);
            if is > should {
                return Err(damaged(format!("batch {is} follows where {should} should")));
            }
            left.up_to = is;
            left.receipts.extend(found.batch.receipts);
            for logged in found.batch.transfers {
                let transfer = logged.into_transfer();
                left.transfers
                    .push(transfer.map_err(|what| damaged(what.to_owned()))?);
            }
        }
        Ok(left)
    }
}

impl Log {
    /// All that the log of a folder holds. Changes nothing.
    ///
    /// # Errors
    /// The files cannot be read, or one is damaged elsewhere than in its last line.
    pub(crate) fn read(folder: &Path) -> io::Result<Read> {
        let mut found = Vec::new();
        for name in NAMES {
            found.extend(read(folder, name)?);
        }
        found.sort_by_key(|found| found.batch.batch);
        Ok(Read(found))
    }

    /// Opens the log to go on after `applied`, which is all that there is in it.
    pub(crate) fn open(folder: &Path, applied: BatchNo) -> io::Result<Self> {
        let half = |name| {
            let path = folder.join(name);
            let mut half = Half {
                file: private_growing_file(&path)?,
                path,
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
            changed: None,
            has_failed: false,
        })
    }

    /// Whether the files are as they were left.
    ///
    /// # Errors
    /// Somebody has changed one, now or before.
    pub(crate) fn look(&mut self) -> Result<(), Changed> {
        if self.changed.is_none() && !self.has_failed {
            self.changed = self.files.iter().find_map(|half| half.look().err());
        }
        self.changed.clone().map_or(Ok(()), Err)
    }

    /// Makes a batch durable. The database has all up to `applied`. After an error nothing more is.
    ///
    /// # Errors
    /// The disk refuses, or a file was changed by somebody else: then nothing is written.
    pub(crate) fn append<'t>(
        &mut self,
        transfers: impl Iterator<Item = &'t Transfer>,
        receipts: impl Iterator<Item = LoggedReceipt>,
        applied: BatchNo,
    ) -> io::Result<BatchNo> {
        if self.changed.is_none()
            && !self.has_failed
            && let Err(changed) = self.files[self.current].check_length()
        {
            self.changed = Some(changed);
        }
        if let Some(changed) = &self.changed {
            return Err(io::Error::other(changed.clone()));
        }
        let appended = self.append_to_file(transfers, receipts, applied);
        self.has_failed |= appended.is_err();
        appended
    }

    fn append_to_file<'t>(
        &mut self,
        transfers: impl Iterator<Item = &'t Transfer>,
        receipts: impl Iterator<Item = LoggedReceipt>,
        applied: BatchNo,
    ) -> io::Result<BatchNo> {
        self.turn(applied)?;
        let batch = Batch {
            batch: self.newest + 1,
            transfers: transfers.map(Logged::of).collect(),
            receipts: receipts.collect(),
        };
        self.line.clear();
        self.line.extend([b' '; CHECKSUM_DIGITS + 1]);
        serde_json::to_writer(&mut self.line, &batch)?;
        let checksum = crc32fast::hash(&self.line[CHECKSUM_DIGITS + 1..]);
        write!(&mut self.line[..CHECKSUM_DIGITS], "{checksum:08x}")?;
        self.line.push(b'\n');
        let half = &mut self.files[self.current];
        half.file.write_all(&self.line)?;
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
    /// Of the file that is open.
    fn check_length(&self) -> Result<(), Changed> {
        match self.file.metadata() {
            Ok(about) if about.len() != self.size => Err(Changed::Length {
                path: self.path.clone(),
                found: about.len(),
                written: self.size,
            }),
            // A disk that cannot say is about to refuse the write as well.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Also whether its name still leads to it.
    fn look(&self) -> Result<(), Changed> {
        let gone = || Err(Changed::Gone(self.path.clone()));
        match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) if (named.dev(), named.ino()) != (open.dev(), open.ino()) => {
                gone()
            }
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => gone(),
            _ => self.check_length(),
        }
    }

    /// Empty for good: no line of before may come up again behind a new one after a crash.
    fn clear(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() > 0 {
            self.file.set_len(0)?;
            self.file.sync_all()?;
        }
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

    /// What is wrong with it, if it can be none.
    fn into_transfer(self) -> Result<Transfer, &'static str> {
        if self.postings.len() > cereus_core::effect::POSTINGS_MAX {
            return Err("a transfer has more postings than there can be");
        }
        let transfer = Transfer {
            seq: 0,
            kind: self.kind,
            cause: self.request.map_or(Cause::Outside, Cause::Request),
            reference: self.reference,
            postings: Postings::of(&self.postings),
        };
        if !transfer.is_balanced() {
            return Err("a transfer does not sum to zero");
        }
        Ok(transfer)
    }
}

/// The whole lines of a file. A last one that is damaged was never told to anybody: its write or its
/// sync did not return.
fn read(folder: &Path, file: &'static str) -> io::Result<Vec<Found>> {
    let mut bytes = Vec::new();
    match File::open(folder.join(file)) {
        Ok(mut file) => file.read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let mut all: Vec<Found> = Vec::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let rest = &bytes[offset..];
        let Some((line, json)) = whole_line(rest) else {
            if let Some(ahead) = next_line(rest) {
                let what = format!(
                    "a line is damaged, and a whole one follows at byte {}",
                    offset + ahead
                );
                return Err(damaged(file, offset, &what));
            }
            break;
        };
        let batch: Batch = serde_json::from_slice(json)
            .map_err(|error| damaged(file, offset, &format!("this is no batch: {error}")))?;
        if let Some(last) = all.last()
            && batch.batch != last.batch.batch + 1
        {
            let (is, should) = (batch.batch, last.batch.batch + 1);
            let what = format!("batch {is} follows where {should} should");
            return Err(damaged(file, offset, &what));
        }
        all.push(Found {
            batch,
            file,
            offset,
        });
        offset += line;
    }
    Ok(all)
}

/// How long the line is that begins here, and its JSON; `None` if it is cut or damaged.
fn whole_line(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (checksum, rest) = bytes[..end].split_at_checked(CHECKSUM_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    // As it was written, to the letter.
    let is_whole = format!("{:08x}", crc32fast::hash(json)).as_bytes() == checksum;
    is_whole.then_some((end + 1, json))
}

/// Where the next whole line begins. Not only behind an end of line: that may be what is damaged.
fn next_line(bytes: &[u8]) -> Option<usize> {
    let marks = bytes.windows(LINE_MARK.len()).enumerate();
    let mut starts = marks
        .filter(|(_, window)| *window == LINE_MARK)
        .filter_map(|(at, _)| at.checked_sub(CHECKSUM_DIGITS));
    starts.find(|start| whole_line(&bytes[*start..]).is_some())
}

fn damaged(file: &str, offset: usize, what: &str) -> io::Error {
    let what = format!("{file}, byte {offset}: {what}");
    io::Error::new(io::ErrorKind::InvalidData, what)
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

    fn left_in(folder: &Path, applied: BatchNo) -> io::Result<Left> {
        Log::read(folder)?.after(applied)
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
        assert_eq!(log.append(first.iter(), std::iter::empty(), 0).unwrap(), 1);
        assert_eq!(log.append(second.iter(), std::iter::empty(), 0).unwrap(), 2);
        let left = left_in(folder.path(), 0).unwrap();
        assert_eq!(left.transfers, [first[0], first[1], second[0]]);
        assert_eq!(left.up_to, 2);
        assert_eq!(left_in(folder.path(), 1).unwrap().transfers, second);
        assert!(left_in(folder.path(), 2).unwrap().transfers.is_empty());
        // A log that was emptied goes on with the numbers.
        let mut log = Log::open(folder.path(), 2).unwrap();
        assert_eq!(log.append(first.iter(), std::iter::empty(), 2).unwrap(), 3);
        assert_eq!(left_in(folder.path(), 2).unwrap().up_to, 3);
    }

    #[test]
    fn a_last_line_that_was_cut_or_changed_was_told_to_nobody_and_any_other_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        for number in 1..=4 {
            log.append([transfer(number, 9)].iter(), std::iter::empty(), 0)
                .unwrap();
        }
        let path = folder.path().join(NAMES[0]);
        let whole = std::fs::read(&path).unwrap();
        let ends: Vec<usize> = (1..=whole.len())
            .filter(|end| whole[end - 1] == b'\n')
            .collect();
        for size in 0..whole.len() {
            std::fs::write(&path, &whole[..size]).unwrap();
            let up_to = left_in(folder.path(), 0).unwrap().up_to;
            let lines = ends.iter().filter(|end| **end <= size).count();
            assert_eq!(up_to, lines as u64, "{size} bytes");
        }
        for at in 0..whole.len() {
            for flipped in [1, 0x20, 0xff, whole[at] ^ b'\n'] {
                if flipped == 0 {
                    continue;
                }
                let mut changed = whole.clone();
                changed[at] ^= flipped;
                std::fs::write(&path, &changed).unwrap();
                let line = ends.iter().filter(|end| **end <= at).count();
                match left_in(folder.path(), 0) {
                    Ok(left) => {
                        assert_eq!(line, 3, "byte {at}");
                        assert_eq!(left.up_to, 3, "byte {at}");
                    }
                    Err(error) => {
                        assert!(line < 3, "byte {at}: {error}");
                        let start = if line == 0 { 0 } else { ends[line - 1] };
                        let place = format!("{}, byte {start}: ", NAMES[0]);
                        assert!(error.to_string().starts_with(&place), "byte {at}: {error}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_batch_that_is_missing_in_between_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 4).unwrap();
        for number in 1..=3 {
            log.append([transfer(number, 9)].iter(), std::iter::empty(), 4)
                .unwrap();
        }
        let error = left_in(folder.path(), 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "transfers.0.log, byte 0: batch 5 follows where 4 should"
        );
        let path = folder.path().join(NAMES[0]);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        std::fs::write(&path, [lines[0], lines[2]].concat()).unwrap();
        let error = left_in(folder.path(), 4).unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with(": batch 7 follows where 6 should"),
            "{error}"
        );
    }

    #[test]
    fn a_batch_that_is_missing_between_the_two_files_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        for number in 1..=3 {
            log.append([transfer(number, 9)].iter(), std::iter::empty(), 0)
                .unwrap();
        }
        let [first, second] = NAMES.map(|name| folder.path().join(name));
        let text = std::fs::read_to_string(&first).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        // The last line of the older file is cut, and the newer goes on.
        std::fs::write(&first, [lines[0], &lines[1][..9]].concat()).unwrap();
        std::fs::write(&second, lines[2]).unwrap();
        let error = left_in(folder.path(), 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "transfers.1.log, byte 0: batch 3 follows where 2 should"
        );
    }

    #[test]
    fn a_file_that_somebody_else_changed_is_seen_and_nothing_is_written_to_it() {
        type Change = fn(&Path);
        let changes: [Change; 4] = [
            |path| drop(File::create(path).unwrap()),
            |path| std::fs::write(path, "longer than it was".repeat(99)).unwrap(),
            |path| std::fs::remove_file(path).unwrap(),
            |path| {
                std::fs::rename(path, path.with_extension("1")).unwrap();
                File::create(path).unwrap();
            },
        ];
        for (ix, change) in changes.into_iter().enumerate() {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join(NAMES[0]);
            let mut log = Log::open(folder.path(), 0).unwrap();
            let one = [transfer(1, 9)];
            let append = |log: &mut Log| log.append(one.iter(), std::iter::empty(), 0);
            append(&mut log).unwrap();
            log.look().unwrap();
            change(&path);
            let is_length = ix < 2;
            if is_length {
                // Before each write, whether or not anybody has looked.
                let error = append(&mut log).unwrap_err().to_string();
                assert!(error.contains("transfers.0.log has "), "{error}");
            }
            let found = std::fs::read(&path).ok();
            let changed = log.look().unwrap_err();
            assert_eq!(matches!(changed, Changed::Length { .. }), is_length);
            append(&mut log).unwrap_err();
            assert_eq!(std::fs::read(&path).ok(), found, "nothing was written");
            // What the database has since taken is not missed by the next start.
            assert!(left_in(folder.path(), 1).unwrap().transfers.is_empty());
            Log::open(folder.path(), 1).unwrap().look().unwrap();
        }
    }

    #[test]
    fn the_files_take_turns_once_the_database_has_what_the_other_holds() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        let many: Vec<Transfer> = (0..20_000).map(|number| transfer(number, 9)).collect();
        let mut applied = 0;
        for turn in 1..=12 {
            let newest = log
                .append(many.iter(), std::iter::empty(), applied)
                .unwrap();
            assert_eq!(newest, turn);
            if turn % 3 == 0 {
                applied = newest;
            }
            let left = left_in(folder.path(), applied).unwrap();
            assert_eq!(left.up_to, newest, "nothing is lost");
        }
        let sizes = NAMES.map(|name| folder.path().join(name).metadata().unwrap().len());
        assert!(sizes.iter().all(|size| *size > 0), "both were used");
        assert!(sizes.iter().sum::<u64>() < 8 * LONG, "{sizes:?}");
    }

    #[test]
    fn a_receipt_comes_back_with_its_settlement_and_a_log_without_receipts_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = Log::open(folder.path(), 0).unwrap();
        let finished = crate::store::sqlite::tests::finished(AccountId(3), 7);
        log.append([transfer(6, 9)].iter(), std::iter::empty(), 0)
            .unwrap();
        log.append(
            [transfer(7, 9)].iter(),
            [LoggedReceipt::of(&finished)].into_iter(),
            0,
        )
        .unwrap();
        let left = left_in(folder.path(), 0).unwrap();
        assert_eq!(left.transfers.len(), 2);
        assert_eq!(left.receipts, [LoggedReceipt::of(&finished)]);
        assert!(left_in(folder.path(), 2).unwrap().receipts.is_empty());
    }
}
