//! `cereus chat`, `cereus demo`: whoever asks.

use std::path::PathBuf;

use cereus_core::api::{Fault, Place, Refusal};
use clap::Args;

use super::values::{KeyOption, parse_key};

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus chat --key sk-cereus-... --model tiny \"What is 2 + 3?\"\n  \
    CEREUS_API_KEY=sk-cereus-... cereus chat --model tiny --receipt \"Spell cereus\"")]
pub(crate) struct ChatArgs {
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) coordinator: String,
    /// The API key; may also be given as CEREUS_API_KEY
    #[arg(long, value_parser = KeyOption(parse_key))]
    pub(crate) key: Option<String>,
    #[arg(long)]
    pub(crate) model: String,
    /// Most tokens of the answer; it is cut there. -1 leaves that to the server
    #[arg(long, default_value_t = 256, value_parser = parse_max_tokens)]
    pub(crate) max_tokens: i64,
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    #[arg(long)]
    pub(crate) seed: Option<i64>,
    /// Show what it cost and where the time went; a coordinator keeps receipts, `cereus local` none
    #[arg(long)]
    pub(crate) receipt: bool,
    /// What to ask
    pub(crate) prompt: String,
}

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus demo                        stays up; prints a curl line and a Python snippet\n  \
    cereus demo --once                 one answer, one receipt, exit status 0\n  \
    cereus demo --prompt \"Spell night\"")]
pub(crate) struct DemoArgs {
    /// Answer one prompt, show its receipt and stop
    #[arg(long)]
    pub(crate) once: bool,
    /// A model folder in the standard Hugging Face layout
    #[arg(long, default_value = "engine/models/tiny")]
    pub(crate) model: PathBuf,
    /// The coordinator's port; 0 takes any free port
    #[arg(long, default_value_t = 0)]
    pub(crate) port: u16,
    /// What to ask
    #[arg(long, default_value = "What is Cereus?")]
    pub(crate) prompt: String,
    /// Folder of the ledger and the journal; a fresh temporary one if not given
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Say the same word again and again instead of running the model
    #[arg(long)]
    pub(crate) echo: bool,
}

/// What a server takes as `max_tokens`, refused in its words.
fn parse_max_tokens(text: &str) -> Result<i64, String> {
    let bound: Option<i64> = text.parse().ok();
    bound
        .filter(|bound| *bound == -1 || *bound >= 1)
        .ok_or_else(|| {
            let (place, fault) = (Place::field("max_tokens"), Fault::NotWhole { least: 1 });
            Refusal::Field { place, fault }.to_string()
        })
}

#[cfg(test)]
mod tests {
    use cereus_core::api::Request;

    use super::*;

    #[test]
    fn a_bound_is_taken_or_refused_as_a_server_does() {
        for text in ["-2", "-1", "0", "1", "256", "1.5"] {
            let body = format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"hi"}}],"max_tokens":{text}}}"#
            );
            let served = Request::read_any(body.as_bytes());
            let (here, there) = (parse_max_tokens(text).err(), served.err());
            assert_eq!(here, there.map(|refusal| refusal.to_string()), "{text}");
        }
    }
}
