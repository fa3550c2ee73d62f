//! What goes into a store and comes out of it, whatever the backend.

use std::fmt;
use std::sync::{Arc, OnceLock};

use cereus_core::effect::{Receipt, Transfer};
use cereus_core::event::Usage;
use cereus_core::ids::{AccountId, MachineId, RequestId};
use cereus_core::link::Owners;
use cereus_core::money::MicroUsd;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::ending::{About, Outcome};
use crate::receipts::Sealing;

/// SHA-256 of a whole key, which holds 256 random bits of its own: nothing slower is needed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    #[must_use]
    pub fn of(key: &str) -> Self {
        Self(Owners::digest(key))
    }

    pub(crate) const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Compares in constant time, so that timing tells nothing of a key.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// A key just made: the only time that its secret exists here.
#[derive(Debug)]
pub struct ApiKey {
    pub id: String,
    pub label: String,
    pub secret: SecretString,
}

impl ApiKey {
    pub(super) const PREFIX: &'static str = "sk-cereus-";
    /// Of the secret part, which is written as twice so many hexadecimal digits.
    pub(super) const SECRET_BYTES: usize = 32;

    /// Whether a text can be a key at all: what is cut short or of another service cannot.
    #[must_use]
    pub fn has_form(text: &str) -> bool {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        text.strip_prefix(Self::PREFIX)
            .is_some_and(|it| it.len() == 2 * Self::SECRET_BYTES && it.bytes().all(is_digit))
    }
}

/// A key as listed.
#[derive(Clone, Debug)]
pub struct KeyRow {
    pub id: String,
    pub label: String,
    pub account: AccountId,
    pub account_name: String,
    pub created_unix_s: i64,
    pub is_revoked: bool,
    pub(crate) hash: KeyHash,
}

/// A key that is ended for good.
#[derive(Clone, Debug)]
pub struct RevokedKey {
    pub key: KeyRow,
    /// It was before, so this changed nothing.
    pub was_revoked: bool,
}

/// An account with its money.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    pub id: AccountId,
    pub name: String,
    pub created_unix_s: i64,
    /// What it may spend; below zero where a deposit was taken back that was spent before.
    pub balance: MicroUsd,
    /// Set aside for running requests.
    pub held: MicroUsd,
    /// What its machines earned.
    pub earned: MicroUsd,
    pub key_count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DepositId(pub i64);

impl DepositId {
    pub(crate) fn number(self) -> u64 {
        u64::try_from(self.0).expect("SQLite's row counter starts at 1")
    }

    pub(crate) fn of(number: u64) -> Self {
        Self(i64::try_from(number).expect("it came from SQLite's row counter"))
    }
}

/// What became of a deposit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DepositState {
    /// In the ledger.
    Applied,
    /// Set aside: the books did not take it, for this reason. It never counted.
    Refused(String),
    /// No coordinator has seen it yet.
    Waiting,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepositRow {
    pub id: DepositId,
    pub account: AccountId,
    pub account_name: String,
    /// Below zero for a counter-entry.
    pub amount: MicroUsd,
    pub created_unix_s: i64,
    pub state: DepositState,
    /// The deposit that this one takes back.
    pub reverses: Option<DepositId>,
    /// The counter-entry that took this one back.
    pub reversed_by: Option<DepositId>,
}

/// Money that came in and is not in the ledger yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingDeposit {
    pub id: DepositId,
    pub account: AccountId,
    pub amount: MicroUsd,
}

/// A hold whose request died with an earlier process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenHold {
    pub account: AccountId,
    pub request: RequestId,
    pub amount: MicroUsd,
}

/// One thing to make durable.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A transfer of the core. That of a deposit refers to its number.
    Transfer(Transfer),
    /// The books did not take a deposit: it is set aside, so that no start meets it again.
    Refused { deposit: DepositId, reason: String },
    /// What a settled request was, cost and took. Comes with its settlement.
    Receipt(Arc<FinishedRequest>),
    /// The same, as the log has it, and what is kept of an answer that broke off.
    Logged(LoggedReceipt),
}

/// A receipt as it stands in the log and in the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggedReceipt {
    pub(crate) request: RequestId,
    pub(crate) account: AccountId,
    pub(crate) machine: MachineId,
    pub(crate) model: String,
    pub(crate) usage: Usage,
    /// JSON, as `GET /v1/receipts/{id}` shows it.
    pub(crate) body: String,
}

impl LoggedReceipt {
    pub(crate) fn of(finished: &FinishedRequest) -> Self {
        let receipt = &finished.receipt;
        Self {
            request: receipt.request,
            account: receipt.account,
            machine: receipt.machine,
            model: finished.model.clone(),
            usage: receipt.usage,
            body: finished.body().to_owned(),
        }
    }

    /// Of an answer that broke off, with the tokens that were shown. Nobody pays for it, so no machine
    /// earned by it.
    pub(crate) fn of_broken(request: RequestId, about: &About, shown_tokens: u32) -> Self {
        let usage = Usage {
            prompt_tokens: about.prompt_tokens,
            completion_tokens: shown_tokens,
        };
        let body = json!({
            "object": "receipt",
            "id": request.to_string(),
            "model": about.model,
            "outcome": Outcome::Broken.name(),
            "usage": usage,
            "micro_usd": { "charged": 0 },
        });
        Self {
            request,
            account: about.account,
            machine: MachineId(0),
            model: about.model.clone(),
            usage,
            body: body.to_string(),
        }
    }
}

/// A receipt with what the core does not know.
#[derive(Clone, Debug)]
pub struct FinishedRequest {
    pub receipt: Receipt,
    pub model: String,
    pub(crate) sealing: Sealing,
    pub(crate) outcome: Outcome,
    /// Written once, for the log, the database and whoever asks.
    body: OnceLock<String>,
}

impl FinishedRequest {
    pub(crate) const fn new(
        receipt: Receipt,
        model: String,
        sealing: Sealing,
        outcome: Outcome,
    ) -> Self {
        Self {
            receipt,
            model,
            sealing,
            outcome,
            body: OnceLock::new(),
        }
    }

    /// JSON, as `GET /v1/receipts/{id}` shows it.
    pub(crate) fn body(&self) -> &str {
        self.body.get_or_init(|| crate::receipts::as_json(self))
    }
}

/// A receipt as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReceipt {
    pub account: AccountId,
    /// JSON, as `GET /v1/receipts/{id}` shows it.
    pub body: String,
}

/// How a request stands that money was held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// The answer was paid for.
    Settled,
    /// The hold is open: it runs, or a start will void it.
    Running,
    /// The request ended without a charge.
    Voided,
}

impl RequestState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Running => "running",
            Self::Voided => "voided",
        }
    }
}

/// A request as the ledger and the receipts know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestRow {
    pub request: RequestId,
    pub account: AccountId,
    pub account_name: String,
    pub held_unix_s: i64,
    pub held: MicroUsd,
    pub charged: MicroUsd,
    pub state: RequestState,
    /// Known while its receipt is kept.
    pub model: Option<String>,
    pub prompt_tokens: Option<u32>,
    pub completion_tokens: Option<u32>,
}

/// What became known, in the order in which it must be told.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// The number of the last change among them.
    pub up_to: u64,
    /// New accounts, with what they may spend.
    pub accounts: Vec<(AccountId, MicroUsd)>,
    pub deposits: Vec<WaitingDeposit>,
    /// New keys and keys that were revoked.
    pub keys: Vec<KeyRow>,
}

impl Changes {
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.accounts.is_empty() && self.deposits.is_empty() && self.keys.is_empty()
    }
}

/// How much an audit looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditExtent {
    /// Every row, and the file itself.
    Everything,
    /// What was written since the last audit that found no contradiction.
    SinceLast,
}

/// What a clean audit counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Transfers looked at.
    pub transfer_count: u64,
    pub open_hold_count: u64,
    pub held: MicroUsd,
    /// What the platform has kept of all charges.
    pub platform: MicroUsd,
}
