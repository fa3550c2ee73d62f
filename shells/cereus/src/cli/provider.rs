//! `cereus provider`.

use std::path::{Path, PathBuf};

use cereus_coordinator::settings::parse_model_id;
use cereus_core::schedule::Window;
use cereus_core::slots::SLOTS_MAX;
use cereus_provider::EarnKey;
use clap::Args;
use secrecy::SecretString;

use super::EchoArgs;
use super::values::{KeyOption, key_in_file, key_in_variable, parse_account_key, parse_gib};

#[derive(Args)]
#[command(after_help = "Examples:\n  \
    cereus provider --coordinator http://127.0.0.1:8080 --model engine/models/tiny\n  \
    cereus provider --model small=models/a --model large=models/b --idle-timeout 30\n  \
    cereus provider --models ~/.cache/huggingface/hub --on-demand\n  \
    cereus provider --model models/a --schedule 'mon-fri 22:00-06:00' --schedule 'sat,sun 00:00-00:00'\n  \
    cereus provider --coordinator http://127.0.0.1:8080 --echo --model-id tiny\n\n\
    The machine's key is made at the first start and kept in --data. SIGTERM or Ctrl-C drains.\n\
    What does not fit beside the others is loaded when somebody asks for it, and then the model\n\
    that was idle longest goes; `cereus doctor --explain-memory` shows what fits.\n\n\
    Outside of its --schedule a provider finishes what runs, leaves the coordinator and unloads its\n\
    models. A window that ends no later than it begins ends on the next day.")]
pub(crate) struct ProviderArgs {
    /// The coordinator's address; an earning key travels to another machine over https alone
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    pub(crate) coordinator: String,
    /// A PEM file of certificates to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub(crate) authorities: Option<PathBuf>,
    /// A model folder in the standard Hugging Face layout, under the folder's name or another one; may be repeated
    #[arg(long = "model", value_name = "[ID=]FOLDER", value_parser = parse_served, required_unless_present_any = ["echo", "roots"])]
    pub(crate) models: Vec<Served>,
    /// Serve every model in this folder or Hugging Face cache; may be repeated
    #[arg(long = "models", value_name = "FOLDER")]
    pub(crate) roots: Vec<PathBuf>,
    /// The name under which the coordinator sells the one --model; with --echo may be repeated
    #[arg(long = "model-id", value_name = "ID", value_parser = parse_model_id)]
    pub(crate) model_ids: Vec<String>,
    /// Load no model before somebody asks for it
    #[arg(long)]
    pub(crate) on_demand: bool,
    /// Models in memory at once
    #[arg(long, default_value_t = SLOTS_MAX, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) slots: u8,
    /// Minutes without a request after which a model leaves the memory; 0: never
    #[arg(long, value_name = "MINUTES", default_value_t = 60)]
    pub(crate) idle_timeout: u64,
    /// Memory left to other programs, in GiB
    #[arg(long, value_name = "GIB", value_parser = parse_gib)]
    pub(crate) memory_reserve_gb: Option<u64>,
    /// Folder of the machine's key
    #[arg(long, default_value = "cereus-provider")]
    pub(crate) data: PathBuf,
    /// An API key of the account that earns. The list of processes (`ps`) shows it to everybody on this
    /// machine: --earn-key-file and CEREUS_EARN_KEY do not
    #[arg(long, value_parser = KeyOption(parse_account_key))]
    pub(crate) earn_key: Option<String>,
    /// A file that holds that key and nothing else
    #[arg(long, value_name = "FILE", conflicts_with = "earn_key")]
    pub(crate) earn_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) echo: EchoArgs,
    /// Requests that one model serves at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) concurrency: u16,
    /// How long running requests may finish after SIGTERM, or when the hours end, in seconds
    #[arg(long, default_value_t = 120)]
    pub(crate) drain_wait: u64,
    /// Serve at these local times only, as in `mon-fri 22:00-06:00`; may be repeated
    #[arg(long = "schedule", value_name = "DAYS FROM-TO")]
    pub(crate) windows: Vec<Window>,
}

impl ProviderArgs {
    /// The key of the account that earns, from wherever it was given.
    pub(crate) fn earning_key(&self) -> Result<Option<EarnKey>, String> {
        const OPTION: &str = "--earn-key";
        const FILE_OPTION: &str = "--earn-key-file";
        const VARIABLE: &str = "CEREUS_EARN_KEY";
        let (key, from) = match (&self.earn_key, &self.earn_key_file) {
            (Some(key), _) => (Some(key.clone()), OPTION.to_owned()),
            (None, Some(file)) => {
                let key = key_in_file(FILE_OPTION, file, parse_account_key)?;
                (Some(key), format!("{FILE_OPTION} {}", file.display()))
            }
            (None, None) => {
                let key = key_in_variable(VARIABLE, parse_account_key)?;
                (key, VARIABLE.to_owned())
            }
        };
        Ok(key.map(|key| EarnKey {
            secret: SecretString::from(key),
            from,
        }))
    }
}

/// A model folder, and the name that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) id: Option<String>,
    pub(crate) folder: PathBuf,
}

/// A folder whose own name holds a `=` is taken as it is.
fn parse_served(text: &str) -> Result<Served, String> {
    let named = text.split_once('=').filter(|_| !Path::new(text).exists());
    Ok(match named {
        Some((id, folder)) => Served {
            id: Some(parse_model_id(id)?),
            folder: PathBuf::from(folder),
        },
        None => Served {
            id: None,
            folder: PathBuf::from(text),
        },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn a_model_may_be_given_a_name_of_its_own() {
        let served = parse_served("small=models/a").unwrap();
        assert_eq!(served.id.as_deref(), Some("small"));
        assert_eq!(served.folder, Path::new("models/a"));
        assert_eq!(parse_served("models/a").unwrap().id, None);
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join("a=b");
        std::fs::create_dir(&odd).unwrap();
        let served = parse_served(odd.to_str().unwrap()).unwrap();
        assert_eq!((served.id, served.folder), (None, odd));
    }

    #[test]
    fn an_earning_key_may_come_from_a_file_that_holds_nothing_else() {
        use secrecy::ExposeSecret as _;

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let given = |text: Option<&str>| {
            if let Some(text) = text {
                std::fs::write(&file, text).unwrap();
            }
            let words = ["cereus", "provider", "--echo", "--earn-key-file"];
            let words = words.iter().map(std::ffi::OsStr::new);
            let parsed = Cli::try_parse_from(words.chain([file.as_os_str()])).unwrap();
            let crate::cli::Command::Provider(args) = parsed.command else {
                unreachable!("it was asked for");
            };
            let key = args.earning_key()?.unwrap();
            assert_eq!(key.from, format!("--earn-key-file {}", file.display()));
            Ok::<_, String>(key.secret.expose_secret().to_owned())
        };
        let whole = format!("sk-cereus-{}", "0a".repeat(32));
        assert!(given(None).unwrap_err().contains("--earn-key-file"));
        assert_eq!(given(Some(&format!("{whole}\n"))).unwrap(), whole);
        assert!(given(Some(" \n")).unwrap_err().contains("is empty"));
        assert!(
            given(Some(&format!("{whole}\n{whole}\n")))
                .unwrap_err()
                .contains("more than a key")
        );
        let both = ["--earn-key", &whole, "--earn-key-file", "b"];
        let words = ["cereus", "provider", "--echo"];
        assert!(Cli::try_parse_from(words.iter().chain(&both)).is_err());
    }

    #[test]
    fn a_window_that_is_none_is_refused_with_an_example() {
        let parsed =
            |window| Cli::try_parse_from(["cereus", "provider", "--echo", "--schedule", window]);
        assert!(parsed("mon-fri 22:00-06:00").is_ok());
        for wrong in ["mon", "moon 22:00-06:00", "mon 22:00-24:00"] {
            let Err(error) = parsed(wrong) else {
                panic!("`{wrong}` was taken");
            };
            assert!(
                error.to_string().contains("22:00-06:00") || error.to_string().contains("mon-fri")
            );
        }
    }
}
