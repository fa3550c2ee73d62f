//! `cereus local`.

use std::net::SocketAddr;
use std::path::PathBuf;

use cereus_coordinator::settings::parse_model_id;
use clap::Args;

use super::values::{KeyOption, parse_key, parse_some_gib};
use super::{EchoArgs, LISTEN_DEFAULT};
use crate::listen::parse_listen;

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus local engine/models/tiny\n  \
    cereus local engine/models/tiny --listen 127.0.0.1:0 --json    for scripts: says where it listens\n  \
    cereus local engine/models/tiny --cache cereus-cache           long prompts outlive a restart\n\n\
    Then, in another terminal:\n  \
    curl http://127.0.0.1:8080/v1/chat/completions -H 'content-type: application/json' \\\n    \
    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is 2 + 3?\"}]}'\n\n\
    Routes: /v1/chat/completions, /v1/completions, /v1/models, /v1/status, /health, /metrics.\n\
    SIGTERM or Ctrl-C drains: nothing more is taken, running answers finish.")]
pub(crate) struct LocalArgs {
    /// A model folder in the standard Hugging Face layout
    #[arg(value_name = "FOLDER", required_unless_present = "echo")]
    pub(crate) folder: Option<PathBuf>,
    /// Where to listen: a port of this machine alone, or HOST:PORT; port 0 takes any free port
    #[arg(long, default_value = LISTEN_DEFAULT, value_parser = parse_listen, value_name = "[HOST:]PORT")]
    pub(crate) listen: SocketAddr,
    /// The name that requests give the model; the folder's name if not given
    #[arg(long, value_parser = parse_model_id)]
    pub(crate) model_id: Option<String>,
    /// A key that clients must send; may also be given as CEREUS_LOCAL_KEY; none asks for nothing
    #[arg(long, value_parser = KeyOption(parse_key))]
    pub(crate) key: Option<String>,
    /// Requests answered together
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) rows: u16,
    /// Requests that may wait before further ones get 429
    #[arg(long, default_value_t = 64)]
    pub(crate) waiting: u16,
    /// Open HTTP connections; further ones wait
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) connections: u32,
    /// Seconds that a connection may rest between two requests
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) idle_timeout: u64,
    /// Another host name under which a server of this machine answers, as `mac.lan`; may be repeated
    #[arg(long = "allow-host", value_name = "NAME")]
    pub(crate) allow_hosts: Vec<String>,
    /// Web pages that may use this server beside those of this machine, as `https://chat.example`, or `*`; may be repeated
    #[arg(long = "allow-origin", value_name = "ORIGIN", value_parser = parse_origin)]
    pub(crate) allow_origins: Vec<String>,
    /// Memory for keys and values, in GiB; a quarter of the machine's if not given
    #[arg(long, value_name = "GIB", value_parser = parse_some_gib)]
    pub(crate) kv_gb: Option<u64>,
    /// Keep what was computed of prompts of 1,024 tokens and more in this folder, sealed: it outlives memory and a restart, for a day
    #[arg(long, value_name = "FOLDER")]
    pub(crate) cache: Option<PathBuf>,
    /// The most that the cache takes of the disk, in GiB (with --cache)
    #[arg(long, value_name = "GIB", value_parser = parse_some_gib, default_value = "8", requires = "cache")]
    pub(crate) cache_gb: u64,
    /// Folder of the cache's key, outside the cache; made if it is not there (with --cache)
    #[arg(long, default_value = "cereus-data", requires = "cache")]
    pub(crate) data: PathBuf,
    /// How long running answers may finish after SIGTERM, in seconds
    #[arg(long, default_value_t = 120)]
    pub(crate) drain_wait: u64,
    /// Print one JSON object when it serves
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) echo: EchoArgs,
}

/// `*`, or what browsers send as a page's origin.
fn parse_origin(text: &str) -> Result<String, String> {
    let is_host = |host: &str| {
        let is_odd = |it: char| it.is_whitespace() || it.is_control() || "/?#@\\*".contains(it);
        !host.is_empty() && !host.starts_with(':') && !host.contains(is_odd)
    };
    let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
        !scheme.is_empty()
            && scheme
                .bytes()
                .all(|it| it.is_ascii_alphanumeric() || it == b'-')
            && is_host(host)
    });
    if text != "*" && !is_origin {
        return Err(format!(
            "`{text}`: expected * or an origin as browsers send it, SCHEME://HOST or \
             SCHEME://HOST:PORT, for instance https://chat.example"
        ));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for origin in ["*", "https://chat.example", "http://[::1]:3000", "app://-"] {
            assert_eq!(parse_origin(origin).as_deref(), Ok(origin));
        }
        for wrong in [
            "",
            "foo",
            "https://",
            "https://a/",
            "https://*.a",
            "https://:1",
            "https://a b",
        ] {
            assert!(parse_origin(wrong).is_err(), "{wrong}");
        }
    }
}
