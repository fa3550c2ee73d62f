//! What `cereus doctor` finds: whether this machine can serve, and every term between its memory
//! and the verdict on each model.

use std::path::{Path, PathBuf};

use cereus_core::memory::{
    Explanation, Load, MemoryCap, MemoryFacts, MemoryPolicy, Occupancy, Term,
};
use cereus_core::slots::{PressureLimits, Refusal, Strain};

use crate::memory::{MemoryProbe, MemoryReading};
use crate::weights::{FoundModel, missing_or_damaged, open_model};

/// See the module.
#[derive(Debug)]
pub struct Checkup {
    pub reading: MemoryReading,
    pub machine: Vec<Term>,
    pub checks: Vec<Check>,
    pub models: Vec<ModelCheckup>,
}

/// One question and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub verdict: Verdict,
    /// What was found, and what to do about it.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Pass,
    Warn,
    Fail,
}

impl Verdict {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One model on this machine.
#[derive(Debug)]
pub struct ModelCheckup {
    pub model: FoundModel,
    pub explanation: Explanation,
    pub check: Check,
}

/// Looks at the machine and at each folder. Loads nothing.
#[must_use]
pub fn examine(
    policy: MemoryPolicy,
    probe: &dyn MemoryProbe,
    models: &[(String, PathBuf)],
) -> Checkup {
    let reading = probe.read();
    let cap = MemoryCap::new(reading.physical_bytes, policy);
    // Another process of ours is a program like any other: what it holds is not available.
    let held = Occupancy {
        facts: MemoryFacts {
            available_bytes: reading.available_bytes,
            engine_used_bytes: 0,
        },
        ..Occupancy::default()
    };
    let mut checks = vec![
        engine_check(),
        room_check(&cap, held),
        strain_check(reading.strain),
    ];
    let mut examined = Vec::new();
    for (id, folder) in models {
        match open_model(folder, id) {
            Ok(model) => examined.push(examine_model(&cap, held, model)),
            Err(error) => checks.push(Check {
                name: id.clone(),
                verdict: Verdict::Fail,
                text: error.to_string(),
            }),
        }
    }
    Checkup {
        reading,
        machine: cap.explain_machine(held),
        checks,
        models: examined,
    }
}

fn examine_model(cap: &MemoryCap, held: Occupancy, model: FoundModel) -> ModelCheckup {
    let explanation =
        cap.explain_model(held, model.weights_bytes(), model.kv_rate().bytes_per_token);
    let (verdict, text) = verdict_of(&model, &model.folder, explanation.load);
    let check = Check {
        name: model.id.clone(),
        verdict,
        text,
    };
    ModelCheckup {
        model,
        explanation,
        check,
    }
}

fn verdict_of(model: &FoundModel, folder: &Path, load: Load) -> (Verdict, String) {
    if model.size_bytes == 0 {
        let text = format!("{} holds no weights", folder.display());
        return (Verdict::Fail, text);
    }
    if let Some(why) = &model.unsupported {
        return (Verdict::Fail, format!("the engine cannot serve it: {why}"));
    }
    if let Some(why) = missing_or_damaged(folder) {
        return (Verdict::Fail, format!("it would not load: {why}"));
    }
    if let Some(why) = model.template.fault() {
        let text = format!("fenced off, because its chat template failed its self-check: {why}");
        return (Verdict::Fail, text);
    }
    match load {
        Load::Evicts | Load::Fits => (Verdict::Pass, "would be loaded".to_owned()),
        Load::Refused(shortage) => {
            let refusal = Refusal::too_large(shortage).to_string();
            (Verdict::Fail, format!("would be refused: {refusal}"))
        }
    }
}

fn engine_check() -> Check {
    let has_engine = cfg!(feature = "mlx");
    Check {
        name: "engine".to_owned(),
        verdict: if has_engine {
            Verdict::Pass
        } else {
            Verdict::Fail
        },
        text: if has_engine {
            "MLX is built in".to_owned()
        } else {
            "this build has no engine (feature `mlx`); build it with `cargo xtask setup`".to_owned()
        },
    }
}

/// Whether any model at all could be loaded.
fn room_check(cap: &MemoryCap, held: Occupancy) -> Check {
    let largest = cap.max_loadable_bytes(held) / 6 * 5;
    let (verdict, text) = if largest > 0 {
        let text = format!("room for weights of up to {}", gib_text(largest));
        (Verdict::Pass, text)
    } else {
        let text = format!(
            "no model can be loaded: {} of {} are available, and {} stay free beside a model; end \
             other programs, or lower --memory-reserve-gb and {}",
            gib_text(held.facts.available_bytes),
            gib_text(cap.physical_bytes()),
            gib_text(cap.load_reserve_bytes() + cap.load_headroom_bytes()),
            crate::memory::ACTIVATION_VARIABLE,
        );
        (Verdict::Fail, text)
    };
    Check {
        name: "memory".to_owned(),
        verdict,
        text,
    }
}

fn strain_check(strain: Strain) -> Check {
    let limits = PressureLimits::reference();
    let swapped = gib_text(strain.swap_used_bytes);
    let stalled_ppm = strain.stalled_ppm.unwrap_or(0);
    let (verdict, text) = if stalled_ppm >= limits.stall_stop_ppm {
        let percent = stalled_ppm / 10_000;
        let text = format!(
            "everything waits for memory {percent} % of the time ({swapped} swapped out): a provider \
             would turn requests away; end other programs"
        );
        (Verdict::Fail, text)
    } else if strain.swap_used_bytes >= limits.swap_growth_stop_bytes {
        let text = format!("{swapped} are swapped out; a provider stops when that grows");
        (Verdict::Warn, text)
    } else {
        (Verdict::Pass, format!("{swapped} swapped out"))
    };
    Check {
        name: "swap".to_owned(),
        verdict,
        text,
    }
}

/// GiB to two decimals, rounded down.
#[must_use]
pub fn gib_text(bytes: u64) -> String {
    let hundredths = u128::from(bytes) * 100 / (1 << 30);
    format!("{}.{:02} GiB", hundredths / 100, hundredths % 100)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use cereus_core::memory::{Amount, GIB};

    use super::*;
    use crate::memory::FixedMemory;

    fn on(physical_gib: u64, strain: Strain, folder: &Path) -> Checkup {
        let probe = FixedMemory(MemoryReading {
            physical_bytes: physical_gib * GIB,
            available_bytes: physical_gib * GIB,
            strain,
        });
        let models = [("m".to_owned(), folder.to_owned())];
        examine(MemoryPolicy::reference(), &probe, &models)
    }

    /// A folder whose weights are said to be that large; no disk holds them.
    fn sparse(size: u64) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"model_type":"llama","hidden_size":64,"intermediate_size":128,
            "num_hidden_layers":2,"num_attention_heads":4,"vocab_size":640,"rms_norm_eps":1e-5}"#;
        fs::write(folder.path().join("config.json"), config).unwrap();
        let tokenizer = include_bytes!("../../../engine/models/tiny/tokenizer.json");
        fs::write(folder.path().join("tokenizer.json"), tokenizer).unwrap();
        let weights = folder.path().join("model.safetensors");
        fs::write(&weights, header(size)).unwrap();
        let file = fs::File::options().write(true).open(weights).unwrap();
        file.set_len(size).unwrap();
        folder
    }

    /// The beginning of weights of that size, in rows of 4,000 bytes; it has the length of one.
    fn header(size: u64) -> Vec<u8> {
        let (rows, bytes) = (size / 4_000 - 1, size - 4_000);
        let json = format!(
            r#"{{"w":{{"dtype":"F32","shape":[{rows},1000],"data_offsets":[0,{bytes}]}}}}"#
        );
        let mut header = 3_992_u64.to_le_bytes().to_vec();
        header.extend(json.bytes());
        header.resize(4_000, b' ');
        header
    }

    #[cfg(feature = "mlx")]
    #[test]
    fn a_file_that_is_cut_short_or_missing_is_told_before_anybody_loads_it() {
        let folder = sparse(80_000);
        let check = || {
            let checkup = on(64, Strain::default(), folder.path());
            checkup.models[0].check.clone()
        };
        assert_eq!(check().verdict, Verdict::Pass, "{}", check().text);
        let weights = folder.path().join("model.safetensors");
        let file = fs::File::options().write(true).open(weights).unwrap();
        file.set_len(79_999).unwrap();
        assert_eq!(check().verdict, Verdict::Fail);
        let expected = "it has 79999 bytes; its header says 80000";
        assert!(check().text.contains(expected), "{}", check().text);
        file.set_len(80_000).unwrap();
        fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
        assert_eq!(check().verdict, Verdict::Fail);
        assert!(check().text.contains("tokenizer.json"), "{}", check().text);
    }

    #[cfg(feature = "mlx")]
    #[test]
    fn a_tokenizer_or_a_template_that_a_load_cannot_read_fails_the_check() {
        let folder = sparse(80_000);
        let at = |name: &str| folder.path().join(name);
        let check = || {
            let checkup = on(64, Strain::default(), folder.path());
            checkup.models[0].check.clone()
        };
        let whole = fs::read(at("tokenizer.json")).unwrap();
        for garbage in ["{}", "garbage", "[1]"] {
            fs::write(at("tokenizer.json"), garbage).unwrap();
            assert_eq!(check().verdict, Verdict::Fail, "{garbage}");
            assert!(
                check().text.contains("it would not load"),
                "{}",
                check().text
            );
        }
        fs::write(at("tokenizer.json"), whole).unwrap();
        assert_eq!(check().verdict, Verdict::Pass, "{}", check().text);
        fs::write(at("chat_template.jinja"), "{% for m in").unwrap();
        assert!(
            check().text.contains("chat_template.jinja"),
            "{}",
            check().text
        );
        assert_eq!(check().verdict, Verdict::Fail);
    }

    #[test]
    fn a_model_is_told_to_fit_where_the_loader_would_load_it() {
        let folder = sparse(12_100_000_000);
        let verdict = |physical_gib| {
            let checkup = on(physical_gib, Strain::default(), folder.path());
            checkup.models[0].check.clone()
        };
        assert_eq!(verdict(24).verdict, Verdict::Pass);
        let refused = verdict(16);
        assert_eq!(refused.verdict, Verdict::Fail);
        // 16 - 4 of reserve; 12.1e9 * 1.2 / 2^30 + 4 = 17.52.
        let expected = "insufficient memory (12.0 GB free, need 17.6 GB)";
        assert!(refused.text.contains(expected), "{}", refused.text);
        let checkup = on(64, Strain::default(), folder.path());
        let budget = checkup.models[0].explanation.term("kv_budget");
        assert_eq!(budget, Some(Amount::Bytes(46_526_303_590)));
    }

    #[test]
    fn a_machine_under_pressure_and_one_too_small_are_told_what_to_do() {
        let folder = sparse(8_000);
        let strain = Strain {
            swap_used_bytes: 0,
            stalled_ppm: Some(250_000),
        };
        let checkup = on(8, strain, folder.path());
        let check = |name: &str| {
            let found = checkup.checks.iter().find(|check| check.name == name);
            found.unwrap().clone()
        };
        assert_eq!(check("swap").verdict, Verdict::Fail);
        assert!(check("swap").text.contains("25 %"));
        assert_eq!(check("memory").verdict, Verdict::Fail);
        assert!(check("memory").text.contains("--memory-reserve-gb"));
    }

    #[cfg(feature = "mlx")]
    #[test]
    fn a_chat_template_that_fails_is_told_before_anybody_serves_it() {
        let folder = sparse(8_000);
        let template = folder.path().join("chat_template.jinja");
        let verdict = |source: &str| {
            fs::write(&template, source).unwrap();
            let checkup = on(64, Strain::default(), folder.path());
            checkup.models[0].check.clone()
        };
        let failed = verdict("{{ messages[0].nothing.at.all }}");
        assert_eq!(failed.verdict, Verdict::Fail);
        assert!(failed.text.contains("on a plain chat"), "{}", failed.text);
        assert_eq!(verdict("{{ messages[0].content }}").verdict, Verdict::Pass);
    }

    #[test]
    fn folders_that_are_no_models_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let checkup = on(64, Strain::default(), folder.path());
        assert!(checkup.models[0].check.text.contains("holds no weights"));
        let checkup = on(64, Strain::default(), &folder.path().join("nowhere"));
        assert!(
            checkup
                .checks
                .iter()
                .any(|check| { check.verdict == Verdict::Fail && check.text.contains("nowhere") })
        );
    }
}
