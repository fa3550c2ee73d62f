//! A calibration as a line of the table of chips: what the chip would do with the model that all chips of
//! the table are measured with.

use thiserror::Error;

use super::{Calibration, Figure, float, whole};
use crate::hardware::{ATTENTION_PPM, LONG, ModelFacts, SHORT};

/// The columns of [`Entry::line`].
pub const HEAD: [&str; 9] = [
    "chip",
    "gpu_cores",
    "bandwidth_gbs",
    "prefill_512",
    "prefill_8192",
    "decode",
    "row_percent",
    "context_percent",
    "source",
];

/// What no measurement says of a chip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    pub chip: String,
    pub gpu_cores: Option<u32>,
    pub bandwidth_gbs: u32,
    pub source: String,
}

/// Rates in tokens a second; with their standard errors.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub naming: Naming,
    pub prefill_512: Figure,
    pub prefill_8192: Option<Figure>,
    pub decode: Figure,
    /// In percent.
    pub row_percent: Option<Figure>,
    pub context_percent: Option<Figure>,
    /// Millions of bytes a second, from the disk to where they are computed with.
    pub load_mbs: Option<u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error(
        "{0} would be {1} in the table, where figures lie between a thousandth and a million; is \
         --model the one that was measured?"
    )]
    OutOfRange(&'static str, String),
}

impl Entry {
    /// `model` was measured, and `common` is what the table's chips are measured with.
    ///
    /// # Errors
    /// No table takes a figure of this size.
    pub fn of(
        fit: &Calibration,
        naming: Naming,
        model: &ModelFacts,
        common: &ModelFacts,
    ) -> Result<Self, EntryError> {
        let by_bytes = float(common.weights_bytes_active) / float(model.weights_bytes_active);
        let by_work = float(common.parameters_active) / float(model.parameters_active);
        let by_width = float(common.attention_width) / float(model.attention_width);
        let (own, attention) = split(fit);
        let of_prompt = |tokens: f64| own * by_work + attention * by_width * tokens / 2.0;
        let (short_ns, long_ns) = (of_prompt(float(SHORT)), of_prompt(float(LONG)));
        let context = fit.context_ns.map(|context| {
            let full_ns = float(model.kv_bytes_per_token) / f64::from(naming.bandwidth_gbs.max(1));
            let percent = 100.0 * full_ns / context.value;
            Figure {
                // More than ten times the bandwidth is nothing that could be told from nothing.
                value: percent.min(1_000.0),
                error: percent * context.relative(),
            }
        });
        let row = fit.row_ns.map(|row| Figure {
            value: 100.0 * row.value / fit.lone_ns.value,
            error: 100.0 * row.error / fit.lone_ns.value,
        });
        let load = fit.load_ms.filter(|took| *took > 0);
        let entry = Self {
            prefill_512: fit.short_ns.rate(short_ns),
            prefill_8192: fit.long_ns.map(|long| long.rate(long_ns)),
            decode: fit.lone_ns.rate(fit.lone_ns.value * by_bytes),
            row_percent: row,
            context_percent: context,
            load_mbs: load.map(|took_ms| (model.weights_bytes / 1_000 / took_ms).max(1)),
            naming,
        };
        let figures = [
            ("prefill_512", Some(entry.prefill_512)),
            ("prefill_8192", entry.prefill_8192),
            ("decode", Some(entry.decode)),
            ("row_percent", entry.row_percent),
            ("context_percent", entry.context_percent),
        ];
        for (name, figure) in figures {
            let Some(figure) = figure else { continue };
            if !(0.001..=1e6).contains(&figure.value) {
                return Err(EntryError::OutOfRange(name, figure.value.to_string()));
            }
        }
        Ok(entry)
    }

    /// Its cells under [`HEAD`].
    #[must_use]
    pub fn line(&self) -> [String; HEAD.len()] {
        let maybe = |figure: Option<Figure>| figure.map_or_else(String::new, Figure::cell);
        let naming = &self.naming;
        [
            naming.chip.clone(),
            naming
                .gpu_cores
                .map_or_else(String::new, |cores| cores.to_string()),
            naming.bandwidth_gbs.to_string(),
            self.prefill_512.cell(),
            maybe(self.prefill_8192),
            self.decode.cell(),
            maybe(self.row_percent),
            maybe(self.context_percent),
            naming.source.clone(),
        ]
    }
}

/// What a token of a prompt takes by itself, and for each token before it.
fn split(fit: &Calibration) -> (f64, f64) {
    let (short, long) = (float(SHORT), float(LONG));
    let Some(long_ns) = fit.long_ns else {
        let share = float(ATTENTION_PPM) / 1e6;
        let own = fit.short_ns.value / (1.0 + share * short / 2.0);
        return (own, own * share);
    };
    let attention = (long_ns.value - fit.short_ns.value) * 2.0 / (long - short);
    (fit.short_ns.value - attention * short / 2.0, attention)
}

impl Figure {
    fn relative(self) -> f64 {
        (self.error / self.value).abs()
    }

    /// A second has so many of what takes `ns`, which is as sure as this.
    fn rate(self, ns: f64) -> Self {
        let value = 1e9 / ns;
        Self {
            value,
            error: value * self.relative(),
        }
    }

    /// With three digits after the point, as tables have it.
    fn cell(self) -> String {
        let milli = whole(self.value * 1e3);
        let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}
