//! The tables, read and checked.

use std::io::Read;
use std::sync::LazyLock;

use serde::Deserialize;
use thiserror::Error;

use super::pairing::Chip;

static BUILT_IN: LazyLock<Hardware> = LazyLock::new(|| {
    let chips = include_bytes!("chips.csv").as_slice();
    let models = include_bytes!("models.csv").as_slice();
    Hardware::read(chips, models).expect("the tables that are built in are sound")
});

/// One chip with as many GPU cores as it was measured with. Rates are in thousandths of a token a
/// second, with the first model of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChipFacts {
    pub name: String,
    pub bandwidth_gbs: u32,
    /// Of a prompt of 512 tokens.
    pub prefill_512_mtps: u64,
    /// Of one of 8,192 tokens, where it was measured.
    pub prefill_8192_mtps: Option<u64>,
    /// Of a lone row.
    pub decode_mtps: u64,
    /// What a further row of a batch costs of a lone step, in thousandths of a percent, where it was
    /// measured.
    pub row_percent_milli: Option<u64>,
    /// The share of the bandwidth at which keys and values are read, likewise.
    pub context_percent_milli: Option<u64>,
    pub source: String,
}

/// What a token of a model is in work and in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ModelFacts {
    #[serde(rename = "model")]
    pub name: String,
    pub parameters: u64,
    /// Those that one token runs through.
    pub parameters_active: u64,
    pub weights_bytes: u64,
    pub weights_bytes_active: u64,
    pub kv_bytes_per_token: u64,
    /// Layers times heads times the size of a head.
    pub attention_width: u64,
    pub source: String,
}

/// A chip in a case with so much memory: `m3-max/64`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    pub chip: String,
    pub memory_gb: u32,
}

/// A table that cannot be used.
#[derive(Debug, Error)]
pub enum HardwareError {
    #[error(transparent)]
    Csv(#[from] csv::Error),
    #[error("`{0}` is no rate above zero with at most three digits after the point")]
    Rate(String),
    #[error("{0}: a figure is zero, or out of all proportion")]
    Absurd(String),
    #[error("the table names no chip or no model")]
    Empty,
}

/// A machine that does not exist, or cannot serve the model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlaceError {
    #[error("no chip `{name}`; known: {known}")]
    Chip { name: String, known: String },
    #[error("no model `{name}`; known: {known}")]
    Model { name: String, known: String },
    #[error("`{0}` names no machine; write a chip and its gigabytes of memory, as in m3-max/64")]
    Form(String),
    #[error(
        "{place} has no room for {model}: beside {weights_gb} GB of weights nothing is left for \
             a context"
    )]
    TooSmall {
        place: String,
        model: String,
        weights_gb: u64,
    },
}

#[derive(Deserialize)]
struct ChipRow {
    chip: String,
    bandwidth_gbs: u32,
    prefill_512: String,
    prefill_8192: Option<String>,
    decode: String,
    /// Tables of chips may do without the column.
    #[serde(default)]
    row_percent: Option<String>,
    #[serde(default)]
    context_percent: Option<String>,
    source: String,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hardware {
    chips: Vec<ChipFacts>,
    models: Vec<ModelFacts>,
}

impl Hardware {
    #[must_use]
    pub fn built_in() -> &'static Self {
        &BUILT_IN
    }

    /// Reads both tables.
    pub fn read(chips: impl Read, models: impl Read) -> Result<Self, HardwareError> {
        let chips = read_chips(chips)?;
        let models = csv::Reader::from_reader(models)
            .into_deserialize()
            .map(|row| model(row?))
            .collect::<Result<Vec<_>, HardwareError>>()?;
        if chips.is_empty() || models.is_empty() {
            return Err(HardwareError::Empty);
        }
        Ok(Self { chips, models })
    }

    /// The same with the chips of a further table, which replace those of their names.
    pub fn with_chips(mut self, more: impl Read) -> Result<Self, HardwareError> {
        let more = read_chips(more)?;
        if more.is_empty() {
            return Err(HardwareError::Empty);
        }
        for chip in more {
            match self.chips.iter_mut().find(|known| known.name == chip.name) {
                Some(known) => *known = chip,
                None => self.chips.push(chip),
            }
        }
        Ok(self)
    }

    #[must_use]
    pub fn chips(&self) -> &[ChipFacts] {
        &self.chips
    }

    #[must_use]
    pub fn models(&self) -> &[ModelFacts] {
        &self.models
    }

    /// The model that chips were measured with.
    #[must_use]
    pub fn measured_with(&self) -> &ModelFacts {
        &self.models[0]
    }

    /// A model by its name.
    pub fn model(&self, name: &str) -> Result<&ModelFacts, PlaceError> {
        let found = self.models.iter().find(|model| model.name == name);
        found.ok_or_else(|| PlaceError::Model {
            name: name.into(),
            known: names(self.models.iter().map(|model| model.name.as_str())),
        })
    }

    /// How fast a machine serves a model.
    pub fn pair(&self, place: &Place, model: &ModelFacts) -> Result<Chip, PlaceError> {
        let found = self.chips.iter().find(|chip| chip.name == place.chip);
        let facts = found.ok_or_else(|| PlaceError::Chip {
            name: place.chip.clone(),
            known: names(self.chips.iter().map(|chip| chip.name.as_str())),
        })?;
        let chip = Chip::of(facts, place.memory_gb, model, self.measured_with());
        chip.ok_or_else(|| PlaceError::TooSmall {
            place: place.to_string(),
            model: model.name.clone(),
            weights_gb: model.weights_bytes / 1_000_000_000,
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.chip, self.memory_gb)
    }
}

impl std::str::FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let parsed = text.split_once('/').and_then(|(chip, memory_gb)| {
            Some(Self {
                chip: chip.into(),
                memory_gb: memory_gb.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| PlaceError::Form(text.into()))
    }
}

fn names<'a>(known: impl Iterator<Item = &'a str>) -> String {
    known.collect::<Vec<_>>().join(", ")
}

fn read_chips(table: impl Read) -> Result<Vec<ChipFacts>, HardwareError> {
    let rows = csv::Reader::from_reader(table).into_deserialize();
    rows.map(|row| chip(row?)).collect()
}

fn chip(row: ChipRow) -> Result<ChipFacts, HardwareError> {
    let facts = ChipFacts {
        prefill_512_mtps: rate(&row.prefill_512)?,
        prefill_8192_mtps: row.prefill_8192.as_deref().map(rate).transpose()?,
        decode_mtps: rate(&row.decode)?,
        row_percent_milli: row.row_percent.as_deref().map(rate).transpose()?,
        context_percent_milli: row.context_percent.as_deref().map(rate).transpose()?,
        name: row.chip,
        bandwidth_gbs: row.bandwidth_gbs,
        source: row.source,
    };
    // A long prompt is no faster than a short one, and a terabyte a second is some way off.
    let is_sound = (1..=10_000).contains(&facts.bandwidth_gbs)
        && (facts.prefill_8192_mtps).is_none_or(|long| long <= facts.prefill_512_mtps)
        // A row that is not alone takes at most as long as one that is.
        && (facts.row_percent_milli).is_none_or(|share| share < 100_000)
        && (facts.context_percent_milli).is_none_or(|share| share <= 1_000_000);
    match is_sound {
        true => Ok(facts),
        false => Err(HardwareError::Absurd(facts.name)),
    }
}

fn model(facts: ModelFacts) -> Result<ModelFacts, HardwareError> {
    const MOST: u64 = 100_000_000_000_000;
    let figures = [
        facts.parameters,
        facts.parameters_active,
        facts.weights_bytes,
        facts.weights_bytes_active,
        facts.kv_bytes_per_token,
        facts.attention_width,
    ];
    let is_sound = figures.iter().all(|figure| (1..=MOST).contains(figure))
        && facts.parameters_active <= facts.parameters
        && facts.weights_bytes_active <= facts.weights_bytes;
    match is_sound {
        true => Ok(facts),
        false => Err(HardwareError::Absurd(facts.name)),
    }
}

/// Thousandths of `408.23`, at most a million tokens a second.
fn rate(text: &str) -> Result<u64, HardwareError> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = (is_plain(whole) && is_plain(fraction) && fraction.len() <= 3)
        .then(|| format!("{whole}{fraction:0<3}").parse().ok())
        .flatten();
    parsed
        .filter(|mtps| (1..=1_000_000_000).contains(mtps))
        .ok_or_else(|| HardwareError::Rate(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(chips: &str) -> Result<Hardware, HardwareError> {
        let models = include_bytes!("models.csv").as_slice();
        let header = "chip,gpu_cores,bandwidth_gbs,prefill_512,prefill_8192,decode,source\n";
        Hardware::read(format!("{header}{chips}").as_bytes(), models)
    }

    #[test]
    fn every_figure_has_a_source_and_what_is_derived_says_so() {
        let hardware = Hardware::built_in();
        for chip in hardware.chips() {
            assert!(
                chip.source.len() > 20 || chip.source.starts_with("the same"),
                "{}",
                chip.name
            );
        }
        assert!(
            hardware
                .models()
                .iter()
                .all(|model| !model.source.is_empty())
        );
    }

    #[test]
    fn tables_that_cannot_be_true_are_refused_by_name() {
        for (row, part) in [
            ("a,1,400,0,,1,x\n", "`0` is no rate"),
            ("a,1,400,12.3456,,1,x\n", "`12.3456`"),
            ("a,1,400,-4,,1,x\n", "`-4`"),
            ("a,1,400,100,200,1,x\n", "a: a figure"),
            ("a,1,0,100,,1,x\n", "a: a figure"),
            ("", "no chip"),
        ] {
            let error = read(row).expect_err(row).to_string();
            assert!(error.contains(part), "{row}: {error}");
        }
    }

    #[test]
    fn a_further_table_replaces_and_adds_chips_and_may_say_more_of_them() {
        let more = "chip,bandwidth_gbs,prefill_512,prefill_8192,decode,row_percent,context_percent,source\n\
                    m1,68,90,,11,50.5,,mine\nm9-max,800,3000,2000,150,20,75,mine\n";
        let hardware = Hardware::built_in().clone().with_chips(more.as_bytes());
        let hardware = hardware.unwrap();
        let chip = |place: &str| {
            let place = place.parse().unwrap();
            hardware.pair(&place, hardware.measured_with()).unwrap()
        };
        let (old, new) = (chip("m1/16"), chip("m9-max/64"));
        // To the rounding of nanoseconds.
        let near = |value: u64, expected: u64| assert!(value.abs_diff(expected) <= 1, "{value}");
        near(old.decode_mtps().into(), 11_000);
        near(old.row_ns * 1_000 / (old.row_ns + old.step_ns), 505);
        near(new.row_ns * 1_000 / (new.row_ns + new.step_ns), 200);
        near(new.context_ps_per_token, 131_072 * 1_000 / 600);
        assert!(
            Hardware::built_in()
                .clone()
                .with_chips(&b"chip\n"[..])
                .is_err()
        );
    }

    #[test]
    fn machines_are_named_by_chip_and_memory_and_must_hold_the_model() {
        let hardware = Hardware::built_in();
        let pair = |place: &str, model: &str| {
            let place: Place = place.parse()?;
            hardware.pair(&place, hardware.model(model)?)
        };
        assert!(pair("m3-max/64", "llama-3-8b-4bit").is_ok());
        let text = |place, model| pair(place, model).expect_err(place).to_string();
        assert!(text("m3-max", "llama-3-8b-4bit").contains("m3-max/64"));
        assert!(text("m9/64", "llama-3-8b-4bit").contains("known: m1, m1-max"));
        assert!(text("m1/8", "llama-3-8b-4bit").contains("no room"));
        assert!(text("m3-max/64", "llama").contains("known: llama-3-8b-4bit"));
    }
}
