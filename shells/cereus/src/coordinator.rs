//! `cereus coordinator`.

use std::time::Duration;

use cereus_coordinator::settings::CatalogSource;
use cereus_coordinator::{Settings, start};
use cereus_core::config::Catalog;
use cereus_core::time::Span;

use crate::cli::CoordinatorArgs;
use crate::local::limits;
use crate::signal::asked_to_stop;
use crate::{Outcome, say};

pub(crate) async fn serve(args: CoordinatorArgs) -> Outcome {
    let running = start(settings(args)?)
        .await
        .map_err(|error| error.to_string())?;
    // The demo and the tests read these lines: they ask for port 0 and want to know.
    let _ = say(&format!("listening on http://{}\n", running.addr()));
    let _ = say(&format!("journal {}\n", running.journal().display()));
    if let Some(addr) = running.metrics_addr() {
        let _ = say(&format!("metrics on http://{addr}/metrics\n"));
    }
    let drainer = running.drainer();
    let mut ended = std::pin::pin!(running.ended());
    tokio::select! {
        ending = &mut ended => return ending.map_err(|error| error.to_string()),
        () = asked_to_stop() => {}
    }
    tracing::info!("draining: running streams finish, nothing more is admitted");
    drainer.drain();
    tokio::select! {
        ending = ended => ending.map_err(|error| error.to_string()),
        () = asked_to_stop() => Err("asked twice: ended before the last stream had".to_owned()),
    }
}

fn settings(args: CoordinatorArgs) -> Result<Settings, String> {
    let source = CatalogSource {
        models: args.models,
        file: args.model_catalog,
    };
    let catalog = Catalog::new(source.read()?).map_err(|error| CatalogSource::refusal(&error))?;
    let mut settings = Settings::new(args.listen, args.data, catalog);
    settings.source = source;
    settings.config.limits.queue_depth_max = args.queue_depth;
    settings.config.limits.queue_wait_max = Span::secs(args.queue_wait);
    settings.limits = limits(args.connections, args.idle_timeout);
    settings.metrics_listen = args.metrics_listen;
    settings.proxies = args.proxies;
    settings.drain_wait_max = Duration::from_secs(args.drain_wait);
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn told(options: &[&str]) -> Settings {
        let words = ["cereus", "coordinator", "--model", "tiny:1:1"];
        let Command::Coordinator(args) = Cli::parse_from(words.iter().chain(options)).command
        else {
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
