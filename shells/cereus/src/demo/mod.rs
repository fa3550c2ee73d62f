//! `cereus demo`: one private chat completion, from an HTTP client through the coordinator to a
//! provider and back, over real sockets between real processes.

mod child;
pub(crate) mod receipt;
mod steps;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cereus_client::Client;
use cereus_coordinator::store::{self, ApiKey};
use cereus_core::money::MicroUsd;
use secrecy::{ExposeSecret as _, SecretString};

use crate::chat::{Printed, print_answer, question, text};
use crate::cli::DemoArgs;
use crate::paint::Paint;
use crate::signal::asked_to_stop;
use crate::{Outcome, say};
use child::Process;
use steps::Step;

const ACCOUNT: &str = "demo";
const CREDIT: MicroUsd = MicroUsd(1_000_000);
const PRICES: &str = "50000:200000";
const ANSWER_TOKENS_MAX: i64 = 128;
const COORDINATOR_WAIT: Duration = Duration::from_secs(20);
/// A large model takes its time to load.
const MODEL_WAIT: Duration = Duration::from_secs(600);
const JOIN_WAIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

pub(crate) async fn demo(args: DemoArgs) -> Outcome {
    let (folder, model) = prepare(&args)?;
    let ending = run(&args, &folder, &model).await;
    if args.data.is_some() {
        return ending;
    }
    // What went wrong is in its logs.
    ending.map_err(|why| {
        format!(
            "{why}\nbooks, journal and logs stay in {}",
            folder.display()
        )
    })?;
    std::fs::remove_dir_all(&folder)
        .map_err(|error| format!("cannot remove {}: {error}", folder.display()))
}

async fn run(args: &DemoArgs, folder: &Path, model: &Model) -> Outcome {
    let paint = Paint::for_stdout();
    let title = paint.bold("Cereus: one private chat completion, from end to end");
    let stay = match args.data {
        Some(_) => "",
        None => " (removed at the end if all goes well; --data FOLDER keeps them)",
    };
    let place = format!("books, journal and logs: {}{stay}", folder.display());
    say(&format!("{title}\n{}\n\n", paint.dim(&place)))?;
    let key = open_books(folder)?;

    let mut network = tokio::select! {
        network = Network::start(args, folder, model, paint) => network?,
        () = asked_to_stop() => return Ok(()),
    };
    let client = Client::new(&network.address, key.secret.clone()).map_err(text)?;
    let shown = tokio::select! {
        shown = show(&client, args, model, paint) => shown,
        ended = network.ended() => Err(ended),
        () = asked_to_stop() => Ok(()),
    };
    if shown.is_ok() && !args.once {
        print_snippets(
            &network.address,
            key.secret.expose_secret(),
            &model.id,
            paint,
        )?;
        tokio::select! {
            ended = network.ended() => return Err(ended),
            () = asked_to_stop() => say("\n")?,
        }
    }
    shown?;
    network.end(args, paint).await
}

struct Model {
    folder: PathBuf,
    id: String,
    context_tokens: u32,
}

fn prepare(args: &DemoArgs) -> Result<(PathBuf, Model), String> {
    let id = args
        .model
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or("model")
        .to_owned();
    let context_tokens = if args.echo {
        None
    } else {
        Some(context_tokens(&args.model)?)
    };
    let context_tokens =
        context_tokens.unwrap_or(cereus_coordinator::settings::CONTEXT_TOKENS_DEFAULT);
    let folder = args.data.clone().unwrap_or_else(|| {
        std::env::temp_dir().join(format!("cereus-demo-{}", std::process::id()))
    });
    let unusable = |why: &dyn std::fmt::Display| {
        let folder = folder.display();
        format!("cannot write to {folder} ({why}); choose another with --data")
    };
    if folder.exists() && !folder.is_dir() {
        return Err(unusable(&"not a folder"));
    }
    std::fs::create_dir_all(&folder).map_err(|error| unusable(&error))?;
    Ok((
        folder,
        Model {
            folder: args.model.clone(),
            id,
            context_tokens,
        },
    ))
}

/// What the model's own configuration says that it can hold.
fn context_tokens(model: &Path) -> Result<u32, String> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        format!(
            "cannot read {} ({error}); --model names a folder in the Hugging Face layout",
            path.display()
        )
    })?;
    let config: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| format!("{} is not right: {error}", path.display()))?;
    let tokens = config["max_position_embeddings"].as_u64();
    tokens
        .and_then(|tokens| u32::try_from(tokens).ok())
        .ok_or_else(|| format!("{} names no max_position_embeddings", path.display()))
}

fn open_books(folder: &Path) -> Result<ApiKey, String> {
    let mut store = store::open(folder).map_err(text)?;
    let key = store.create_key(ACCOUNT).map_err(text)?;
    let account = store
        .account(ACCOUNT)
        .map_err(text)?
        .expect("its key was just made");
    store.deposit(account, CREDIT).map_err(text)?;
    Ok(key)
}

/// The two processes.
struct Network {
    address: String,
    coordinator: Process,
    provider: Process,
    journal: String,
}

impl Network {
    async fn start(
        args: &DemoArgs,
        folder: &Path,
        model: &Model,
        paint: Paint,
    ) -> Result<Self, String> {
        let listen = format!("127.0.0.1:{}", args.port);
        // Looked at here, because the coordinator's own error names an option (`--listen`) that the
        // demo does not have.
        if std::net::TcpListener::bind(&listen)
            .is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
        {
            return Err(format!(
                "port {} is busy; choose another with --port, or leave it out for a free one",
                args.port
            ));
        }
        let step = Step::begin("coordinator", paint);
        let sold = format!("{}:{PRICES}:{}", model.id, model.context_tokens);
        let data = folder
            .to_str()
            .ok_or("the data folder's name is not UTF-8")?;
        let mut coordinator = Process::start(
            "coordinator",
            folder,
            &["--listen", &listen, "--data", data, "--model", &sold],
        )?;
        let address = coordinator.said("listening on ", COORDINATOR_WAIT).await?;
        let journal = coordinator.said("journal ", COORDINATOR_WAIT).await?;
        step.done(&format!("up at {address}"));

        let step = Step::begin("provider", paint);
        let keys = folder.join("provider");
        let keys = keys.to_str().ok_or("the data folder's name is not UTF-8")?;
        let model_folder = model
            .folder
            .to_str()
            .ok_or("the model folder's name is not UTF-8")?;
        let mut words = vec![
            "--coordinator",
            &address,
            "--data",
            keys,
            "--model-id",
            &model.id,
            "--memory-reserve-gb",
            "0",
        ];
        if args.echo {
            words.push("--echo");
        } else {
            words.extend(["--model", model_folder]);
        }
        let mut provider = Process::start("provider", folder, &words)?;
        let machine = provider.said("machine ", JOIN_WAIT).await?;
        let loaded = provider.said("loaded ", MODEL_WAIT).await?;
        step.done(&format!("loaded {loaded}"));

        let step = Step::begin("join", paint);
        provider.said("joined", JOIN_WAIT).await?;
        step.done(&format!("machine {machine} registered and attested"));
        let step = Step::begin("challenge", paint);
        provider.said("challenged", JOIN_WAIT).await?;
        verified(&address).await?;
        step.done("signed the coordinator's nonce, and was believed");
        Ok(Self {
            address,
            coordinator,
            provider,
            journal,
        })
    }

    /// Returns why when one of the two ends by itself.
    async fn ended(&mut self) -> String {
        tokio::select! {
            why = self.coordinator.ended() => why,
            why = self.provider.ended() => why,
        }
    }

    async fn end(self, args: &DemoArgs, paint: Paint) -> Outcome {
        let step = Step::begin("drain", paint);
        self.provider.end().await?;
        self.coordinator.end().await?;
        step.done(&match args.data {
            Some(_) => format!("both ended well; the journal is {}", self.journal),
            None => "both ended well".to_owned(),
        });
        Ok(())
    }
}

/// Returns when the coordinator has accepted the machine's answer to its challenge.
async fn verified(address: &str) -> Outcome {
    let client = Client::new(address, SecretString::default()).map_err(text)?;
    let until = tokio::time::Instant::now() + JOIN_WAIT;
    while client.get("/health").await.map_err(text)?["providers_verified"] == 0 {
        if tokio::time::Instant::now() > until {
            return Err("the coordinator did not believe the machine's signature".to_owned());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

async fn show(client: &Client, args: &DemoArgs, model: &Model, paint: Paint) -> Outcome {
    let whose = paint.dim(&format!("{:<5}", model.id));
    say(&format!(
        "\n{}  {}\n{whose}  ",
        paint.dim("you  "),
        args.prompt
    ))?;
    let body = question(&model.id, &args.prompt, ANSWER_TOKENS_MAX);
    let mut stream = client.chat_stream(&body).await.map_err(text)?;
    match print_answer(&mut stream).await?.printed {
        Printed::InPart => return Ok(()),
        Printed::Nothing => return Err("the answer had no content".to_owned()),
        Printed::Whole => {}
    }
    let path = format!("/v1/receipts/{}", stream.request_id());
    let receipt = client.get(&path).await.map_err(text)?;
    say(&format!("\n{}\n", receipt::table(&receipt, paint)))?;
    Ok(())
}

fn print_snippets(address: &str, key: &str, model: &str, paint: Paint) -> Outcome {
    let curl = paint.bold("It stays up. Try it with curl:");
    let openai = paint.bold("or with the openai package (pip install openai):");
    let end = paint.dim("Ctrl-C ends it.");
    say(&format!(
        "{curl}\n\n\
         curl -N {address}/v1/chat/completions -H 'Authorization: Bearer {key}' \\\n  \
         -H 'Content-Type: application/json' \\\n  \
         -d '{{\"model\":\"{model}\",\"stream\":true,\
         \"messages\":[{{\"role\":\"user\",\"content\":\"What is Cereus?\"}}]}}'\n\n\
         {openai}\n\n\
         python3 - <<'END'\n\
         from openai import OpenAI\n\
         client = OpenAI(base_url=\"{address}/v1\", api_key=\"{key}\")\n\
         stream = client.chat.completions.create(model=\"{model}\", stream=True,\n    \
         messages=[{{\"role\": \"user\", \"content\": \"What is Cereus?\"}}])\n\
         for chunk in stream:\n    \
         if chunk.choices:\n        \
         print(chunk.choices[0].delta.content or \"\", end=\"\", flush=True)\n\
         print()\n\
         END\n\n\
         {end}\n"
    ))
}
