//! `cereus earnings`.

use cereus_coordinator::UNLINKED_ACCOUNT;
use cereus_core::claim;
use cereus_provider::identity;
use serde_json::json;

use super::table::{Table, dollars};
use super::{command_on, find, look, text};
use crate::Outcome;
use crate::cli::{EarningsArgs, EarningsCommand, EarningsMoveArgs, EarningsProveArgs};
use crate::say;

pub(crate) fn earnings(args: &EarningsArgs) -> Outcome {
    match &args.command {
        Some(EarningsCommand::Move(args)) => move_earned(args),
        Some(EarningsCommand::Prove(args)) => prove(args),
        None => list(args),
    }
}

fn list(args: &EarningsArgs) -> Outcome {
    let accounts = look(&args.list.data)?.accounts().map_err(text)?;
    let earners = accounts.into_iter().filter(|row| row.earned.0 != 0);
    let mut table = Table::new(["ACCOUNT", "EARNED"]);
    for row in earners {
        if args.list.json {
            let line = json!({ "account": row.name, "earned_micro_usd": row.earned.0 });
            say(&format!("{line}\n"))?;
        } else {
            table.push([row.name, dollars(row.earned.0)]);
        }
    }
    if !args.list.json {
        table.print("No machine has earned anything yet.")?;
    }
    Ok(())
}

fn prove(args: &EarningsProveArgs) -> Outcome {
    let machine = identity::find(&args.provider).map_err(text)?;
    let machine = machine.ok_or_else(|| {
        format!(
            "{} holds no machine's key; --provider names the folder that the provider has as --data",
            args.provider.display()
        )
    })?;
    let proof = claim::prove(&machine, &args.key_id).ok_or_else(|| {
        format!(
            "`{}` is no key's id; those are key_ and hexadecimal digits, and `cereus key create` shows \
             them",
            args.key_id
        )
    })?;
    if args.json {
        let id = machine.attested().machine_id();
        let line = json!({ "machine": format!("{:032x}", id.0), "proof": proof });
        say(&format!("{line}\n"))?;
    } else {
        say(&format!("{proof}\n"))?;
    }
    Ok(())
}

fn move_earned(args: &EarningsMoveArgs) -> Outcome {
    let claim = claim::verify(&args.proof).map_err(text)?;
    let mut store = look(&args.list.data)?;
    let keys = store.keys().map_err(text)?;
    let key = keys
        .into_iter()
        .find(|key| key.id == claim.key_id && !key.is_revoked);
    let key = key.ok_or_else(|| {
        format!(
            "there is no valid key {} here; {} shows the ids",
            claim.key_id,
            command_on(&args.list.data, "key list")
        )
    })?;
    let unlinked = find(&*store, &args.list.data, UNLINKED_ACCOUNT)?;
    let amount = store
        .claim_earned(claim.machine, unlinked, key.account)
        .map_err(text)?;
    if args.list.json {
        let line = json!({
            "machine": format!("{:032x}", claim.machine.0),
            "account": key.account_name, "moved_micro_usd": amount.0,
        });
        say(&format!("{line}\n"))?;
    } else {
        say(&format!(
            "Moved {} that machine {:032x} earned to {}.\n",
            dollars(amount.0),
            claim.machine.0,
            key.account_name
        ))?;
    }
    Ok(())
}
