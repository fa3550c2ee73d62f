//! `cereus local`.

use std::time::Duration;

use cereus_local::{Backend, HttpLimits, Settings, start};
use cereus_provider::memory::{MemoryProbe as _, SystemMemory};
use secrecy::SecretString;
use serde_json::json;

use crate::cache;
use crate::cli::LocalArgs;
use crate::provider::model_place;
use crate::signal::asked_to_stop;
use crate::{Outcome, say};

/// The share of the memory that keys and values may take where nobody says.
pub(crate) const KV_MEMORY_SHARE: u64 = 4;

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
        Some(folder) if !args.echo => {
            let (own, folder) = model_place(&folder)?;
            (named.unwrap_or(own), Backend::Model(folder))
        }
        Some(_) | None => {
            let echo = Backend::Echo {
                words: args.echo_pieces,
                pause: Duration::from_millis(args.echo_pause_ms),
            };
            (named.unwrap_or_else(|| "echo".to_owned()), echo)
        }
    };
    let key = args.key.or_else(|| std::env::var("CEREUS_LOCAL_KEY").ok());
    let key = key.filter(|key| !key.is_empty()).map(SecretString::from);
    let disk = args
        .cache
        .map(|folder| cache::tier(&folder, &args.data, args.cache_gb));
    let quarter = || SystemMemory::default().read().physical_bytes / KV_MEMORY_SHARE;
    Ok(Settings {
        listen: args.listen,
        backend,
        model_id,
        rows_max: args.rows.max(1),
        waiting_max: args.waiting,
        kv_bytes_max: args.kv_gb.unwrap_or_else(quarter),
        disk: disk.transpose()?,
        key,
        allowed_hosts: args.allow_hosts,
        allowed_origins: args.allow_origins,
        limits: limits(args.connections, args.idle_timeout),
        drain_wait_max: Duration::from_secs(args.drain_wait),
    })
}

pub(crate) fn limits(connections: usize, idle_timeout_s: u64) -> HttpLimits {
    HttpLimits {
        idle_wait: Duration::from_secs(idle_timeout_s),
        ..HttpLimits::with_connections(connections.clamp(1, 1_000_000))
    }
}
