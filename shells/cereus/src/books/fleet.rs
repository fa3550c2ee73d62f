//! `cereus providers`, `cereus prices`: what a running coordinator says, and is told to sell.

use std::collections::HashMap;
use std::path::Path;

use cereus_coordinator::questions::{PRICES, PROVIDERS, RELOAD};
use cereus_coordinator::store::ask_coordinator;
use serde::Deserialize;
use serde_json::{Value, json};

use super::table::{Table, dollars};
use super::{command_on, look, text};
use crate::Outcome;
use crate::cli::{ListArgs, PricesArgs, PricesCommand, ProvidersArgs};
use crate::say;

#[derive(Deserialize)]
struct Fleet {
    machines: Vec<Value>,
}

/// What a table shows of a machine; JSON shows all.
#[derive(Deserialize)]
struct Machine {
    machine: String,
    account: u64,
    trust: String,
    serves: String,
    barred_for_ms: Option<u64>,
    lost_at_work: Option<String>,
    why_nothing: Option<String>,
    models: Vec<Offer>,
}

#[derive(Deserialize)]
struct Offer {
    id: Option<String>,
    state: String,
    requests: u32,
    other_rows: u32,
    rows_max: u16,
    why_nothing: Option<String>,
}

#[derive(Deserialize)]
struct Sold {
    models: Vec<Value>,
}

#[derive(Deserialize)]
struct Price {
    id: String,
    input_micro_usd_per_mtok: i64,
    output_micro_usd_per_mtok: i64,
    /// Of one request, however short.
    least_micro_usd: i64,
    context_tokens: u32,
    /// Of an answer whose request names no bound.
    output_tokens_default: u32,
}

pub(crate) fn list_providers(args: &ProvidersArgs) -> Outcome {
    let accounts = look(&args.list.data)?.accounts().map_err(text)?;
    let names: HashMap<u64, String> = accounts
        .into_iter()
        .map(|row| (row.id.0, row.name))
        .collect();
    let name_of = |account: u64| names.get(&account).cloned().unwrap_or_default();
    let fleet: Fleet = ask(&args.list.data, PROVIDERS)?;
    if args.list.json {
        for mut machine in fleet.machines {
            let account = machine["account"].as_u64().map(name_of);
            machine["account"] = json!(account);
            say(&format!("{machine}\n"))?;
        }
        return Ok(());
    }
    let mut table = Table::new(["MACHINE", "ACCOUNT", "TRUST", "MODEL", "LOAD", "STATE"]);
    for machine in fleet.machines {
        let machine: Machine = serde_json::from_value(machine).map_err(text)?;
        let account = name_of(machine.account);
        let first = || {
            [
                machine.machine.clone(),
                account.clone(),
                machine.trust.clone(),
            ]
        };
        if let Some(why) = machine.why_nothing.clone() {
            let [name, account, trust] = first();
            table.push([name, account, trust, "-".into(), "-".into(), why]);
        }
        for offer in &machine.models {
            let [name, account, trust] = first();
            let model = offer.id.clone().unwrap_or_default();
            table.push([
                name,
                account,
                trust,
                model,
                load(offer),
                state(&machine, offer),
            ]);
        }
    }
    table.print("No machine is connected; `cereus provider --coordinator URL` joins one.")
}

/// Rows of those that it runs at once, where it said.
fn load(offer: &Offer) -> String {
    let rows = offer.requests + offer.other_rows;
    match offer.rows_max {
        0 => rows.to_string(),
        max => format!("{rows}/{max}"),
    }
}

fn state(machine: &Machine, offer: &Offer) -> String {
    let mut state = match &offer.why_nothing {
        None => format!("open, {}", offer.state),
        Some(why) => why.clone(),
    };
    if let Some(left_ms) = machine.barred_for_ms {
        state += &format!(" (for {} s)", left_ms.div_ceil(1_000));
    }
    if let Some(why) = &machine.lost_at_work {
        state += &format!("; {why}");
    }
    if machine.serves != "everybody" {
        state += &format!(", for {} alone", machine.serves);
    }
    state
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reloaded {
    Changes(Vec<Value>),
    Refused(String),
}

/// What has happened to one model.
#[derive(Deserialize)]
struct Change {
    change: String,
    id: String,
    #[serde(flatten)]
    sold: Option<Terms>,
}

/// What is said of a model that is sold.
#[derive(Deserialize)]
struct Terms {
    input_micro_usd_per_mtok: i64,
    output_micro_usd_per_mtok: i64,
    context_tokens: u32,
    output_tokens_default: u32,
}

pub(crate) fn prices(args: &PricesArgs) -> Outcome {
    match &args.command {
        Some(PricesCommand::Reload(args)) => reload_prices(&args.list),
        None => list_prices(&args.list),
    }
}

fn reload_prices(list: &ListArgs) -> Outcome {
    look(&list.data)?;
    let changes = match ask(&list.data, RELOAD)? {
        Reloaded::Changes(changes) => changes,
        Reloaded::Refused(why) => return Err(format!("nothing changed: {why}")),
    };
    if list.json {
        for change in changes {
            say(&format!("{change}\n"))?;
        }
        return Ok(());
    }
    if changes.is_empty() {
        return say("nothing changed\n");
    }
    for change in changes {
        let Change { change, id, sold } = serde_json::from_value(change).map_err(text)?;
        let terms = sold.map_or_else(String::new, |sold| {
            format!(
                ": {} for a million tokens in, {} out, context {}, output_tokens_default {}",
                dollars(sold.input_micro_usd_per_mtok),
                dollars(sold.output_micro_usd_per_mtok),
                sold.context_tokens,
                sold.output_tokens_default
            )
        });
        say(&format!("{change} {id}{terms}\n"))?;
    }
    Ok(())
}

fn list_prices(list: &ListArgs) -> Outcome {
    look(&list.data)?;
    let sold: Sold = ask(&list.data, PRICES)?;
    if list.json {
        for model in sold.models {
            say(&format!("{model}\n"))?;
        }
        return Ok(());
    }
    let mut table = Table::new(["MODEL", "INPUT", "OUTPUT", "LEAST", "CONTEXT", "ANSWER"]);
    for model in sold.models {
        let price: Price = serde_json::from_value(model).map_err(text)?;
        table.push([
            price.id,
            dollars(price.input_micro_usd_per_mtok),
            dollars(price.output_micro_usd_per_mtok),
            dollars(price.least_micro_usd),
            price.context_tokens.to_string(),
            price.output_tokens_default.to_string(),
        ]);
    }
    table.print("Nothing is sold at present.")
}

fn ask<T: for<'de> Deserialize<'de>>(data: &Path, question: &str) -> Result<T, String> {
    let answer = ask_coordinator(data, question).map_err(|error| {
        format!(
            "the coordinator on {} did not answer: {error}",
            data.display()
        )
    })?;
    let answer = answer.ok_or_else(|| {
        format!(
            "no coordinator runs on {}, or none that can be asked; start one with {}",
            data.display(),
            command_on(data, "coordinator --model ID:IN:OUT")
        )
    })?;
    serde_json::from_str(&answer).map_err(text)
}
