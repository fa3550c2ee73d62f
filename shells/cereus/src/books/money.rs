//! `cereus account`, `cereus requests`, `cereus audit`.

use cereus_coordinator::store::{AuditExtent, RequestState, is_served};
use serde_json::json;

use super::table::{Table, dollars, moment};
use super::{command_on, find, look, text};
use crate::Outcome;
use crate::cli::{AccountListArgs, AuditArgs, RequestsArgs};
use crate::say;

pub(crate) fn list_accounts(args: &AccountListArgs) -> Outcome {
    let accounts = look(&args.list.data)?.accounts().map_err(text)?;
    if args.list.json {
        for row in &accounts {
            let line = json!({
                "account": row.name, "balance_micro_usd": row.balance.0,
                "held_micro_usd": row.held.0, "earned_micro_usd": row.earned.0,
                "keys": row.key_count, "created_unix_s": row.created_unix_s,
            });
            say(&format!("{line}\n"))?;
        }
        return Ok(());
    }
    let mut table = Table::new(["ACCOUNT", "BALANCE", "HELD", "EARNED", "KEYS", "MADE"]);
    for row in accounts {
        table.push([
            row.name,
            dollars(row.balance.0),
            dollars(row.held.0),
            dollars(row.earned.0),
            row.key_count.to_string(),
            moment(row.created_unix_s),
        ]);
    }
    let create = command_on(&args.list.data, "key create --account NAME");
    table.print(&format!("There are no accounts yet; {create} makes one."))
}

pub(crate) fn list_requests(args: &RequestsArgs) -> Outcome {
    let store = look(&args.list.data)?;
    let account = match &args.account {
        Some(name) => Some(find(&*store, &args.list.data, name)?),
        None => None,
    };
    let rows = store.requests(account, args.last).map_err(text)?;
    // Looked at only where it says something.
    let has_open = rows.iter().any(|row| row.state == RequestState::Running);
    let is_served = has_open && is_served(&args.list.data);
    if args.list.json {
        for row in &rows {
            let line = json!({
                "request": row.request.to_string(), "account": row.account_name,
                "held_unix_s": row.held_unix_s, "state": state(row.state, is_served), "reason": reason(row.state, is_served),
                "held_micro_usd": row.held.0, "charged_micro_usd": row.charged.0,
                "model": row.model, "prompt_tokens": row.prompt_tokens,
                "completion_tokens": row.completion_tokens,
            });
            say(&format!("{line}\n"))?;
        }
        return Ok(());
    }
    let mut table = Table::new([
        "REQUEST", "WHEN", "ACCOUNT", "MODEL", "PROMPT", "ANSWER", "CHARGED", "STATE",
    ]);
    let count = |tokens: Option<u32>| tokens.map_or_else(String::new, |it| it.to_string());
    for row in rows {
        table.push([
            row.request.to_string(),
            moment(row.held_unix_s),
            row.account_name,
            row.model.unwrap_or_default(),
            count(row.prompt_tokens),
            count(row.completion_tokens),
            dollars(row.charged.0),
            match reason(row.state, is_served) {
                Some(reason) => format!("{}: {reason}", state(row.state, is_served)),
                None => state(row.state, is_served).to_owned(),
            },
        ]);
    }
    table.print("Nothing was asked yet.")
}

const fn state(state: RequestState, is_served: bool) -> &'static str {
    match state {
        RequestState::Running if !is_served => "unfinished",
        RequestState::Running | RequestState::Settled | RequestState::Voided => state.name(),
    }
}

fn reason(state: RequestState, is_served: bool) -> Option<&'static str> {
    (state == RequestState::Running && !is_served)
        .then_some("no coordinator runs; the next start gives its hold back")
}

pub(crate) fn audit(args: &AuditArgs) -> Outcome {
    let mut store = look(&args.list.data)?;
    let audit = store.audit(AuditExtent::Everything).map_err(text)?;
    if args.list.json {
        let line = json!({
            "agree": true, "transfers": audit.transfer_count,
            "open_holds": audit.open_hold_count, "held_micro_usd": audit.held.0,
            "platform_micro_usd": audit.platform.0,
        });
        say(&format!("{line}\n"))?;
    } else {
        say(&format!(
            "Balances and ledger agree: {} transfers, {} open holds of {} together; the platform has \
             kept {}.\n",
            audit.transfer_count,
            audit.open_hold_count,
            dollars(audit.held.0),
            dollars(audit.platform.0)
        ))?;
    }
    Ok(())
}
