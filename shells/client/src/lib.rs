//! A small client of the HTTP API: plain and streamed chats, receipts, health.
//!
//! Used by `cereus chat`, the demo, the tests and the load bench. It speaks plain HTTP only: it is
//! meant for the same machine or for behind a proxy that adds TLS.

mod sse;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use thiserror::Error;

use sse::Events;

/// Why a call gave no answer, or half of one.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The server refused or failed, in its own words.
    #[error(transparent)]
    Api(ApiError),
    #[error("`{0}` is no address of a coordinator; it looks like http://127.0.0.1:8080")]
    Address(String),
    #[error(
        "the API key holds a character that no key has, for instance a line break; give it as \
         `cereus key create` printed it"
    )]
    Key,
    #[error("the reply is not understood: {0}")]
    Malformed(&'static str),
    #[error("the connection to the coordinator broke: {0}")]
    Network(String),
    #[error("this is no coordinator: HTTP {status} from {url}")]
    Stranger { status: u16, url: String },
    #[error(
        "`{0}` asks for TLS, and this command speaks plain HTTP: use `curl` or an OpenAI client for \
         it, or reach the coordinator from its own machine or through a tunnel, for instance \
         `ssh -L 8080:127.0.0.1:8080 HOST` and http://127.0.0.1:8080"
    )]
    Tls(String),
    #[error(
        "nothing answers at {base} ({why}); `cereus coordinator` starts a coordinator, and \
         --coordinator names another address"
    )]
    Unreachable { base: String, why: String },
}

/// An error envelope.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message} ({}{code})", shown_status(*.status))]
pub struct ApiError {
    /// HTTP status; 200 when the error came inside a stream.
    pub status: u16,
    pub code: String,
    pub message: String,
    pub retry_after_s: Option<u64>,
}

/// What comes within a stream has no status of its own.
fn shown_status(status: u16) -> String {
    match status {
        200 => String::new(),
        status => format!("{status}, "),
    }
}

/// A client with its own pool of connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    base: String,
    key: SecretString,
}

impl Client {
    /// `base` with or without the `/v1` that OpenAI clients want.
    pub fn new(base: &str, key: SecretString) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        if base.starts_with("https://") {
            return Err(ClientError::Tls(base.to_owned()));
        }
        if !base.starts_with("http://") {
            return Err(ClientError::Address(base.to_owned()));
        }
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let http =
            hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self {
            http,
            base: base.to_owned(),
            key,
        })
    }

    /// The whole answer at once.
    pub async fn chat(&self, body: &Value) -> Result<Value, ClientError> {
        self.whole(Method::POST, "/v1/chat/completions", Some(body))
            .await
    }

    /// The answer as it is made. `body` must ask for `"stream": true`.
    pub async fn chat_stream(&self, body: &Value) -> Result<ChatStream, ClientError> {
        let reply = self
            .send(Method::POST, "/v1/chat/completions", Some(body))
            .await?;
        if !reply.status().is_success() {
            return Err(self.refused("/v1/chat/completions", reply).await);
        }
        let id = reply
            .headers()
            .get("x-inference-job-id")
            .and_then(|id| id.to_str().ok());
        Ok(ChatStream {
            request_id: id.unwrap_or_default().to_owned(),
            body: reply.into_body(),
            events: Events::default(),
            is_done: false,
        })
    }

    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.whole(Method::GET, path, None).await
    }

    async fn whole(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, ClientError> {
        let reply = self.send(method, path, body).await?;
        if !reply.status().is_success() {
            return Err(self.refused(path, reply).await);
        }
        let bytes = collected(reply.into_body()).await?;
        serde_json::from_slice(&bytes).map_err(|_| ClientError::Malformed("not JSON"))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", self.key.expose_secret()))
            .map_err(|_| ClientError::Key)?;
        bearer.set_sensitive(true);
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(bytes))
            .map_err(|_| ClientError::Address(self.base.clone()))?;
        self.http.request(request).await.map_err(|error| {
            if error.is_connect() {
                let (base, why) = (self.base.clone(), root(&error));
                return ClientError::Unreachable { base, why };
            }
            ClientError::Network(chain(&error))
        })
    }

    async fn refused(&self, path: &str, reply: Response<Incoming>) -> ClientError {
        let status = reply.status().as_u16();
        let retry_after_s = retry_after_s(reply.headers());
        let bytes = match collected(reply.into_body()).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if value["error"]["message"].is_string() {
            return ClientError::Api(envelope(status, retry_after_s, &value));
        }
        let url = format!("{}{path}", self.base);
        ClientError::Stranger { status, url }
    }
}

/// One step of a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Finish(String),
    Text(String),
    Usage {
        prompt_tokens: u64,
        completion_tokens: u64,
    },
}

/// A streamed answer.
#[derive(Debug)]
pub struct ChatStream {
    request_id: String,
    body: Incoming,
    events: Events,
    is_done: bool,
}

impl ChatStream {
    /// The request's id, by which its receipt is found.
    #[must_use]
    pub fn request_id(&self) -> &str {
        &self.request_id
    }

    /// The next piece; `None` after `[DONE]`. A stream that breaks off is an error.
    pub async fn next(&mut self) -> Result<Option<Piece>, ClientError> {
        loop {
            while let Some(payload) = self.payload()? {
                if payload == "[DONE]" {
                    self.is_done = true;
                    continue;
                }
                if let Some(piece) = read_piece(&payload)? {
                    return Ok(Some(piece));
                }
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.events.feed(&bytes);
                    }
                }
                Some(Err(error)) => return Err(ClientError::Network(chain(&error))),
                None if self.is_done => return Ok(None),
                None => return Err(ClientError::Malformed("the stream broke off")),
            }
        }
    }

    fn payload(&mut self) -> Result<Option<String>, ClientError> {
        self.events
            .next()
            .map_err(|_| ClientError::Malformed("not an event stream"))
    }
}

fn read_piece(payload: &str) -> Result<Option<Piece>, ClientError> {
    let value: Value =
        serde_json::from_str(payload).map_err(|_| ClientError::Malformed("not JSON"))?;
    if !value["error"].is_null() {
        return Err(ClientError::Api(envelope(200, None, &value)));
    }
    let choice = &value["choices"][0];
    if let Some(reason) = choice["finish_reason"].as_str() {
        return Ok(Some(Piece::Finish(reason.to_owned())));
    }
    if let Some(text) = choice["delta"]["content"].as_str() {
        return Ok((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
    }
    let usage = &value["usage"];
    if let (Some(prompt_tokens), Some(completion_tokens)) = (
        usage["prompt_tokens"].as_u64(),
        usage["completion_tokens"].as_u64(),
    ) {
        return Ok(Some(Piece::Usage {
            prompt_tokens,
            completion_tokens,
        }));
    }
    Ok(None)
}

fn envelope(status: u16, retry_after_s: Option<u64>, value: &Value) -> ApiError {
    let text = |name: &str| value["error"][name].as_str().unwrap_or_default().to_owned();
    ApiError {
        status,
        code: text("code"),
        message: text("message"),
        retry_after_s,
    }
}

fn retry_after_s(headers: &HeaderMap) -> Option<u64> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()
}

/// The most bytes of a reply that is not streamed.
const REPLY_SIZE_MAX: usize = 16 << 20;

async fn collected(body: Incoming) -> Result<Bytes, ClientError> {
    let whole = Limited::new(body, REPLY_SIZE_MAX)
        .collect()
        .await
        .map_err(|error| ClientError::Network(chain(&*error)))?;
    Ok(whole.to_bytes())
}

/// An error with its causes; none of them carries a body.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// The innermost cause, which says what happened; those around it say who noticed.
fn root(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(base: &str) -> String {
        let client = Client::new(base, SecretString::from("sk-cereus-x".to_owned()));
        client.expect_err("no address of plain HTTP").to_string()
    }

    #[test]
    fn an_address_that_cannot_be_used_is_answered_with_what_can() {
        let tls = refused("https://cereus.example/");
        assert!(
            tls.contains("`https://cereus.example` asks for TLS"),
            "{tls}"
        );
        assert!(tls.contains("ssh -L"), "{tls}");
        assert!(refused("cereus.example").contains("http://127.0.0.1:8080"));
    }

    /// One exchange with a server that sends this reply, or with none at all.
    async fn asked(reply: Option<&'static str>, key: &str, suffix: &str) -> (String, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        match reply {
            Some(reply) => {
                tokio::spawn(async move {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    let mut buffer = [0; 4_096];
                    let _ = stream.read(&mut buffer).await.unwrap();
                    stream.write_all(reply.as_bytes()).await.unwrap();
                });
            }
            None => drop(listener),
        }
        let key = SecretString::from(key.to_owned());
        let client = Client::new(&format!("{base}{suffix}"), key).unwrap();
        let answer = client.get("/v1/models").await;
        (
            base,
            answer.map_or_else(|error| error.to_string(), |value| value.to_string()),
        )
    }

    #[tokio::test]
    async fn who_is_not_there_or_is_somebody_else_is_named() {
        let (base, said) = asked(None, "k", "").await;
        assert!(
            said.contains(&format!("nothing answers at {base} (")),
            "{said}"
        );
        assert!(said.contains("--coordinator"), "{said}");
        let page = "HTTP/1.1 404 Not Found\r\nContent-Length: 6\r\n\r\n<html>";
        let (base, said) = asked(Some(page), "k", "").await;
        let expected = format!("this is no coordinator: HTTP 404 from {base}/v1/models");
        assert_eq!(said, expected);
        let (_, said) = asked(None, "sk-cereus-x\n", "").await;
        assert!(said.starts_with("the API key holds"), "{said}");
    }

    #[tokio::test]
    async fn the_address_of_an_openai_client_will_do() {
        let empty = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        for suffix in ["", "/", "/v1", "/v1/"] {
            let (_, said) = asked(Some(empty), "k", suffix).await;
            assert_eq!(said, "{}", "{suffix}");
        }
        let client = Client::new("http://a/v1/", SecretString::default()).unwrap();
        assert_eq!(client.base, "http://a");
    }

    #[test]
    fn an_error_within_a_stream_has_no_status() {
        let payload = r#"{"error":{"message":"It failed.","code":"provider_error"}}"#;
        let error = read_piece(payload).unwrap_err();
        assert_eq!(error.to_string(), "It failed. (provider_error)");
    }
}
