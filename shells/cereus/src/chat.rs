//! `cereus chat`.

use std::io::{ErrorKind, Write as _};

use cereus_client::{ChatStream, Client, ClientError, Piece};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::cli::{ChatArgs, key_in_variable, parse_key};
use crate::demo::receipt;
use crate::paint::Paint;
use crate::terminal::Cleaner;
use crate::{Outcome, say};

pub(crate) async fn chat(args: ChatArgs) -> Outcome {
    let key = match args.key {
        Some(key) => Some(key),
        None => key_in_variable("CEREUS_API_KEY", parse_key)?,
    };
    let key = key.ok_or(
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
        eprintln!("cereus: {}", cut_at(args.max_tokens));
    }
    if args.receipt && printed != Printed::InPart {
        let id = stream.request_id();
        match client.get(&format!("/v1/receipts/{id}")).await {
            Ok(receipt) => {
                let receipt = receipt::table(&receipt, Paint::for_stdout());
                say(&format!("\n{receipt}\n"))?;
            }
            // The answer is whole, so that this is no failure of the chat.
            Err(error) => eprintln!("cereus: {}", without_receipt(&args.coordinator, id, &error)),
        }
    }
    Ok(())
}

fn cut_at(bound: i64) -> String {
    if bound < 0 {
        return "the answer was cut at the bound that the server sets; --max-tokens names a larger one"
            .to_owned();
    }
    format!(
        "the answer was cut at --max-tokens {bound}; a larger bound gives more, for instance \
         --max-tokens {}",
        bound.saturating_mul(4)
    )
}

/// Why a whole answer has no receipt beside it, and how to get that.
fn without_receipt(server: &str, id: &str, error: &ClientError) -> String {
    // A coordinator says "no receipt of that id"; a server without the path, that there is no such path.
    let has_no_path = matches!(error, ClientError::Api(refused)
        if refused.status == 404 && refused.message.starts_with("there is no GET "));
    if has_no_path || matches!(error, ClientError::Stranger { .. }) {
        return "the answer is whole; this server keeps no receipts, as `cereus local` keeps none: a \
                coordinator does"
            .to_owned();
    }
    format!(
        "the answer is whole and was charged; its receipt could not be fetched ({error}). It is {id}: \
         `curl -H 'Authorization: Bearer KEY' {}/v1/receipts/{id}` gets it as soon as the coordinator \
         answers, and `cereus requests` lists it at the coordinator",
        server.trim_end_matches('/').trim_end_matches("/v1")
    )
}

/// A streamed chat of one message.
pub(crate) fn question(model: &str, prompt: &str, max_tokens: i64) -> Value {
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

#[cfg(test)]
mod tests {
    use cereus_client::ApiError;

    use super::*;

    #[test]
    fn an_answer_whose_receipt_cannot_be_had_is_told_as_given_and_charged() {
        let gone = ClientError::Unreachable {
            base: "http://a".to_owned(),
            why: "refused".to_owned(),
        };
        let said = without_receipt("http://a/v1", "req_1", &gone);
        for part in [
            "was charged",
            "http://a/v1/receipts/req_1",
            "nothing answers at http://a",
        ] {
            assert!(said.contains(part), "{said}");
        }
        let refused = |message: &str| {
            let error = ApiError {
                status: 404,
                code: "not_found".to_owned(),
                message: message.to_owned(),
                retry_after_s: None,
            };
            without_receipt("http://a", "req_1", &ClientError::Api(error))
        };
        assert!(
            refused("there is no GET /v1/receipts/req_1").contains("`cereus local` keeps none")
        );
        assert!(refused("no receipt of that id is kept").contains("was charged"));
    }

    #[test]
    fn a_cut_at_a_bound_that_nobody_named_names_no_number() {
        assert!(!cut_at(-1).contains("-1"));
        assert!(
            cut_at(2).contains("cut at --max-tokens 2;") && cut_at(2).contains("--max-tokens 8")
        );
    }
}
