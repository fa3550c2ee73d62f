//! A receipt as a table that a person reads.

use std::fmt::Write as _;

use serde_json::Value;

use crate::books::dollars;
use crate::paint::Paint;
use crate::terminal::clean;

/// Columns of the longest bar.
const BAR_COLUMNS: u64 = 32;
/// Parts of a column that a bar can end on.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];

/// `receipt` is what `GET /v1/receipts/{id}` answers.
pub(crate) fn table(receipt: &Value, paint: Paint) -> String {
    let text = |value: &Value| clean(value.as_str().unwrap_or("?"));
    let number = |value: &Value| value.as_i64().unwrap_or_default();
    let money = &receipt["micro_usd"];
    let amount = |name: &str| dollars(number(&money[name]));
    let price = &receipt["price_micro_usd_per_mtok"];
    let usage = &receipt["usage"];
    let sealed = &receipt["sealed"];
    let rows = [
        ("receipt", text(&receipt["id"])),
        (
            "machine",
            format!(
                "{}, attempt {}",
                text(&receipt["machine"]),
                receipt["attempts"]
            ),
        ),
        ("model", text(&receipt["model"])),
        (
            "sealed to",
            format!("{} (the machine's key)", text(&sealed["provider_key"])),
        ),
        (
            "sealed by",
            format!("{} (the coordinator's key)", text(&sealed["session_key"])),
        ),
        ("cipher", text(&sealed["cipher"])),
        (
            "tokens",
            format!(
                "{} in, {} out",
                usage["prompt_tokens"], usage["completion_tokens"]
            ),
        ),
        (
            "price",
            format!(
                "{} in, {} out, for a million tokens",
                dollars(number(&price["input"])),
                dollars(number(&price["output"]))
            ),
        ),
        ("lines", lines(&receipt["lines"])),
        (
            "charged",
            format!(
                "{} of {} held; the machine earns {}",
                amount("charged"),
                amount("held"),
                amount("payout")
            ),
        ),
        (
            "balance",
            format!(
                "{} before, {} after",
                amount("balance_before"),
                amount("balance_after")
            ),
        ),
    ];
    let mut table = String::new();
    for (name, value) in rows {
        let _ = writeln!(table, "  {}  {value}", paint.dim(&format!("{name:<9}")));
    }
    table.push_str(&spans(&receipt["spans_us"], paint));
    table
}

/// The terms of a charge. Each is rounded down to whole micro-dollars; their sum is what is charged.
fn lines(lines: &Value) -> String {
    let mut text = String::new();
    for line in lines.as_array().into_iter().flatten() {
        let amount = line["micro_usd"].as_i64().unwrap_or_default();
        let meaning = match line["item"].as_str() {
            Some("prompt") => "in".to_owned(),
            Some("completion") => "out".to_owned(),
            Some("least_charge") => "up to the least charge".to_owned(),
            Some("limit_of_hold") => "beyond what was held".to_owned(),
            other => clean(other.unwrap_or("?")),
        };
        text += match (text.is_empty(), amount < 0) {
            (true, false) => "",
            (false, false) => " + ",
            (true, true) => "-",
            (false, true) => " - ",
        };
        text += &format!("{} {meaning}", dollars(amount.saturating_abs()));
    }
    text
}

fn spans(spans: &Value, paint: Paint) -> String {
    let us = |name: &str| spans[name].as_u64().unwrap_or_default();
    let total = us("total").max(1);
    let mut table = String::new();
    let _ = writeln!(
        table,
        "  {}  {}",
        paint.dim("time     "),
        millis(us("total"))
    );
    let parts = [
        ("queue", "until a machine was chosen and sent the request"),
        ("accept", "until it opened the request and took it"),
        ("prefill", "until the first content"),
        ("decode", "until the last"),
    ];
    for (name, meaning) in parts {
        let bar = bar(us(name), total);
        let _ = writeln!(
            table,
            "    {name:<8} {:>11}  {}{} {}",
            millis(us(name)),
            paint.green(&bar.text),
            " ".repeat(bar.padding),
            paint.dim(meaning)
        );
    }
    table
}

struct Bar {
    text: String,
    padding: usize,
}

fn bar(part: u64, total: u64) -> Bar {
    let eighths = part.min(total) * BAR_COLUMNS * 8 / total;
    let (full, rest) = (eighths / 8, eighths % 8);
    let to_usize = |count: u64| usize::try_from(count).expect("bounded by the columns");
    let text = format!("{}{}", "█".repeat(to_usize(full)), EIGHTHS[to_usize(rest)]);
    let used = full + u64::from(rest > 0);
    Bar {
        text,
        padding: to_usize(BAR_COLUMNS - used),
    }
}

fn millis(us: u64) -> String {
    format!("{}.{:03} ms", us / 1_000, us % 1_000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_receipt_names_machine_keys_tokens_money_and_time() {
        let receipt = json!({
            "id": "r-1", "machine": "00ff", "model": "tiny", "attempts": 1,
            "sealed": { "cipher": "C", "provider_key": "aa:bb", "session_key": "cc:dd" },
            "usage": { "prompt_tokens": 21, "completion_tokens": 9 },
            "price_micro_usd_per_mtok": { "input": 50_000, "output": 200_000 },
            "lines": [
                { "item": "prompt", "tokens": 21, "micro_usd": 1 },
                { "item": "completion", "tokens": 9, "micro_usd": 1 },
                { "item": "least_charge", "tokens": 0, "micro_usd": 98 },
                { "item": "limit_of_hold", "tokens": 0, "micro_usd": -3 },
            ],
            "micro_usd": { "held": 103, "charged": 100, "payout": 90,
                "balance_before": 1_000_000, "balance_after": 999_900 },
            "spans_us": { "queue": 0, "accept": 1_000, "prefill": 9_000, "decode": 10_000,
                "total": 20_000 },
        });
        let table = table(&receipt, Paint::Plain);
        for part in [
            "00ff",
            "tiny",
            "aa:bb",
            "cc:dd",
            "21 in, 9 out",
            "$0.050000 in",
            "$0.000001 in + $0.000001 out + $0.000098 up to the least charge - $0.000003 beyond what \
             was held\n",
            "$0.000100 of $0.000103 held",
            "$1.000000 before, $0.999900 after",
            "20.000 ms",
        ] {
            assert!(table.contains(part), "{part} is missing in\n{table}");
        }
        assert!(!table.contains('\x1b'));
    }

    #[test]
    fn bars_never_outgrow_their_columns() {
        for (part, total) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (1, 3),
            (u64::from(u32::MAX), u64::from(u32::MAX)),
        ] {
            let bar = bar(part, total);
            assert_eq!(bar.text.chars().count() + bar.padding, 32);
        }
    }
}
