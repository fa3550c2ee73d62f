//! The log of transfers as it lies on the disk: a line for each batch, some of them not as they were
//! written. The simulated twin of the store's log, with what a start makes of it.

use std::collections::BTreeMap;

use cereus_core::effect::{LedgerAccount, Transfer, TransferKind};
use cereus_core::ids::{AccountId, RequestId};
use cereus_core::money::MicroUsd;

use super::Plant;
use super::plan::Damage;

/// How much of a line is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Nothing,
    /// It ends somewhere: `part` draws where.
    Torn {
        part: u64,
    },
    Whole,
}

#[derive(Clone, Debug)]
struct Line {
    batch: Vec<Transfer>,
    kept: Kept,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Log {
    lines: Vec<Line>,
}

/// What a starting coordinator is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) balances: BTreeMap<AccountId, MicroUsd>,
    pub(super) holds: BTreeMap<RequestId, (AccountId, MicroUsd)>,
}

/// What a start found behind the last whole line before any damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    Clean,
    /// A damaged end.
    Damaged,
    /// Whole lines behind a damaged one, which whoever restores the store takes away.
    BehindAHole,
}

impl Log {
    pub(super) fn append(&mut self, batch: Vec<Transfer>, kept: Kept) {
        self.lines.push(Line { batch, kept });
    }

    pub(super) fn damage(&mut self, damage: Damage, part: u64) {
        let count = self.lines.len();
        match damage {
            Damage::Hole { lines } => {
                if let Some(line) = self.lines.iter_mut().rev().nth(usize::from(lines)) {
                    line.kept = Kept::Nothing;
                }
            }
            Damage::Torn => {
                if let Some(line) = self.lines.last_mut() {
                    line.kept = Kept::Torn { part };
                }
            }
            Damage::Zeroed { lines } => {
                let from = count.saturating_sub(usize::from(lines));
                for line in &mut self.lines[from..] {
                    line.kept = Kept::Nothing;
                }
            }
        }
    }

    /// The transfers that count: those of the lines before the first that is damaged.
    pub(super) fn sound(&self) -> impl Iterator<Item = &Transfer> {
        let sound = self.lines.iter();
        let sound = sound.take_while(|line| line.kept == Kept::Whole);
        sound.flat_map(|line| &line.batch)
    }

    /// Whether everything up to that number is there.
    pub(super) fn holds(&self, up_to: u64) -> bool {
        self.sound().last().is_some_and(|last| last.seq >= up_to)
    }

    /// Reads it as a start does, and takes away what does not count. `heard` is the newest number that
    /// the process before knew to be there.
    pub(super) fn read(&mut self, heard: u64, plant: Option<Plant>) -> (Left, Tail) {
        let sound = self.lines.iter();
        let sound = sound.take_while(|line| line.kept == Kept::Whole).count();
        let behind = &self.lines[sound..];
        let tail = match behind.iter().any(|line| line.kept == Kept::Whole) {
            true => Tail::BehindAHole,
            false if behind.is_empty() => Tail::Clean,
            false => Tail::Damaged,
        };
        let mut left = Left::default();
        for (ix, line) in self.lines.iter().enumerate() {
            for transfer in &line.batch[..believed(line, ix < sound, plant)] {
                if plant != Some(Plant::ForgetsUnheard) || transfer.seq <= heard {
                    left.take(transfer);
                }
            }
        }
        if plant != Some(Plant::WritesBehindDamage) {
            self.lines.truncate(sound);
        }
        (left, tail)
    }
}

/// How many transfers of a line a start takes.
fn believed(line: &Line, is_sound: bool, plant: Option<Plant>) -> usize {
    match (line.kept, plant) {
        (Kept::Torn { part }, Some(Plant::TakesTornLines)) => {
            let count = line.batch.len() as u64;
            usize::try_from(part % (count + 1)).expect("at most a count")
        }
        (Kept::Whole, Some(Plant::ReadsOverHoles)) => line.batch.len(),
        (Kept::Whole, _) if is_sound => line.batch.len(),
        (Kept::Nothing | Kept::Torn { .. } | Kept::Whole, _) => 0,
    }
}

impl Left {
    fn take(&mut self, transfer: &Transfer) {
        for posting in &transfer.postings {
            if let LedgerAccount::Consumer(id) = posting.account {
                let balance = self.balances.entry(id).or_default();
                balance.0 += posting.amount.0;
            }
        }
        let Some(request) = transfer.request() else {
            return;
        };
        match transfer.kind {
            TransferKind::Deposit => {}
            TransferKind::Hold => {
                let held = transfer.postings.iter().find_map(|it| match it.account {
                    LedgerAccount::Held(id) => Some((id, it.amount)),
                    LedgerAccount::Clearing
                    | LedgerAccount::Consumer(_)
                    | LedgerAccount::Platform
                    | LedgerAccount::Provider(_) => None,
                });
                self.holds.extend(held.map(|held| (request, held)));
            }
            TransferKind::Settle | TransferKind::Void => {
                self.holds.remove(&request);
            }
        }
    }
}
