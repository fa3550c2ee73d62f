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
pub(crate) use fleet::{list_prices, list_providers};
pub(crate) use keys::{create_key, list_keys, revoke_key};
pub(crate) use money::{audit, list_accounts, list_requests};
pub(crate) use table::dollars;

use std::path::Path;

use cereus_coordinator::store::{self, FILE_NAME, Store};
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

/// For a command that adds to the books: makes them if there are none.
fn open(data: &Path) -> Result<Box<dyn Store>, String> {
    store::open(data).map_err(text)
}

/// For a command that only looks: a folder without books is most likely a slip.
fn look(data: &Path) -> Result<Box<dyn Store>, String> {
    if !data.join(FILE_NAME).exists() {
        return Err(format!(
            "there are no books in {}; --data names the coordinator's folder, and `cereus key create` \
             begins new ones",
            data.display()
        ));
    }
    open(data)
}

/// The account of that name, which must be there.
fn find(store: &dyn Store, name: &str) -> Result<AccountId, String> {
    store.account(name).map_err(text)?.ok_or_else(|| {
        format!("there is no account {name}; `cereus key create --account {name}` makes it")
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
