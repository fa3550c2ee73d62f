//! What a coordinator process is told at start.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cereus_core::config::{Catalog, CatalogError, Config, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::envelope::ScopeKey;
use cereus_core::event::Trust;
use cereus_core::ids::Epoch;
use cereus_core::money::{MicroUsd, Price};
use cereus_core::prefix::PrefixSecret;
use cereus_http::HttpLimits;
use orion::util::secure_rand_bytes;
use serde::Deserialize;

use crate::journal::JournalSettings;

/// Tokens of prompt and output together, where a catalogue names none.
pub const CONTEXT_TOKENS_DEFAULT: u32 = 8_192;
/// Output bound of a request that names none, where a catalogue names none.
pub const OUTPUT_TOKENS_DEFAULT: u32 = 512;
/// Open HTTP connections, where nobody says otherwise.
pub const CONNECTIONS_MAX_DEFAULT: usize = 4_096;
/// Of a model's name: a request cannot name a longer one.
pub const MODEL_ID_BYTES_MAX: usize = 256;
/// The smallest context of a model: a prompt of one token and an answer of one.
const CONTEXT_TOKENS_MIN: u32 = 2;
/// The platform's share of a charge.
pub const FEE_PERCENT_DEFAULT: u8 = 10;

#[derive(Clone, Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    /// Where the operator's metrics are shown; nowhere if `None`.
    pub metrics_listen: Option<SocketAddr>,
    pub data: PathBuf,
    pub config: Config,
    /// Where the catalogue came from, and can be read anew.
    pub source: CatalogSource,
    /// Limits on HTTP connections.
    pub limits: HttpLimits,
    pub journal: JournalSettings,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub proxies: Vec<IpAddr>,
    /// How long a drain waits for the last stream before it ends anyway.
    pub drain_wait_max: Duration,
}

impl Settings {
    /// The published limits around a catalogue, with a fresh random seed.
    #[must_use]
    pub fn new(listen: SocketAddr, data: PathBuf, catalog: Catalog) -> Self {
        let source = CatalogSource {
            models: catalog.iter().map(|(_, spec)| spec.clone()).collect(),
            file: None,
        };
        let config = Config {
            // The store gives the number when the run begins.
            epoch: Epoch(0),
            seed: fresh_seed(),
            catalog,
            limits: Limits::reference(),
            fee_percent: FEE_PERCENT_DEFAULT,
            trust_min: Trust::SelfSigned,
        };
        Self {
            listen,
            metrics_listen: None,
            data,
            config,
            source,
            limits: HttpLimits::with_connections(CONNECTIONS_MAX_DEFAULT),
            journal: JournalSettings::reference(),
            proxies: Vec::new(),
            drain_wait_max: Duration::from_secs(600),
        }
    }
}

/// What an operator says of the models to sell: some for good, some in a file.
#[derive(Clone, Debug, Default)]
pub struct CatalogSource {
    pub models: Vec<ModelSpec>,
    pub file: Option<PathBuf>,
}

impl CatalogSource {
    /// All models, those of the file as it is now. Errors are sentences.
    pub fn read(&self) -> Result<Vec<ModelSpec>, String> {
        let mut models = self.models.clone();
        if let Some(path) = &self.file {
            models.extend(read_catalog(path)?);
        }
        Ok(models)
    }

    /// What is said of models that make no catalogue.
    #[must_use]
    pub fn refusal(error: &CatalogError) -> String {
        format!("{error} (--model or --model-catalog names the models)")
    }
}

pub(crate) fn fresh_scope_key() -> ScopeKey {
    ScopeKey::from_bytes(fresh_bytes())
}

pub(crate) fn fresh_prefix_secret() -> PrefixSecret {
    PrefixSecret::new(fresh_bytes())
}

fn fresh_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    secure_rand_bytes(&mut bytes).expect("the system gives randomness");
    bytes
}

pub(crate) fn fresh_seed() -> Seed {
    let mut bytes = [0; 16];
    secure_rand_bytes(&mut bytes).expect("the system gives randomness");
    let (low, high) = bytes.split_at(8);
    let word = |half: &[u8]| u64::from_le_bytes(half.try_into().expect("eight bytes"));
    Seed([word(low), word(high)])
}

/// One model of a catalogue file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    id: String,
    input_micro_usd_per_mtok: i64,
    output_micro_usd_per_mtok: i64,
    context_tokens: Option<u32>,
    output_tokens_default: Option<u32>,
    weights_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CatalogFile {
    models: Vec<ModelEntry>,
}

/// Reads `{"models": [{"id": ..., "input_micro_usd_per_mtok": ..., ...}]}`. Errors are sentences.
pub fn read_catalog(path: &Path) -> Result<Vec<ModelSpec>, String> {
    let text = fs::read_to_string(path).map_err(|error| {
        format!(
            "cannot read the model catalogue {}: {error}",
            path.display()
        )
    })?;
    let file: CatalogFile = serde_json::from_str(&text).map_err(|error| {
        format!(
            "the model catalogue {} is not right: {error}",
            path.display()
        )
    })?;
    let specs = file.models.into_iter().map(ModelEntry::into_spec);
    let specs: Result<Vec<ModelSpec>, String> = specs.collect();
    specs.map_err(|why| format!("the model catalogue {} is not right: {why}", path.display()))
}

/// A name by which a model is sold and asked for.
pub fn parse_model_id(text: &str) -> Result<String, String> {
    let is_odd = |it: char| it.is_whitespace() || it.is_control();
    if text.is_empty() || text.len() > MODEL_ID_BYTES_MAX || text.contains(is_odd) {
        return Err(format!(
            "{text:?} is no name of a model: expected 1 to {MODEL_ID_BYTES_MAX} bytes without blanks \
             and control characters, for instance acme/small"
        ));
    }
    Ok(text.to_owned())
}

/// Reads `ID:INPUT:OUTPUT[:CONTEXT]`, prices in micro-USD for a million tokens.
pub fn parse_model(text: &str) -> Result<ModelSpec, String> {
    let expected = || {
        format!(
            "`{text}`: expected ID:INPUT:OUTPUT or ID:INPUT:OUTPUT:CONTEXT, with prices in \
             micro-USD for a million tokens, for instance tiny:50000:200000:2048"
        )
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (id, numbers) = parts.split_first().ok_or_else(expected)?;
    let (input, output, context) = match numbers {
        [input, output] => (input, output, None),
        [input, output, context] => (input, output, Some(context)),
        _ => return Err(expected()),
    };
    let price = |text: &str| text.parse::<i64>().ok().filter(|price| *price >= 0);
    if id.is_empty() {
        return Err(expected());
    }
    let entry = ModelEntry {
        id: (*id).to_owned(),
        input_micro_usd_per_mtok: price(input).ok_or_else(expected)?,
        output_micro_usd_per_mtok: price(output).ok_or_else(expected)?,
        context_tokens: match context {
            Some(context) => Some(context.parse().map_err(|_| expected())?),
            None => None,
        },
        output_tokens_default: None,
        weights_bytes: None,
    };
    entry.into_spec()
}

impl ModelEntry {
    fn into_spec(self) -> Result<ModelSpec, String> {
        let id = parse_model_id(&self.id)?;
        if self.input_micro_usd_per_mtok < 0 || self.output_micro_usd_per_mtok < 0 {
            return Err(format!("the price of {id} is below zero; 0 gives it away"));
        }
        let context_tokens = self.context_tokens.unwrap_or(CONTEXT_TOKENS_DEFAULT);
        if context_tokens < CONTEXT_TOKENS_MIN {
            return Err(format!(
                "a context of {context_tokens} tokens leaves {id} no room for an answer; expected at \
                 least {CONTEXT_TOKENS_MIN}"
            ));
        }
        // A bound above half the context would refuse every longer prompt.
        let output_tokens_default = self
            .output_tokens_default
            .unwrap_or(OUTPUT_TOKENS_DEFAULT)
            .min(context_tokens / 2);
        Ok(ModelSpec {
            id,
            price: Price {
                input_per_mtok: MicroUsd(self.input_micro_usd_per_mtok),
                output_per_mtok: MicroUsd(self.output_micro_usd_per_mtok),
            },
            context_tokens,
            output_tokens_default,
            weights_bytes: self.weights_bytes.unwrap_or(0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_on_the_command_line_carries_its_prices() {
        let spec = parse_model("acme/tiny:50000:200000:2048").unwrap();
        assert_eq!(spec.id, "acme/tiny");
        assert_eq!(spec.price, Price::DEFAULT);
        assert_eq!(spec.context_tokens, 2_048);
        assert_eq!(
            parse_model("a:1:2").unwrap().context_tokens,
            CONTEXT_TOKENS_DEFAULT
        );
    }

    #[test]
    fn a_model_that_cannot_be_read_is_answered_with_an_example() {
        for text in [
            "",
            "tiny",
            "tiny:1",
            ":1:2",
            "tiny:a:2",
            "tiny:-1:2",
            "tiny:1:2:x",
            "a:1:2:3:4",
        ] {
            let message = parse_model(text).unwrap_err();
            assert!(message.contains("tiny:50000:200000"), "{message}");
        }
    }

    #[test]
    fn a_model_that_nobody_could_ask_for_is_refused() {
        for (text, part) in [
            ("tiny:1:2:0", "context of 0 tokens"),
            ("tiny:1:2:1", "at least 2"),
            ("my tiny:1:2", "blanks"),
            ("tiny\n:1:2", r#""tiny\n" is no name"#),
            ("tiny\u{7}:1:2", "control characters"),
        ] {
            let message = parse_model(text).unwrap_err();
            assert!(message.contains(part), "{text:?}: {message}");
            assert!(!message.contains(char::is_control), "{message:?}");
        }
        assert!(parse_model_id(&"x".repeat(257)).is_err());
        assert!(parse_model("tiny:1:2:2").is_ok());
    }

    #[test]
    fn a_catalogue_file_with_an_unknown_field_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("models.json");
        fs::write(&path, r#"{"models":[{"id":"a","input_micro_usd_per_mtok":1,"output_micro_usd_per_mtok":2,"colour":3}]}"#)
            .unwrap();
        assert!(read_catalog(&path).unwrap_err().contains("colour"));
        fs::write(
            &path,
            r#"{"models":[{"id":"a","input_micro_usd_per_mtok":1,"output_micro_usd_per_mtok":2}]}"#,
        )
        .unwrap();
        assert_eq!(read_catalog(&path).unwrap()[0].id, "a");
        fs::write(
            &path,
            r#"{"models":[{"id":"a","input_micro_usd_per_mtok":-1,"output_micro_usd_per_mtok":2}]}"#,
        )
        .unwrap();
        assert!(read_catalog(&path).unwrap_err().contains("below zero"));
    }
}
