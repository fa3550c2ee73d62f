//! How a server of the OpenAI API feels to several clients at once, each of which asks again as soon
//! as it has its answer.
//!
//! Three rounds: short prompts that nobody asked before; long ones with a prefix that nobody asked
//! before; long ones with a prefix that all have in common. Prints one JSON object. Run by `cargo xtask
//! bench engine`, which starts the servers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_benches::words::Words;
use cereus_client::{Client, Piece};
use clap::Parser;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// A server may have to load its model first.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(200);
/// Number of the text that all have in common; the others count from one.
const SHARED: u64 = 0;

#[derive(Clone, Parser)]
#[command(about = "Clients in a closed loop against a server of the OpenAI API")]
struct Cli {
    /// Where the server is: http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// What the server calls its model
    #[arg(long)]
    model: String,
    /// The model's folder, made by `benches/mlx_lm/make.py`
    #[arg(long)]
    folder: PathBuf,
    #[arg(long, default_value_t = 16)]
    clients: u16,
    /// Requests of each client, one after the other
    #[arg(long, default_value_t = 4)]
    requests: u32,
    /// New tokens of each answer
    #[arg(long, default_value_t = 64)]
    tokens: u32,
    /// Tokens of a short prompt, and of what follows a prefix
    #[arg(long, default_value_t = 64)]
    prompt_tokens: u32,
    /// Tokens of a prefix
    #[arg(long, default_value_t = 1_500)]
    prefix_tokens: u32,
}

type Outcome<T> = Result<T, String>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match ask_all(Cli::parse()).await {
        Ok(found) => {
            println!("{found}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("served: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn ask_all(cli: Cli) -> Outcome<Value> {
    let mut crowd = Crowd {
        client: Client::new(&cli.url, "none".to_owned().into()).map_err(|why| why.to_string())?,
        words: Words::read(&cli.folder)?,
        asked: SHARED,
        cli,
    };
    crowd.until_ready().await?;
    let requests = crowd.cli.requests;
    crowd.round(Prefix::No, 1).await?;
    let short = crowd.round(Prefix::No, requests).await?;
    // Once each: a second prompt of the same client would find the first still in memory.
    let cold = crowd.round(Prefix::Own, 1).await?;
    let first = crowd.body(Prefix::Shared);
    ask(&crowd.client, &first, crowd.cli.tokens).await?;
    let shared = crowd.round(Prefix::Shared, requests).await?;
    Ok(json!({ "short": short, "cold_prefix": cold, "shared_prefix": shared }))
}

/// What a prompt begins with, before words that no other prompt has.
#[derive(Clone, Copy, Debug)]
enum Prefix {
    No,
    Own,
    Shared,
}

struct Crowd {
    client: Client,
    words: Words,
    cli: Cli,
    /// Texts given out so far; none is given out twice.
    asked: u64,
}

impl Crowd {
    async fn until_ready(&mut self) -> Outcome<()> {
        let began = Instant::now();
        let body = self.body(Prefix::No);
        loop {
            match ask(&self.client, &body, self.cli.tokens).await {
                Ok(_) => return Ok(()),
                Err(why) if began.elapsed() > READY_WAIT_MAX => {
                    return Err(format!(
                        "no answer in {} s: {why}",
                        READY_WAIT_MAX.as_secs()
                    ));
                }
                Err(_) => tokio::time::sleep(RETRY).await,
            }
        }
    }

    fn body(&mut self, prefix: Prefix) -> Value {
        let mut messages = vec![];
        let text = |number, tokens| self.words.text(number, tokens);
        self.asked += 1;
        let system = match prefix {
            Prefix::No => None,
            Prefix::Own => Some(text(self.asked, self.cli.prefix_tokens)),
            Prefix::Shared => Some(text(SHARED, self.cli.prefix_tokens)),
        };
        if let Some(system) = system {
            messages.push(json!({ "role": "system", "content": system }));
        }
        self.asked += 1;
        let user = text(self.asked, self.cli.prompt_tokens);
        messages.push(json!({ "role": "user", "content": user }));
        json!({
            "model": self.cli.model,
            "messages": messages,
            "max_tokens": self.cli.tokens,
            "temperature": 0,
            "stream": true,
            "stream_options": { "include_usage": true },
        })
    }

    /// Every client asks so many times in turn.
    async fn round(&mut self, prefix: Prefix, requests: u32) -> Outcome<Value> {
        let mut clients = JoinSet::new();
        let began = Instant::now();
        for _ in 0..self.cli.clients {
            let bodies: Vec<Value> = (0..requests).map(|_| self.body(prefix)).collect();
            let (client, tokens) = (self.client.clone(), self.cli.tokens);
            clients.spawn(async move {
                let mut waits = vec![];
                for body in &bodies {
                    waits.push(ask(&client, body, tokens).await?);
                }
                Ok::<_, String>(waits)
            });
        }
        let mut waits: Vec<Duration> = vec![];
        while let Some(ended) = clients.join_next().await {
            waits.extend(ended.map_err(|error| error.to_string())??);
        }
        let tokens = waits.len() as f64 * f64::from(self.cli.tokens);
        let seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "    {prefix:?} prefix: {} answers in {seconds:.1} s",
            waits.len()
        );
        waits.sort_unstable();
        let first_token_ms: Vec<f64> = waits
            .iter()
            .map(|wait| wait.as_secs_f64() * 1_000.0)
            .collect();
        Ok(json!({
            "output_tokens_per_s": tokens / seconds,
            "first_token_ms": first_token_ms,
        }))
    }
}

/// Time to the first token of an answer of exactly so many.
async fn ask(client: &Client, body: &Value, tokens: u32) -> Outcome<Duration> {
    let began = Instant::now();
    let failed = |why: cereus_client::ClientError| why.to_string();
    let mut stream = client.chat_stream(body).await.map_err(failed)?;
    let (mut first, mut counted) = (None, None);
    while let Some(piece) = stream.next().await.map_err(failed)? {
        match piece {
            Piece::Finish(_) => {}
            Piece::Text(_) => first = first.or_else(|| Some(began.elapsed())),
            Piece::Usage {
                completion_tokens, ..
            } => counted = Some(completion_tokens),
        }
    }
    if counted != Some(u64::from(tokens)) {
        return Err(format!("an answer has {counted:?} tokens, not {tokens}"));
    }
    first.ok_or_else(|| "an answer has no text".to_owned())
}
