//! The header of a segment since version 2: JSON, so that what is added to a configuration later is
//! missing by name and not by position.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{Catalog, Config, Limits, ModelSpec};
use crate::draw::Seed;
use crate::event::Trust;
use crate::ids::Epoch;
use crate::money::{MicroUsd, Price};

/// What a journal says of itself before its first record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    config: Value,
    pub(super) segment: Segment,
}

/// Which part of a process's journal this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// From 1 in each process.
    pub number: u32,
    /// Events of the process before this segment.
    pub events_before: u64,
    pub start: Start,
}

/// Where the first event of a segment meets the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// Newly made from the configuration.
    Fresh,
    /// As the snapshot says that follows the header.
    Snapshot(SnapshotHead),
}

/// A snapshot is the state as one build lays it out: that build reads it, and maybe another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    pub size: u64,
    /// Of the state, in hexadecimal digits.
    pub state_digest: String,
    /// The version of the program that wrote it.
    pub build: String,
}

impl Segment {
    pub(super) const FIRST: Self = Self {
        number: 1,
        events_before: 0,
        start: Start::Fresh,
    };
}

impl Head {
    pub(super) fn new(config: &Config, segment: Segment) -> Self {
        Self {
            config: serde_json::to_value(config).expect("a configuration is plain data"),
            segment,
        }
    }

    /// The configuration. A value that the writer did not know is the published one.
    pub(super) fn config(self) -> Option<Config> {
        let mut whole = serde_json::to_value(published()).expect("a configuration is plain data");
        let model = whole.pointer_mut("/catalog/models/0")?.take();
        // Before models could come and go, their order was that of their ids.
        let is_ordered = self.config.pointer("/catalog/order").is_some();
        lay_over(&mut whole, self.config);
        for recorded in whole.pointer_mut("/catalog/models")?.as_array_mut()? {
            let mut full = model.clone();
            lay_over(&mut full, recorded.take());
            *recorded = full;
        }
        if !is_ordered {
            let models = whole.pointer_mut("/catalog/models")?.take();
            let models: Vec<ModelSpec> = serde_json::from_value(models).ok()?;
            let catalog = Catalog::new(models).ok()?;
            *whole.pointer_mut("/catalog")? = serde_json::to_value(catalog).ok()?;
        }
        let config: Config = serde_json::from_value(whole).ok()?;
        config.catalog.is_sound().then_some(config)
    }
}

/// What a name means that a header does not give.
fn published() -> Config {
    let model = ModelSpec {
        id: String::new(),
        price: Price {
            input_per_mtok: MicroUsd::ZERO,
            output_per_mtok: MicroUsd::ZERO,
        },
        context_tokens: 0,
        output_tokens_default: 0,
        weights_bytes: 0,
    };
    Config {
        epoch: Epoch(0),
        seed: Seed([0, 0]),
        catalog: Catalog::new(vec![model]).expect("one model is a catalogue"),
        limits: Limits::reference(),
        fee_percent: 0,
        trust_min: Trust::Hardware,
    }
}

/// Members of objects one by one, everything else whole.
fn lay_over(base: &mut Value, recorded: Value) {
    match (base, recorded) {
        (Value::Object(base), Value::Object(recorded)) => {
            for (name, value) in recorded {
                // A name of a build that knew more is passed over: nothing here would look at it.
                if let Some(member) = base.get_mut(&name) {
                    lay_over(member, value);
                }
            }
        }
        (base, recorded) => *base = recorded,
    }
}
