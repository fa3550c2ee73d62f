//! Do balances and ledger agree? Asked at every start, before anything is served.

use std::fmt;

use cereus_core::money::MicroUsd;

use super::{Store, StoreError};

/// What a clean audit counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    pub transfer_count: u64,
    pub open_hold_count: u64,
    pub held: MicroUsd,
}

/// The first contradiction found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disagreement {
    /// A balance is not the sum of its postings.
    Balance { side: String, account: i64 },
    /// Held money is not the sum of the open holds.
    Held { account: i64 },
    /// A settle or void without a hold.
    NoHold { transfer: i64 },
    /// Postings of a transfer do not sum to zero.
    Unbalanced { transfer: i64 },
}

impl fmt::Display for Disagreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Balance { side, account } => write!(
                f,
                "the balance of {side} {account} is not the sum of its postings"
            ),
            Self::Held { account } => write!(
                f,
                "what is held for account {account} is not the sum of its open holds"
            ),
            Self::NoHold { transfer } => write!(f, "transfer {transfer} ends a hold never made"),
            Self::Unbalanced { transfer } => {
                write!(f, "the postings of transfer {transfer} do not sum to zero")
            }
        }
    }
}

const UNBALANCED: &str =
    "SELECT transfer FROM postings GROUP BY transfer HAVING sum(amount) <> 0 LIMIT 1";
const NO_HOLD: &str = "SELECT e.id FROM transfers e WHERE e.kind IN ('settle', 'void')
     AND NOT EXISTS (SELECT 1 FROM transfers h WHERE h.request = e.request AND h.kind = 'hold')
     LIMIT 1";
/// Both directions at once: a balance without postings counts as much as postings without balance.
const BALANCE: &str = "SELECT side, account FROM (
         SELECT side, account, amount FROM balances
         UNION ALL
         SELECT side, account, -amount FROM postings)
     GROUP BY side, account HAVING sum(amount) <> 0 LIMIT 1";

impl Store {
    pub fn audit(&self) -> Result<Audit, StoreError> {
        if let Some(transfer) = self.first(UNBALANCED, |row| row.get(0))? {
            return Err(StoreError::Audit(Disagreement::Unbalanced { transfer }));
        }
        if let Some(transfer) = self.first(NO_HOLD, |row| row.get(0))? {
            return Err(StoreError::Audit(Disagreement::NoHold { transfer }));
        }
        if let Some((side, account)) = self.first(BALANCE, |row| Ok((row.get(0)?, row.get(1)?)))? {
            return Err(StoreError::Audit(Disagreement::Balance { side, account }));
        }
        let held = self.check_held()?;
        let transfer_count = self
            .db
            .query_row("SELECT count(*) FROM transfers", [], |row| row.get(0))
            .map(|count: i64| u64::try_from(count).unwrap_or_default())?;
        Ok(Audit {
            transfer_count,
            open_hold_count: held.count,
            held: held.amount,
        })
    }

    fn check_held(&self) -> Result<Held, StoreError> {
        use std::collections::BTreeMap;

        let holds = self.open_holds()?;
        let mut sums: BTreeMap<i64, i64> = BTreeMap::new();
        for hold in &holds {
            *sums.entry(super::keys::row_id(hold.account)).or_default() += hold.amount.0;
        }
        let mut statement = self
            .db
            .prepare_cached("SELECT account, amount FROM balances WHERE side = 'held'")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        for row in rows {
            let (account, amount): (i64, i64) = row?;
            if sums.remove(&account).unwrap_or_default() != amount {
                return Err(StoreError::Audit(Disagreement::Held { account }));
            }
        }
        if let Some((&account, _)) = sums.first_key_value() {
            return Err(StoreError::Audit(Disagreement::Held { account }));
        }
        Ok(Held {
            count: u64::try_from(holds.len()).unwrap_or(u64::MAX),
            amount: holds.iter().map(|hold| hold.amount).sum(),
        })
    }

    fn first<T>(
        &self,
        sql: &str,
        read: impl FnOnce(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, StoreError> {
        use rusqlite::OptionalExtension;

        Ok(self.db.query_row(sql, [], read).optional()?)
    }
}

struct Held {
    count: u64,
    amount: MicroUsd,
}
