//! `cereus local`.

use std::time::Duration;

use cereus_local::{Backend, HttpLimits, Settings, start};
use cereus_provider::doctor::gib_text;
use cereus_provider::memory::{MemoryProbe as _, SystemMemory};
use secrecy::SecretString;
use serde_json::json;

use crate::cache;
use crate::cli::{LocalArgs, key_in_variable, parse_key};
use crate::provider::model_place;
use crate::signal::asked_to_stop;
use crate::{Outcome, say};

/// The share of the memory that keys and values may take where nobody says.
const KV_MEMORY_SHARE: u64 = 4;

pub(crate) async fn serve(args: LocalArgs) -> Outcome {
    let is_for_scripts = args.json;
    let settings = settings(args)?;
    let model = settings.model_id.clone();
    if settings.key.is_none() && !settings.listen.ip().is_loopback() {
        tracing::warn!(
            "whoever reaches {} may use this server; --key asks for a key",
            settings.listen
        );
    }
    let mut running = tokio::select! {
        started = start(settings) => started.map_err(|error| error.to_string())?,
        // While the model loads there is nothing to finish.
        () = asked_to_stop() => return Ok(()),
    };
    let address = format!("http://{}", running.addr());
    say(&if is_for_scripts {
        format!("{}\n", json!({"listening": address, "model": model}))
    } else {
        format!("{model} answers on {address}/v1\nCtrl-C stops it\n")
    })?;
    tokio::select! {
        ending = running.ended() => return ending.map_err(|error| error.to_string()),
        () = asked_to_stop() => {}
    }
    tracing::info!("draining: running answers finish, nothing more is taken");
    running.drain();
    tokio::select! {
        ending = running.ended() => ending.map_err(|error| error.to_string()),
        () = asked_to_stop() => Err("asked twice: ended before the last answer had".to_owned()),
    }
}

fn settings(args: LocalArgs) -> Result<Settings, String> {
    let named = args.model_id;
    let (model_id, backend) = match args.folder {
        Some(folder) if !args.echo.is_on => {
            let (own, folder) = model_place(&folder)?;
            (named.unwrap_or(own), Backend::Model(folder))
        }
        Some(_) | None => {
            let echo = Backend::Echo {
                words: args.echo.pieces,
                pause: Duration::from_millis(args.echo.pause_ms),
            };
            (named.unwrap_or_else(|| "echo".to_owned()), echo)
        }
    };
    let key = match args.key {
        Some(key) => Some(key),
        None => key_in_variable("CEREUS_LOCAL_KEY", parse_key)?,
    };
    let key = key.map(SecretString::from);
    let disk = args
        .cache
        .map(|folder| cache::tier(&folder, &args.data, args.cache_gb));
    Ok(Settings {
        listen: args.listen,
        backend,
        model_id,
        rows_max: args.rows,
        waiting_max: args.waiting,
        kv_bytes_max: kv_bytes_max(args.kv_gb)?,
        disk: disk.transpose()?,
        key,
        allowed_hosts: args.allow_hosts,
        allowed_origins: args.allow_origins,
        limits: limits(args.connections, args.idle_timeout),
        drain_wait_max: Duration::from_secs(args.drain_wait),
    })
}

/// For keys and values, of what the machine has.
pub(crate) fn kv_bytes_max(asked: Option<u64>) -> Result<u64, String> {
    let physical = SystemMemory::default().read().physical_bytes;
    match asked {
        // A machine that does not say what it has is believed to have it.
        Some(bytes) if physical > 0 && bytes > physical => Err(format!(
            "--kv-gb asks for {}, and this machine has {}",
            gib_text(bytes),
            gib_text(physical)
        )),
        Some(bytes) => Ok(bytes),
        None => Ok(physical / KV_MEMORY_SHARE),
    }
}

pub(crate) fn limits(connections: u32, idle_timeout_s: u64) -> HttpLimits {
    HttpLimits {
        idle_wait: Duration::from_secs(idle_timeout_s),
        ..HttpLimits::with_connections(usize::try_from(connections).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn told(options: &[&str]) -> Settings {
        let words = ["cereus", "local", "--echo"].iter().chain(options);
        let Command::Local(args) = Cli::parse_from(words).command else {
            unreachable!("it was asked for");
        };
        settings(args).unwrap()
    }

    #[test]
    fn a_connection_may_rest_longer_than_clients_keep_one_unless_somebody_says_otherwise() {
        let rest = |options: &[&str]| told(options).limits.idle_wait;
        assert!(rest(&[]) >= Duration::from_secs(90));
        assert_eq!(rest(&["--idle-timeout", "7"]), Duration::from_secs(7));
    }
}
