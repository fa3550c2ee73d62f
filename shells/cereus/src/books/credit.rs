//! `cereus credit`.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use cereus_coordinator::store::{DepositId, DepositRow, DepositState, Store, is_served};
use cereus_core::money::MicroUsd;
use serde_json::{Value, json};

use super::table::{Table, dollars, moment};
use super::{command_on, find, look, missing, text};
use crate::Outcome;
use crate::cli::{CreditAddArgs, CreditListArgs, CreditReverseArgs};
use crate::say;

/// How often it is looked whether a running coordinator has applied a credit, and the pause between.
const TRIES_MAX: u32 = 500;
const PAUSE: Duration = Duration::from_millis(10);

pub(crate) fn add_credit(args: &CreditAddArgs) -> Outcome {
    let mut store = look(&args.data)?;
    let account = find(&*store, &args.data, &args.account)?;
    let id = store.deposit(account, MicroUsd(args.amount));
    let row = taken_over(&*store, &args.data, id.map_err(text)?)?;
    if args.json {
        return say(&format!("{}\n", as_json(&row)));
    }
    say(&format!(
        "Added {} to {} (credit {}{}).\n",
        dollars(args.amount),
        args.account,
        row.id.0,
        not_applied(&row)
    ))
}

/// How a credit stands once the coordinator that runs, if one does, has taken it over.
pub(super) fn taken_over(
    store: &dyn Store,
    data: &Path,
    id: DepositId,
) -> Result<DepositRow, String> {
    let mut tries = 0;
    loop {
        let row = store.find_deposit(id).map_err(text)?;
        if row.state != DepositState::Waiting || tries == TRIES_MAX || !is_served(data) {
            return Ok(row);
        }
        // It has heard of it already, and applies it a few milliseconds later.
        tries += 1;
        sleep(PAUSE);
    }
}

/// What follows the number of a credit that is not applied.
pub(super) fn not_applied(row: &DepositRow) -> String {
    match &row.state {
        DepositState::Applied => String::new(),
        DepositState::Refused(reason) => format!("; set aside: {reason}"),
        DepositState::Waiting => {
            "; no coordinator runs: it waits for the next start of one".to_owned()
        }
    }
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
    let row = taken_over(&*store, &args.list.data, row.id)?;
    if args.list.json {
        say(&format!("{}\n", as_json(&row)))?;
    } else {
        say(&format!(
            "Took {} back from {} (credit {} reverses {}{}).\n",
            dollars(row.amount.0.saturating_neg()),
            row.account_name,
            row.id.0,
            args.id,
            not_applied(&row)
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

/// The `state` of JSON.
pub(super) const fn state_name(state: &DepositState) -> &'static str {
    match state {
        DepositState::Applied => "applied",
        DepositState::Refused(_) => "refused",
        DepositState::Waiting => "waiting",
    }
}

fn as_json(row: &DepositRow) -> Value {
    let reason = match &row.state {
        DepositState::Refused(reason) => Some(reason),
        DepositState::Applied | DepositState::Waiting => None,
    };
    json!({
        "id": row.id.0,
        "account": row.account_name,
        "micro_usd": row.amount.0,
        "created_unix_s": row.created_unix_s,
        "state": state_name(&row.state),
        "reason": reason,
        "reverses": row.reverses.map(|id| id.0),
        "reversed_by": row.reversed_by.map(|id| id.0),
    })
}
