//! `cereus chat`.

use std::io::{ErrorKind, Write as _};

use cereus_client::{ChatStream, Client, Piece};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::cli::ChatArgs;
use crate::demo::receipt;
use crate::paint::Paint;
use crate::terminal::Cleaner;
use crate::{Outcome, say};

pub(crate) async fn chat(args: ChatArgs) -> Outcome {
    let key = args
        .key
        .or_else(|| std::env::var("CEREUS_API_KEY").ok())
        .filter(|key| !key.is_empty())
        .ok_or(
            "no API key; give it with --key or as CEREUS_API_KEY (`cereus key create` makes one)",
        )?;
    let client = Client::new(&args.coordinator, SecretString::from(key)).map_err(text)?;
    let mut body = question(&args.model, &args.prompt, args.max_tokens);
    if let Some(temperature) = args.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(seed) = args.seed {
        body["seed"] = json!(seed);
    }
    let mut stream = client.chat_stream(&body).await.map_err(text)?;
    let Shown { printed, is_cut } = print_answer(&mut stream).await?;
    if is_cut {
        let (bound, more) = (args.max_tokens, args.max_tokens.saturating_mul(4));
        eprintln!(
            "cereus: the answer was cut at --max-tokens {bound}; a larger bound gives more, for instance \
             --max-tokens {more}"
        );
    }
    if args.receipt && printed != Printed::InPart {
        let path = format!("/v1/receipts/{}", stream.request_id());
        let receipt = client.get(&path).await.map_err(text)?;
        let receipt = receipt::table(&receipt, Paint::for_stdout());
        say(&format!("\n{receipt}\n"))?;
    }
    Ok(())
}

/// A streamed chat of one message.
pub(crate) fn question(model: &str, prompt: &str, max_tokens: u32) -> Value {
    json!({
        "model": model,
        "messages": [{ "role": "user", "content": prompt }],
        "max_tokens": max_tokens,
        "stream": true,
        "stream_options": { "include_usage": true },
    })
}

/// How much of an answer there was to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Printed {
    /// Whoever reads standard output has gone, so nobody waits for the rest.
    InPart,
    Nothing,
    Whole,
}

/// What became of a streamed answer.
pub(crate) struct Shown {
    pub(crate) printed: Printed,
    /// It reached the bound on its tokens.
    pub(crate) is_cut: bool,
}

/// Prints each piece as it comes.
pub(crate) async fn print_answer(stream: &mut ChatStream) -> Result<Shown, String> {
    let mut out = std::io::stdout();
    let mut cleaner = Cleaner::default();
    let mut printed = Printed::Nothing;
    let mut is_cut = false;
    while let Some(piece) = stream.next().await.map_err(text)? {
        match piece {
            Piece::Text(piece) => {
                printed = Printed::Whole;
                let shown = write!(out, "{}", cleaner.clean(&piece)).and_then(|()| out.flush());
                match shown {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                        return Ok(Shown {
                            printed: Printed::InPart,
                            is_cut,
                        });
                    }
                    Err(error) => return Err(format!("standard output is gone: {error}")),
                }
            }
            Piece::Finish(reason) => is_cut = reason == "length",
            Piece::Usage { .. } => {}
        }
    }
    say("\n")?;
    Ok(Shown { printed, is_cut })
}

pub(crate) fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
