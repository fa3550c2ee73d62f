//! Floors: what any server pays to stream such an answer, and any proxy to pass it on.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

use crate::Outcome;

/// Streams the same events as the echo backend, one at a time, where a stream is asked for, and says
/// the same in one piece elsewhere. Whatever else a router asks gets an empty object.
pub(crate) fn echo(pieces: u32) -> Outcome<()> {
    serve(move |request: Request<Incoming>| async move {
        let is_chat = request.uri().path() == "/v1/chat/completions";
        let body = request.into_body().collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        let is_streamed = body.windows(13).any(|it| it == b"\"stream\":true");
        let (kind, body) = match (is_chat, is_streamed) {
            (true, true) => (
                "text/event-stream",
                Either::Left(Events {
                    left: pieces + 2,
                    is_pending: false,
                }),
            ),
            (true, false) => (
                "application/json",
                Either::Right(Full::new(Bytes::from_static(WHOLE.as_bytes()))),
            ),
            (false, _) => (
                "application/json",
                Either::Right(Full::new(Bytes::from_static(b"{}"))),
            ),
        };
        let mut response = Response::new(body);
        let kind = HeaderValue::from_static(kind);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    })
}

const WHOLE: &str = concat!(
    "{\"id\":\"chatcmpl-00000000-0000-4000-8000-000000000000\",\"object\":\"chat.completion\",",
    "\"created\":1782864000,\"model\":\"echo\",\"choices\":[{\"index\":0,\"message\":{",
    "\"role\":\"assistant\",\"content\":\"echo \"},\"finish_reason\":\"stop\"}],",
    "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"total_tokens\":10}}"
);

/// Asks `upstream` the same and passes the answer on as it comes.
pub(crate) fn proxy(upstream: SocketAddr) -> Outcome<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    serve(move |request: Request<Incoming>| {
        let client = client.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body
                .collect()
                .await
                .map_err(|error| error.to_string())?
                .to_bytes();
            let asked = Request::post(format!("http://{upstream}{}", head.uri))
                .body(Full::new(body))
                .map_err(|error| error.to_string())?;
            let (mut head, body) = client
                .request(asked)
                .await
                .map_err(|error| error.to_string())?
                .into_parts();
            head.headers.remove(hyper::header::TRANSFER_ENCODING);
            Ok(Response::from_parts(head, body))
        }
    })
}

fn serve<S, F, B>(answer: S) -> Outcome<()>
where
    S: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<B>, String>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the system gives no threads: {error}"))?;
    runtime.block_on(async move {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .map_err(|error| format!("no port is free: {error}"))?;
        let addr = listener.local_addr().map_err(|error| error.to_string())?;
        println!("listening on {addr}");
        loop {
            let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
            let _ = stream.set_nodelay(true);
            let answer = answer.clone();
            tokio::spawn(async move {
                let service = service_fn(answer);
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                // A consumer that goes away ends its connection and nothing else.
                let _ = connection.await;
            });
        }
    })
}

/// Pieces, a finish and the end, each written when the one before was.
struct Events {
    left: u32,
    is_pending: bool,
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        // One turn of the loop between two pieces, as a model has: otherwise all go out as one.
        self.is_pending = !self.is_pending;
        if self.is_pending {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left -= 1;
        let event: &'static str = match self.left {
            0 => "data: [DONE]\n\n",
            1 => concat!(
                "data: {\"id\":\"chatcmpl-00000000-0000-4000-8000-000000000000\",",
                "\"object\":\"chat.completion.chunk\",\"created\":1782864000,\"model\":\"echo\",",
                "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
            ),
            _ => concat!(
                "data: {\"id\":\"chatcmpl-00000000-0000-4000-8000-000000000000\",",
                "\"object\":\"chat.completion.chunk\",\"created\":1782864000,\"model\":\"echo\",",
                "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"echo \"},",
                "\"finish_reason\":null}]}\n\n"
            ),
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(event.as_bytes())))))
    }
}
