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

/// For the command that begins books: makes them if there are none.
fn open(data: &Path) -> Result<Box<dyn Store>, String> {
    store::open(data).map_err(text)
}

/// For every other command: a folder without books is most likely a slip.
fn look(data: &Path) -> Result<Box<dyn Store>, String> {
    if !data.join(FILE_NAME).exists() {
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

/// A command to try next, on the same books as this one.
fn command_on(data: &Path, words: &str) -> String {
    let data = word(&data.display().to_string());
    format!("`cereus {words} --data {data}`")
}

/// As a shell reads it back.
fn word(text: &str) -> String {
    let is_plain = |it: char| it.is_alphanumeric() || "/._-+,:@%".contains(it);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    let quoted = text.replace('\'', r"'\''");
    format!("'{quoted}'")
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_can_be_pasted_into_a_shell() {
        let hint = |data: &str| command_on(Path::new(data), "key list");
        assert_eq!(hint("data"), "`cereus key list --data data`");
        assert_eq!(hint("my data"), "`cereus key list --data 'my data'`");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word(""), "''");
    }
}
