//! `cereus credit`.

use cereus_coordinator::store::{DepositId, DepositRow, DepositState};
use cereus_core::money::MicroUsd;
use serde_json::{Value, json};

use super::table::{Table, dollars, moment};
use super::{command_on, find, look, missing, text};
use crate::Outcome;
use crate::cli::{CreditAddArgs, CreditListArgs, CreditReverseArgs};
use crate::say;

pub(crate) fn add_credit(args: &CreditAddArgs) -> Outcome {
    let mut store = look(&args.data)?;
    let account = find(&*store, &args.data, &args.account)?;
    let DepositId(id) = store
        .deposit(account, MicroUsd(args.amount))
        .map_err(text)?;
    if args.json {
        let line = json!({ "id": id, "account": args.account, "micro_usd": args.amount });
        say(&format!("{line}\n"))?;
    } else {
        let amount = dollars(args.amount);
        say(&format!(
            "Added {amount} to {} (credit {id}).\n",
            args.account
        ))?;
    }
    Ok(())
}

pub(crate) fn list_credit(args: &CreditListArgs) -> Outcome {
    let store = look(&args.list.data)?;
    let account = match &args.account {
        Some(name) => Some(find(&*store, &args.list.data, name)?),
        None => None,
    };
    let rows = store.deposits(account, args.last).map_err(text)?;
    if args.list.json {
        for row in &rows {
            say(&format!("{}\n", as_json(row)))?;
        }
        return Ok(());
    }
    let mut table = Table::new(["ID", "WHEN", "ACCOUNT", "AMOUNT", "STATE"]);
    for row in rows {
        let state = state(&row);
        table.push([
            row.id.0.to_string(),
            moment(row.created_unix_s),
            row.account_name,
            dollars(row.amount.0),
            state,
        ]);
    }
    let add = command_on(&args.list.data, "credit --account NAME --amount USD");
    table.print(&format!("Nothing came in yet; {add} adds money."))
}

pub(crate) fn reverse_credit(args: &CreditReverseArgs) -> Outcome {
    let mut store = look(&args.list.data)?;
    let row = store.reverse_deposit(DepositId(args.id));
    let row = row.map_err(|error| missing(error, &args.list.data))?;
    if args.list.json {
        say(&format!("{}\n", as_json(&row)))?;
    } else {
        say(&format!(
            "Took {} back from {} (credit {} reverses {}).\n",
            dollars(row.amount.0.saturating_neg()),
            row.account_name,
            row.id.0,
            args.id
        ))?;
    }
    Ok(())
}

fn state(row: &DepositRow) -> String {
    let mut text = match &row.state {
        DepositState::Applied => "applied".to_owned(),
        DepositState::Refused(reason) => format!("set aside: {reason}"),
        DepositState::Waiting => "waits for a coordinator".to_owned(),
    };
    if let Some(DepositId(first)) = row.reverses {
        text += &format!(", reverses {first}");
    }
    if let Some(DepositId(by)) = row.reversed_by {
        text += &format!(", reversed by {by}");
    }
    text
}

fn as_json(row: &DepositRow) -> Value {
    let (state, reason) = match &row.state {
        DepositState::Applied => ("applied", None),
        DepositState::Refused(reason) => ("refused", Some(reason)),
        DepositState::Waiting => ("waiting", None),
    };
    json!({
        "id": row.id.0,
        "account": row.account_name,
        "micro_usd": row.amount.0,
        "created_unix_s": row.created_unix_s,
        "state": state,
        "reason": reason,
        "reverses": row.reverses.map(|id| id.0),
        "reversed_by": row.reversed_by.map(|id| id.0),
    })
}
