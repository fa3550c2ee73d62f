//! Commands on a coordinator's data folder: keys, credit, accounts, requests, and what the coordinator
//! that runs there says of its fleet.

mod credit;
mod earnings;
mod fleet;
mod keys;
mod money;
mod table;

pub(crate) use credit::{add_credit, list_credit, reverse_credit};
pub(crate) use earnings::earnings;
pub(crate) use fleet::{list_providers, prices};
pub(crate) use keys::{create_key, list_keys, revoke_key};
pub(crate) use money::{audit, list_accounts, list_requests};
pub(crate) use table::dollars;

use std::path::Path;

use cereus_coordinator::hint::{command_on, word};
use cereus_coordinator::store::{self, FILE_NAME, Store, StoreError};
use cereus_core::ids::AccountId;

use crate::Outcome;
use crate::cli::{CreditArgs, CreditCommand};

pub(crate) fn credit(args: &CreditArgs) -> Outcome {
    match (&args.command, &args.add) {
        (Some(CreditCommand::List(args)), _) => list_credit(args),
        (Some(CreditCommand::Reverse(args)), _) => reverse_credit(args),
        (None, Some(add)) => add_credit(add),
        (None, None) => Err(
            "whose credit, and how much? For instance `cereus credit --account ada --amount 2.50`"
                .to_owned(),
        ),
    }
}

/// For the command that begins books: makes them if there are none.
fn open(data: &Path) -> Result<Box<dyn Store>, String> {
    store::open(data).map_err(text)
}

/// For every other command: a folder without books is most likely a slip.
fn look(data: &Path) -> Result<Box<dyn Store>, String> {
    if data.exists() && !data.is_dir() {
        return Err(format!(
            "cannot read the books in {} (not a folder); --data names the coordinator's folder",
            data.display()
        ));
    }
    let found = data.join(FILE_NAME).try_exists();
    let is_there = found.map_err(|error| {
        format!(
            "cannot read the books in {} ({error}); they are their owner's alone: run this as who runs \
             the coordinator, or name another folder with --data",
            data.display()
        )
    })?;
    if !is_there {
        return Err(format!(
            "there are no books in {}; --data names the coordinator's folder, and {} begins new ones",
            data.display(),
            command_on(data, "key create --account NAME")
        ));
    }
    open(data)
}

/// The account of that name, which must be there.
fn find(store: &dyn Store, data: &Path, name: &str) -> Result<AccountId, String> {
    store.account(name).map_err(text)?.ok_or_else(|| {
        let create = command_on(data, &format!("key create --account {}", word(name)));
        format!("there is no account {name}; {create} makes it")
    })
}

/// What the store says, and the command that lists what there is.
fn missing(error: StoreError, data: &Path) -> String {
    let (words, what) = match error {
        StoreError::NoCredit(_) => ("credit list", "numbers"),
        StoreError::NoKey(_) => ("key list", "ids"),
        StoreError::Audit(_)
        | StoreError::Corrupt { .. }
        | StoreError::Folder { .. }
        | StoreError::InUse { .. }
        | StoreError::Log { .. }
        | StoreError::Request(_)
        | StoreError::Sqlite(_)
        | StoreError::Thread(_)
        | StoreError::TooNew { .. } => return text(error),
    };
    format!("{error}; {} shows the {what}", command_on(data, words))
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
