//! The routes of the API, and what stands around each of them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::routing::{get, post};
use axum::{Extension, Router};
use cereus_core::api::{Api, Envelope};
use cereus_core::denial::Denial;
use cereus_core::ids::RequestId;
use hyper::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, StatusCode, Uri};
use tower::{ServiceBuilder, ServiceExt as _};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, AllowPrivateNetwork, CorsLayer};
use uuid::Uuid;

use crate::body::{self, Bodies, Kept, Packing};
use crate::origin::{Names, OriginRule};
use crate::peer::Peer;
use crate::reply::{Failed, Reply, complaint, json};
use crate::target::with_plain_path;

/// How long a browser may remember what a page may ask.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);
const PATH_CHARS_SHOWN: usize = 200;
/// Longest request id of a caller that is repeated to it.
const REQUEST_ID_CHARS_MAX: usize = 128;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The name under which a receipt is found, whatever id the caller chose.
const JOB_ID: HeaderName = HeaderName::from_static("x-inference-job-id");

/// An API in which a conversation or a text comes in and an answer goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    Chat,
    Completions,
}

impl Endpoint {
    pub const ALL: [Self; 2] = [Self::Chat, Self::Completions];

    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
        }
    }

    /// The API by whose rules its bodies are read.
    #[must_use]
    pub const fn api(self) -> Api {
        match self {
            Self::Chat => Api::Chat,
            Self::Completions => Api::Completions,
        }
    }
}

/// One request for an answer.
#[derive(Debug)]
pub struct Call {
    pub id: RequestId,
    pub endpoint: Endpoint,
    pub body: Kept,
}

/// The id under which a request is known here; in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTag(pub RequestId);

/// What stands behind the routes: a network of machines, or one model on this machine.
pub trait Backend: Send + Sync + 'static {
    /// Whoever has shown a key, where one is asked for.
    type Caller: Send;

    /// Largest body of a request.
    const BODY_SIZE_MAX: usize;
    /// The APIs that it speaks.
    const ENDPOINTS: &'static [Endpoint];
    /// Paths of its own, for the reply to a path that does not exist.
    const OWN_PATHS: &'static [&'static str];

    /// Who asks, before a byte of the body is read.
    fn caller(
        &self,
        headers: &HeaderMap,
    ) -> impl Future<Output = Result<Self::Caller, Envelope>> + Send;

    /// The account that pays for what a caller asks, where there are accounts: all that its keys send
    /// has one share of the room for bodies.
    fn payer(_caller: &Self::Caller) -> Option<u64> {
        None
    }

    /// # Errors
    /// What is wrong with the request, or why there is no answer.
    fn answer(
        self: Arc<Self>,
        caller: Self::Caller,
        call: Call,
    ) -> impl Future<Output = Result<Reply, Envelope>> + Send;

    /// The list of models, as JSON.
    fn models(&self) -> Vec<u8>;

    /// # Errors
    /// There is no model of that id.
    fn model(&self, id: &str) -> Result<Vec<u8>, Envelope>;

    /// A server that asks for its key on nearly all paths does so here.
    ///
    /// # Errors
    /// 401 without the key.
    fn admit(&self, _path: &str, _headers: &HeaderMap) -> Result<(), Envelope> {
        Ok(())
    }

    /// A reply is on its way, for metrics.
    fn replied(&self, _status: StatusCode) {}
}

/// The API's routes over `backend`, those of `own` beside them, and the rules for all.
///
/// `own` are routes that one server alone has; they get the same ids, names, origins and keys.
pub fn routes<B: Backend>(
    backend: &Arc<B>,
    own: Router,
    names: Names,
    origins: OriginRule,
) -> Router {
    let mut api = Router::new()
        .route("/v1/models", get(models::<B>))
        .route("/v1/models/{*id}", get(model::<B>));
    for &endpoint in B::ENDPOINTS {
        let answer = post(answer::<B>).layer(Extension(endpoint));
        api = api.route(endpoint.path(), answer);
    }
    let inner = api
        .with_state(Arc::clone(backend))
        .merge(own)
        .fallback(no_route::<B>)
        .method_not_allowed_fallback(wrong_method)
        .layer(
            // The first layer is the outermost: it sees the request first and the reply last.
            ServiceBuilder::new()
                .layer(middleware::from_fn_with_state(
                    Arc::clone(backend),
                    tag_and_count::<B>,
                ))
                .layer(cors(&origins))
                .layer(middleware::from_fn_with_state(
                    Arc::new(Door {
                        backend: Arc::clone(backend),
                        names,
                        origins,
                    }),
                    admit::<B>,
                )),
        );
    // The path is rewritten before it is matched, hence around the whole router.
    Router::new().fallback_service(inner.map_request(with_plain_path))
}

async fn answer<B: Backend>(
    State(backend): State<Arc<B>>,
    Extension(endpoint): Extension<Endpoint>,
    Extension(RequestTag(id)): Extension<RequestTag>,
    request: Request,
) -> Result<Reply, Failed> {
    let caller = backend.caller(request.headers()).await?;
    let packing = Packing::of(request.headers())?;
    let place = match request.extensions().get::<Peer>() {
        Some(peer) => {
            peer.admit().await.map_err(Envelope::from)?;
            peer.place_of_body(B::payer(&caller))
        }
        // Nobody is there in tests of the routes alone.
        None => Bodies::new().place(&[]),
    };
    let body = body::read(request.into_body(), packing, B::BODY_SIZE_MAX, place).await?;
    let call = Call { id, endpoint, body };
    Ok(backend.answer(caller, call).await?)
}

async fn models<B: Backend>(State(backend): State<Arc<B>>) -> Reply {
    json(StatusCode::OK, backend.models())
}

/// Slashes in ids come raw or as `%2F`.
async fn model<B: Backend>(
    State(backend): State<Arc<B>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Reply, Failed> {
    // A path that is not UTF-8 names no model.
    let Path(id) = id.map_err(|_| Envelope::from(Denial::UnknownModel))?;
    Ok(json(StatusCode::OK, backend.model(&id)?))
}

/// Everything gets an id and is counted.
async fn tag_and_count<B: Backend>(
    State(backend): State<Arc<B>>,
    mut request: Request,
    next: Next,
) -> Reply {
    // Ids grow with time (UUID version 7), so that an index over them grows at one end and touches
    // few pages.
    let id = RequestId(Uuid::now_v7().as_u128());
    let own = HeaderValue::from_str(&id.to_string()).expect("digits and dashes");
    let shown = repeatable_id(request.headers()).unwrap_or_else(|| own.clone());
    request.extensions_mut().insert(RequestTag(id));
    let mut reply = next.run(request).await;
    backend.replied(reply.status());
    let headers = reply.headers_mut();
    headers.insert(REQUEST_ID, shown);
    headers.insert(JOB_ID, own);
    reply
}

/// An id that the caller chose, if it is fit to be repeated in a header.
fn repeatable_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(REQUEST_ID)?;
    let text = value.to_str().ok()?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    let is_fit = (1..=REQUEST_ID_CHARS_MAX).contains(&text.len()) && text.chars().all(is_plain);
    is_fit.then(|| value.clone())
}

struct Door<B> {
    backend: Arc<B>,
    names: Names,
    origins: OriginRule,
}

async fn admit<B: Backend>(
    State(door): State<Arc<Door<B>>>,
    request: Request,
    next: Next,
) -> Result<Reply, Failed> {
    let headers = request.headers();
    if !door.names.admit(headers) {
        let text = "this server answers to localhost and 127.0.0.1; --allow-host names another, and \
                    --listen with an address of the network takes any";
        return Err(complaint(StatusCode::FORBIDDEN, "forbidden_host", text).into());
    }
    if !door.origins.admit(headers) {
        let text = "this server answers no web page of that origin; --allow-origin names one";
        return Err(complaint(StatusCode::FORBIDDEN, "forbidden_origin", text).into());
    }
    door.backend.admit(request.uri().path(), headers)?;
    Ok(next.run(request).await)
}

fn cors(origins: &OriginRule) -> CorsLayer {
    // Browsers ask on behalf of a page of the web before they let it speak to a private address. Who
    // may read answers may do so from there too, and nobody else.
    let rule = origins.clone();
    let private = AllowPrivateNetwork::predicate(move |origin, _| rule.allows(origin));
    let allowed = match origins.clone() {
        OriginRule::Any => AllowOrigin::any(),
        rule @ OriginRule::Local { .. } => {
            AllowOrigin::predicate(move |origin, _| rule.allows(origin))
        }
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::list([
            Method::GET,
            Method::HEAD,
            Method::POST,
        ]))
        .allow_headers(AllowHeaders::mirror_request())
        .allow_private_network(private)
        .expose_headers([REQUEST_ID, JOB_ID, RETRY_AFTER])
        .max_age(CORS_MAX_AGE)
}

async fn no_route<B: Backend>(method: Method, uri: Uri) -> Failed {
    let posts = B::ENDPOINTS
        .iter()
        .map(|endpoint| ("POST", endpoint.path()));
    let gets = B::OWN_PATHS.iter().map(|path| ("GET", *path));
    let routes: Vec<(&str, &str)> = posts.chain([("GET", "/v1/models")]).chain(gets).collect();
    let path = shortened(uri.path());
    let nearest = nearest(&path, &routes)
        .map(|(method, path)| format!(" (did you mean {method} {path}?)"))
        .unwrap_or_default();
    let routes: Vec<String> = routes
        .into_iter()
        .map(|(method, path)| format!("{method} {path}"))
        .collect();
    let text = format!(
        "there is no {method} {path}{nearest}; this server has {}",
        routes.join(", ")
    );
    complaint(StatusCode::NOT_FOUND, "not_found", text).into()
}

/// The route whose path is most like `path`, if one is.
fn nearest<'r>(path: &str, routes: &[(&'r str, &'r str)]) -> Option<(&'r str, &'r str)> {
    let path = path.to_ascii_lowercase();
    let rank = |&(_, known): &(&str, &str)| strsim::damerau_levenshtein(&path, known);
    let found = routes.iter().min_by_key(|&route| rank(route))?;
    (rank(found) <= found.1.len() / 3).then_some(*found)
}

/// The Allow header beside it is the router's.
async fn wrong_method(method: Method, uri: Uri) -> Failed {
    let text = format!(
        "{} does not take {method}; the Allow header names what it takes",
        shortened(uri.path())
    );
    complaint(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", text).into()
}

/// As much of a path as an error should repeat.
fn shortened(path: &str) -> String {
    path.chars().take(PATH_CHARS_SHOWN).collect()
}

/// The key that a caller shows: `Authorization: Bearer KEY`, else `X-Api-Key: KEY`.
#[must_use]
pub fn shown_key(headers: &HeaderMap) -> Option<&str> {
    bearer(headers)
        .or_else(|| headers.get("x-api-key")?.to_str().ok())
        .filter(|key| !key.is_empty())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
