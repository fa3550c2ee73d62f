//! The routes without sockets: a backend that answers everything.

use axum::body::{Body, to_bytes};
use tower::ServiceExt as _;

use super::*;

struct Echo;

impl Backend for Echo {
    type Caller = ();
    const BODY_SIZE_MAX: usize = 64;
    const ENDPOINTS: &'static [Endpoint] = &Endpoint::ALL;
    const OWN_PATHS: &'static [&'static str] = &["/health"];

    async fn caller(&self, headers: &HeaderMap) -> Result<(), Envelope> {
        match shown_key(headers) {
            Some("good") => Ok(()),
            Some(_) | None => Err(Envelope::missing_key()),
        }
    }

    async fn answer(self: Arc<Self>, (): (), call: Call) -> Result<Reply, Envelope> {
        Ok(json(StatusCode::OK, call.body))
    }

    fn models(&self) -> Vec<u8> {
        b"[]".to_vec()
    }

    fn model(&self, id: &str) -> Result<Vec<u8>, Envelope> {
        Ok(id.as_bytes().to_vec())
    }
}

fn router() -> Router {
    router_for(OriginRule::Local { also: vec![] })
}

fn router_for(origins: OriginRule) -> Router {
    let own = Router::new().route("/health", get(|| async { "ok" }));
    routes(&Arc::new(Echo), own, Names::Local { also: vec![] }, origins)
}

async fn ask(request: Request) -> (u16, HeaderMap, String) {
    let reply = router().oneshot(request).await.unwrap();
    let (parts, body) = reply.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    (parts.status.as_u16(), parts.headers, body)
}

fn post_to(path: &str, headers: &[(&str, &str)], body: &str) -> Request {
    let mut request = Request::builder().method("POST").uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn a_caller_is_known_by_either_header_before_the_body_is_read() {
    let large = "x".repeat(65);
    for (headers, body, status) in [
        (&[("authorization", "Bearer good")][..], "{}", 200),
        (&[("authorization", "bearer  good ")], "{}", 200),
        (&[("x-api-key", "good")], "{}", 200),
        (&[("x-api-key", "bad")], "{}", 401),
        (&[("authorization", "Basic good")], "{}", 401),
        (&[], large.as_str(), 401),
        (&[("x-api-key", "good")], large.as_str(), 413),
    ] {
        let (came, _, said) = ask(post_to("/v1/chat/completions", headers, body)).await;
        assert_eq!(came, status, "{headers:?} {said}");
    }
}

#[tokio::test]
async fn a_path_with_slashes_too_many_is_the_path_without() {
    let headers = [("x-api-key", "good")];
    for path in ["/v1//chat/completions", "//v1/chat/completions/"] {
        let (status, _, said) = ask(post_to(path, &headers, "{}")).await;
        assert_eq!(status, 200, "{path}: {said}");
    }
}

#[tokio::test]
async fn an_id_of_a_model_may_hold_slashes_raw_or_escaped() {
    for path in ["/v1/models/a/b", "/v1/models/a%2Fb", "/v1/models/a/b/"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        assert_eq!(ask(request).await.2, "a/b");
    }
}

#[tokio::test]
async fn a_page_of_another_machine_gets_nothing_done() {
    let evil = [("x-api-key", "good"), ("origin", "https://evil.example")];
    let (status, headers, said) = ask(post_to("/v1/completions", &evil, "{}")).await;
    assert_eq!(status, 403, "{said}");
    assert!(said.contains("--allow-origin"));
    assert!(!headers.contains_key("access-control-allow-origin"));
    let own = [("x-api-key", "good"), ("origin", "http://localhost:3000")];
    let (status, headers, _) = ask(post_to("/v1/completions", &own, "{}")).await;
    assert_eq!(status, 200);
    assert_eq!(
        headers["access-control-allow-origin"],
        "http://localhost:3000"
    );
}

#[tokio::test]
async fn a_page_of_the_web_may_speak_to_a_private_address_only_where_its_origin_is_allowed() {
    let (chat, evil) = ("https://chat.example", "https://evil.example");
    let local = OriginRule::Local {
        also: vec![chat.to_owned()],
    };
    for (rule, origin, asks, is_allowed) in [
        (local.clone(), chat, true, true),
        (local.clone(), "http://localhost:3000", true, true),
        (local.clone(), chat, false, false),
        (local.clone(), evil, true, false),
        (local, "null", true, false),
        // Its keys protect it.
        (OriginRule::Any, evil, true, true),
    ] {
        let mut request = Request::builder()
            .method("OPTIONS")
            .uri("/v1/chat/completions")
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        if asks {
            request = request.header("access-control-request-private-network", "true");
        }
        let request = request.body(Body::empty()).unwrap();
        let reply = router_for(rule).oneshot(request).await.unwrap();
        let allowed = reply.headers().get("access-control-allow-private-network");
        let allowed = allowed.map(HeaderValue::as_bytes);
        assert_eq!(allowed, is_allowed.then_some(&b"true"[..]), "{origin}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_this_machines_is_refused_with_the_option_that_allows_it() {
    let named = [("x-api-key", "good"), ("host", "mac.lan:8080")];
    let (status, _, said) = ask(post_to("/v1/completions", &named, "{}")).await;
    assert_eq!(status, 403);
    assert!(said.contains("--allow-host"), "{said}");
}

#[tokio::test]
async fn a_wrong_method_is_told_what_is_right() {
    let request = Request::builder()
        .uri("/v1/chat/completions")
        .body(Body::empty())
        .unwrap();
    let (status, headers, said) = ask(request).await;
    assert_eq!((status, headers["allow"].to_str().unwrap()), (405, "POST"));
    assert!(said.contains("method_not_allowed"), "{said}");
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_told_what_does_and_what_is_nearest() {
    for (path, nearest) in [
        ("/chat/completions", Some("POST /v1/chat/completions")),
        ("/v1/chat/completion", Some("POST /v1/chat/completions")),
        ("/v1/v1/completions", Some("POST /v1/completions")),
        ("/v1/Models", Some("GET /v1/models")),
        ("/healthz", Some("GET /health")),
        ("/v1/images/generations", None),
    ] {
        let (status, _, said) = ask(post_to(path, &[], "{}")).await;
        assert_eq!(status, 404);
        assert!(
            said.contains("this server has POST /v1/chat/completions"),
            "{said}"
        );
        let meant = said.split("did you mean ").nth(1);
        let meant = meant.and_then(|meant| meant.split('?').next());
        assert_eq!(meant, nearest, "{said}");
    }
}

#[tokio::test]
async fn a_compression_that_is_not_read_is_told_which_are() {
    let odd = [("x-api-key", "good"), ("content-encoding", "lzma")];
    let (status, headers, said) = ask(post_to("/v1/completions", &odd, "{}")).await;
    assert_eq!(
        (status, headers["accept-encoding"].to_str().unwrap()),
        (415, "gzip, br, zstd")
    );
    assert!(said.contains("unsupported_content_encoding"), "{said}");
}
