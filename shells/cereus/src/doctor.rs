//! `cereus doctor`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use cereus_core::memory::{Amount, Term};
use cereus_provider::doctor::{Check, Checkup, ModelCheckup, Verdict, examine, gib_text};
use cereus_provider::memory::{SystemMemory, policy};
use cereus_provider::weights::{hub_folder, scan};
use serde_json::{Map, Value, json};

use crate::cli::DoctorArgs;
use crate::paint::Paint;
use crate::provider::model_place;
use crate::{Outcome, say};

pub(crate) fn doctor(args: &DoctorArgs) -> Outcome {
    let models = models(&args.models)?;
    let probe = SystemMemory::default();
    let checkup = examine(policy(args.memory_reserve_gb), &probe, &models);
    say(&if args.json {
        format!("{:#}\n", as_json(&checkup))
    } else {
        as_text(&checkup, args.explain_memory)
    })?;
    let limit = if args.strict {
        Verdict::Warn
    } else {
        Verdict::Fail
    };
    let failed = all_checks(&checkup).filter(|check| check.verdict >= limit);
    match failed.count() {
        0 => Ok(()),
        1 => Err("a check failed; its line says why".to_owned()),
        count => Err(format!("{count} checks failed; their lines say why")),
    }
}

fn models(folders: &[PathBuf]) -> Result<Vec<(String, PathBuf)>, String> {
    if folders.is_empty() {
        let found = hub_folder().map(|root| scan(&root)).unwrap_or_default();
        return Ok(found.into_iter().map(|it| (it.id, it.folder)).collect());
    }
    folders.iter().map(|folder| model_place(folder)).collect()
}

fn all_checks(checkup: &Checkup) -> impl Iterator<Item = &Check> {
    let models = checkup.models.iter().map(|model| &model.check);
    checkup.checks.iter().chain(models)
}

fn as_text(checkup: &Checkup, explains: bool) -> String {
    let paint = Paint::for_stdout();
    let width = all_checks(checkup).map(|check| check.name.len()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for check in all_checks(checkup) {
        let word = check.verdict.as_str();
        let word = match check.verdict {
            Verdict::Pass => paint.green(word),
            Verdict::Warn => paint.yellow(word),
            Verdict::Fail => paint.red(word),
        };
        let _ = writeln!(text, "{word}  {:<width$}  {}", check.name, check.text);
    }
    if checkup.models.is_empty() {
        let hint = "no model was looked at; name folders, as in `cereus doctor engine/models/tiny`";
        let _ = writeln!(text, "{}", paint.dim(hint));
    }
    if explains {
        write_terms("this machine", &checkup.machine, paint, &mut text);
        for model in &checkup.models {
            write_terms(&title(model), &model.explanation.terms, paint, &mut text);
            let _ = writeln!(text, "  {}", model.check.text);
        }
    }
    text
}

fn title(model: &ModelCheckup) -> String {
    let found = &model.model;
    let kind = if found.model_type.is_empty() {
        "of no stated type"
    } else {
        &found.model_type
    };
    format!("{} ({kind})", found.id)
}

fn write_terms(title: &str, terms: &[Term], paint: Paint, text: &mut String) {
    let names = terms.iter().map(|term| term.name.len()).max().unwrap_or(0);
    let amounts: Vec<String> = terms.iter().map(|term| amount_text(term.amount)).collect();
    let width = amounts.iter().map(String::len).max().unwrap_or(0);
    let _ = writeln!(text, "\n{}", paint.bold(title));
    for (term, amount) in terms.iter().zip(amounts) {
        let line = format!("  {:<names$}  {amount:>width$}", term.name);
        let _ = match term.rule {
            "" => writeln!(text, "{}", line.trim_end()),
            rule => writeln!(text, "{line}  {}", paint.dim(&format!("= {rule}"))),
        };
    }
}

/// Units align, so that columns can be compared by eye.
fn amount_text(amount: Amount) -> String {
    match amount {
        Amount::Bytes(bytes) if bytes < 1 << 20 => format!("{bytes} B  "),
        Amount::Bytes(bytes) if bytes < 1 << 30 => {
            let hundredths = u128::from(bytes) * 100 / (1 << 20);
            format!("{}.{:02} MiB", hundredths / 100, hundredths % 100)
        }
        Amount::Bytes(bytes) => gib_text(bytes),
        Amount::Ppm(ppm) => format!("{}.{:02} %  ", ppm / 10_000, ppm / 100 % 100),
        Amount::Tokens(tokens) => format!("{tokens} tok"),
    }
}

fn as_json(checkup: &Checkup) -> Value {
    let check = |check: &Check| json!({"name": check.name, "verdict": check.verdict.as_str(), "text": check.text});
    let model = |model: &ModelCheckup| {
        json!({
            "id": model.model.id,
            "folder": lossy(&model.model.folder),
            "model_type": model.model.model_type,
            "check": check(&model.check),
            "terms": terms_json(&model.explanation.terms),
        })
    };
    json!({
        "checks": checkup.checks.iter().map(check).collect::<Vec<_>>(),
        "machine": terms_json(&checkup.machine),
        "models": checkup.models.iter().map(model).collect::<Vec<_>>(),
    })
}

/// Names end in their unit.
fn terms_json(terms: &[Term]) -> Value {
    let term = |term: &Term| match term.amount {
        Amount::Bytes(bytes) => (format!("{}_bytes", term.name), json!(bytes)),
        Amount::Ppm(ppm) => (format!("{}_ppm", term.name), json!(ppm)),
        Amount::Tokens(tokens) => (term.name.to_owned(), json!(tokens)),
    };
    Value::Object(terms.iter().map(term).collect::<Map<_, _>>())
}

fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
