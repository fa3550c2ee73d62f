//! `cereus models`.

use std::fmt::Write as _;
use std::path::Path;

use cereus_core::memory::{Load, MemoryCap, MemoryFacts, Occupancy};
use cereus_core::slots::Refusal;
use cereus_provider::doctor::gib_text;
use cereus_provider::memory::{MemoryProbe as _, SystemMemory, policy};
use cereus_provider::weights::{
    FoundModel, KnownHashes, PassedOver, Scan, hub_folder, missing_or_damaged, scan_whole,
};
use serde_json::{Value, json};

use crate::cli::ModelsListArgs;
use crate::paint::Paint;
use crate::{Outcome, say};

/// A model with what this machine can do with it.
struct Listed {
    model: FoundModel,
    hash: Option<String>,
    /// Why it cannot be loaded; empty when it can.
    hindrance: String,
}

pub(crate) fn list(args: &ModelsListArgs) -> Outcome {
    let Scan {
        models: found,
        passed_over,
    } = found(args)?;
    let count = found.len();
    let reading = SystemMemory::default().read();
    let cap = MemoryCap::new(reading.physical_bytes, policy(args.memory_reserve_gb));
    let mut known = KnownHashes::open(&args.data);
    let mut listed = Vec::new();
    for model in found {
        let hindrance = hindrance(&cap, &model);
        if !args.all && !hindrance.is_empty() {
            continue;
        }
        let hash = hash_of(&mut known, &model.folder, args.hash)?;
        listed.push(Listed {
            model,
            hash,
            hindrance,
        });
    }
    if args.json {
        let lines = listed.iter().map(|one| format!("{}\n", as_json(one)));
        say(&lines.collect::<String>())?;
        return Ok(());
    }
    let mut text = as_text(&listed);
    if args.all {
        text += &passed_over_text(&passed_over);
    }
    if listed.len() < count {
        let left_out = count - listed.len();
        let _ = writeln!(
            text,
            "{left_out} more cannot be served here; --all shows why."
        );
    } else if count == 0 {
        text.push_str(
            "There are no models; name a folder, or fetch one into the Hugging Face cache.\n",
        );
    }
    say(&text)?;
    Ok(())
}

fn found(args: &ModelsListArgs) -> Result<Scan, String> {
    if args.folders.is_empty() {
        let root = hub_folder().ok_or("no home folder is set; name a folder of models")?;
        return Ok(scan_whole(&root));
    }
    let mut found = Scan::default();
    for root in &args.folders {
        check_root(root)?;
        let scan = scan_whole(root);
        found.models.extend(scan.models);
        found.passed_over.extend(scan.passed_over);
    }
    Ok(found)
}

/// A folder of models that is none is a slip, and not a folder without models.
pub(crate) fn check_root(root: &Path) -> Result<(), String> {
    let unreadable = |error| format!("cannot read the folder {} ({error})", root.display());
    std::fs::read_dir(root).map(drop).map_err(unreadable)
}

fn passed_over_text(passed_over: &[PassedOver]) -> String {
    let paint = Paint::for_stdout();
    let mut text = String::new();
    for PassedOver { folder, why } in passed_over {
        let line = format!("{} is passed over: {why}", folder.display());
        let _ = writeln!(text, "{}", paint.yellow(&line));
    }
    text
}

/// Without the wish for it a hash is shown where it is known anyway.
fn hash_of(
    known: &mut KnownHashes,
    folder: &Path,
    is_wanted: bool,
) -> Result<Option<String>, String> {
    let hash = if is_wanted {
        known.hash(folder).map(Some)
    } else {
        known.find(folder)
    };
    hash.map_err(|error| error.to_string())
}

/// Why it cannot be served here, or nothing.
fn hindrance(cap: &MemoryCap, model: &FoundModel) -> String {
    let unsupported = model.unsupported.clone();
    let fenced = || {
        let why = model.template.fault()?;
        Some(format!("its chat template failed its self-check: {why}"))
    };
    let damaged = || missing_or_damaged(&model.folder);
    let why = unsupported
        .or_else(damaged)
        .or_else(fenced)
        .or_else(|| misfit(cap, model));
    why.unwrap_or_default()
}

/// Why it would find no room, on a machine on which nothing else runs.
pub(crate) fn misfit(cap: &MemoryCap, model: &FoundModel) -> Option<String> {
    let empty = Occupancy {
        facts: MemoryFacts {
            available_bytes: cap.physical_bytes(),
            engine_used_bytes: 0,
        },
        ..Occupancy::default()
    };
    match cap.load(empty, model.weights_bytes()) {
        Load::Evicts | Load::Fits => None,
        Load::Refused(shortage) => Some(Refusal::too_large(shortage).to_string()),
    }
}

fn as_text(listed: &[Listed]) -> String {
    const HEAD: [&str; 6] = ["model", "type", "weights", "in memory", "parameters", "as"];
    let paint = Paint::for_stdout();
    let rows: Vec<[String; 6]> = listed.iter().map(row).collect();
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|ix| {
            let cells = rows.iter().map(|row| row[ix].chars().count());
            cells.chain([HEAD[ix].len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: &[&str]| {
        let padded = cells.iter().zip(&widths).enumerate();
        let cells: Vec<String> = padded
            .map(|(ix, (cell, &width))| match ix {
                2..=4 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut text = String::new();
    if !rows.is_empty() {
        let _ = writeln!(text, "{}", paint.bold(&line(&HEAD)));
    }
    for (one, row) in listed.iter().zip(&rows) {
        let _ = writeln!(text, "{}", line(&row.each_ref().map(String::as_str)));
        if let Some(hash) = &one.hash {
            let _ = writeln!(text, "  {}", paint.dim(&format!("hash {hash}")));
        }
        if !one.hindrance.is_empty() {
            let _ = writeln!(text, "  {}", paint.yellow(&one.hindrance));
        }
    }
    text
}

fn row(one: &Listed) -> [String; 6] {
    let model = &one.model;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        model.id.clone(),
        or_dash(Some(model.model_type.clone()).filter(|it| !it.is_empty())),
        size_text(model.size_bytes),
        size_text(model.estimated_bytes()),
        or_dash(model.parameters.map(count_text)),
        or_dash(model.quantisation.clone()),
    ]
}

/// Of a model: those below a gibibyte would look alike in hundredths of one.
fn size_text(bytes: u64) -> String {
    if bytes >= 1 << 30 {
        return gib_text(bytes);
    }
    let tenths = u128::from(bytes) * 10 / (1 << 20);
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

/// In the unit that people name models by: `870 k`, `494 M`, `7.6 B`.
fn count_text(count: u64) -> String {
    let nearest = |unit: u64| count.saturating_add(unit / 2) / unit;
    match count {
        0..1_000 => count.to_string(),
        1_000..999_500 => format!("{} k", nearest(1_000)),
        999_500..999_500_000 => format!("{} M", nearest(1_000_000)),
        999_500_000.. => {
            let tenths = nearest(100_000_000);
            format!("{}.{} B", tenths / 10, tenths % 10)
        }
    }
}

/// The keys of the wire's model entry, and what only the machine itself wants to know.
fn as_json(one: &Listed) -> Value {
    let model = &one.model;
    let entry = model.entry(one.hash.as_deref());
    let mut value = serde_json::to_value(&entry).unwrap_or_default();
    value["folder"] = json!(model.folder.to_string_lossy());
    value["kv_bytes_per_token"] = json!(model.kv_rate().bytes_per_token);
    value["context_tokens"] = json!(model.kv.context_tokens);
    value["can_load"] = json!(one.hindrance.is_empty());
    if !one.hindrance.is_empty() {
        value["why_not"] = json!(one.hindrance);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_below_a_gibibyte_are_in_mebibytes() {
        for (bytes, text) in [
            (0, "0.0 MiB"),
            (3_500_000, "3.3 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (1 << 30, "1.00 GiB"),
            (5 << 29, "2.50 GiB"),
        ] {
            assert_eq!(size_text(bytes), text);
        }
    }

    #[test]
    fn counts_are_rounded_to_what_models_are_named_by() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (869_760, "870 k"),
            (999_499, "999 k"),
            (999_500, "1 M"),
            (494_032_768, "494 M"),
            (999_500_000, "1.0 B"),
            (7_615_616_512, "7.6 B"),
            (30_532_122_624, "30.5 B"),
        ] {
            assert_eq!(count_text(count), text, "{count}");
        }
    }
}
