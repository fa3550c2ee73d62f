//! `cereus key`.

use cereus_coordinator::UNLINKED_ACCOUNT;
use cereus_coordinator::store::RevokedKey;
use cereus_core::money::MicroUsd;
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::credit::{not_applied, state_name, taken_over};
use super::table::{Table, dollars, moment};
use super::{command_on, find, look, missing, open, text};
use crate::Outcome;
use crate::cli::{KeyCreateArgs, KeyListArgs, KeyRevokeArgs};
use crate::say;

pub(crate) fn create_key(args: &KeyCreateArgs) -> Outcome {
    if args.account == UNLINKED_ACCOUNT {
        return Err(format!(
            "the name {UNLINKED_ACCOUNT} is reserved: machines without an earning key earn for it; \
             choose another"
        ));
    }
    let mut store = open(&args.data)?;
    let key = store.create_key(&args.account).map_err(text)?;
    let mut credit = None;
    if let Some(amount) = args.credit {
        let account = find(&*store, &args.data, &args.account)?;
        let id = store.deposit(account, MicroUsd(amount)).map_err(text)?;
        credit = Some(taken_over(&*store, &args.data, id)?);
    }
    let secret = key.secret.expose_secret();
    let told = if args.quiet {
        format!("{secret}\n")
    } else if args.json {
        let mut line = json!({
            "key": secret, "id": key.id, "label": key.label, "account": args.account,
        });
        if let Some(row) = &credit {
            line["credit"] = json!({ "id": row.id.0, "state": state_name(&row.state) });
        }
        format!("{line}\n")
    } else {
        let credit = credit.map_or_else(String::new, |row| {
            let (amount, state) = (dollars(row.amount.0), not_applied(&row));
            format!("credit   {amount}{state}\n")
        });
        format!(
            "key      {secret}\nid       {}\naccount  {}\n{credit}\n\
             Keep the key now: only its hash is stored, it cannot be shown again.\n",
            key.id, args.account
        )
    };
    say(&told).map_err(|error| {
        let revoke = command_on(&args.data, &format!("key revoke {}", key.id));
        format!("{error}; the key was made and nobody has seen it: {revoke} ends it")
    })
}

pub(crate) fn list_keys(args: &KeyListArgs) -> Outcome {
    let keys = look(&args.list.data)?.keys().map_err(text)?;
    if args.list.json {
        for key in &keys {
            let line = json!({
                "id": key.id, "label": key.label, "account": key.account_name,
                "created_unix_s": key.created_unix_s, "revoked": key.is_revoked,
            });
            say(&format!("{line}\n"))?;
        }
        return Ok(());
    }
    let mut table = Table::new(["ID", "KEY", "ACCOUNT", "MADE", "STATE"]);
    for key in keys {
        let state = if key.is_revoked { "revoked" } else { "valid" };
        table.push([
            key.id,
            key.label,
            key.account_name,
            moment(key.created_unix_s),
            state.to_owned(),
        ]);
    }
    let create = command_on(&args.list.data, "key create --account NAME");
    table.print(&format!("There are no keys yet; make one with {create}."))
}

pub(crate) fn revoke_key(args: &KeyRevokeArgs) -> Outcome {
    let revoked = look(&args.list.data)?.revoke_key(&args.id);
    let RevokedKey { key, was_revoked } =
        revoked.map_err(|error| missing(error, &args.list.data))?;
    if args.list.json {
        let line = json!({
            "id": key.id, "account": key.account_name, "revoked": true, "was_revoked": was_revoked,
        });
        return say(&format!("{line}\n"));
    }
    let named = format!("{} ({}) of {}", key.id, key.label, key.account_name);
    say(&if was_revoked {
        format!("{named} was revoked before.\n")
    } else {
        format!("Revoked {named}. Machines that earn by it do so until they connect anew.\n")
    })
}
