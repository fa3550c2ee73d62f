//! Commands on a coordinator's data folder: keys and credit.

use cereus_coordinator::store::Store;
use cereus_core::money::MicroUsd;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::Outcome;
use crate::cli::{CreditArgs, KeyCreateArgs, KeyListArgs};

pub(crate) fn create_key(args: &KeyCreateArgs) -> Outcome {
    let mut store = Store::open(&args.data).map_err(|error| error.to_string())?;
    let key = store
        .create_key(&args.account)
        .map_err(|error| error.to_string())?;
    if let Some(amount) = args.credit {
        add(&mut store, &args.account, amount)?;
    }
    if args.quiet {
        println!("{}", key.secret.expose_secret());
    } else {
        println!("key      {}", key.secret.expose_secret());
        println!("id       {}", key.id);
        println!("account  {}", args.account);
        println!("\nKeep the key now: only its hash is stored, it cannot be shown again.");
    }
    Ok(())
}

pub(crate) fn list_keys(args: &KeyListArgs) -> Outcome {
    let store = Store::open(&args.data).map_err(|error| error.to_string())?;
    let keys = store.keys().map_err(|error| error.to_string())?;
    for key in &keys {
        if args.json {
            let line = json!({
                "id": key.id, "label": key.label, "account": key.account_name,
                "disabled": key.is_disabled,
            });
            println!("{line}");
        } else {
            println!("{}  {}  {}", key.id, key.label, key.account_name);
        }
    }
    if keys.is_empty() && !args.json {
        println!("There are no keys yet; make one with `cereus key create --account NAME`.");
    }
    Ok(())
}

pub(crate) fn credit(args: &CreditArgs) -> Outcome {
    let mut store = Store::open(&args.data).map_err(|error| error.to_string())?;
    add(&mut store, &args.account, args.amount)?;
    println!("Added {} to {}.", dollars(args.amount), args.account);
    Ok(())
}

fn add(store: &mut Store, name: &str, amount: i64) -> Outcome {
    let account = store.account(name).map_err(|error| error.to_string())?;
    let account = account.ok_or_else(|| {
        format!("there is no account {name}; `cereus key create --account {name}` makes it")
    })?;
    store
        .deposit(account, MicroUsd(amount))
        .map_err(|error| error.to_string())
}

/// Whole millionths as dollars, exactly.
pub(crate) fn dollars(amount: i64) -> String {
    const PARTS: u64 = 1_000_000;
    let sign = if amount < 0 { "-" } else { "" };
    let size = amount.unsigned_abs();
    format!("{sign}${}.{:06}", size / PARTS, size % PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_shown_to_the_millionth() {
        assert_eq!(dollars(5_000_000), "$5.000000");
        assert_eq!(dollars(-101), "-$0.000101");
        assert_eq!(dollars(i64::MIN), "-$9223372036854.775808");
    }
}
