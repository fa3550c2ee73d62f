//! Who may speak to the server: whoever has its key, and nobody whom a web page sent.

use std::net::{IpAddr, SocketAddr};

use cereus_core::api::Envelope;
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

use crate::http::complaint;

/// Open without a key: they tell nothing of any request.
const OPEN_PATHS: [&str; 2] = ["/health", "/v1/health"];

#[derive(Debug)]
pub(crate) struct Guard {
    key: Option<SecretString>,
    /// The server listens to this machine only.
    is_private: bool,
}

impl Guard {
    pub(crate) fn new(listen: SocketAddr, key: Option<SecretString>) -> Self {
        Self {
            key,
            is_private: listen.ip().is_loopback(),
        }
    }

    /// # Errors
    /// 401 without the key, 403 under a name that is not this machine's.
    pub(crate) fn admit<B>(&self, request: &Request<B>) -> Result<(), Envelope> {
        let headers = request.headers();
        // A page may have its own name resolve to loopback, and would then count as this server's.
        if self.is_private && !is_local_name(headers) {
            let text = "this server answers to localhost and 127.0.0.1; another name needs --listen \
                        with an address of the network";
            return Err(complaint(StatusCode::FORBIDDEN, "forbidden_host", text));
        }
        let Some(key) = &self.key else {
            return Ok(());
        };
        if OPEN_PATHS.contains(&request.uri().path()) || has_key(headers, key.expose_secret()) {
            return Ok(());
        }
        let text = "this server wants its key, as in `Authorization: Bearer KEY`";
        Err(Envelope {
            kind: "authentication_error",
            ..complaint(StatusCode::UNAUTHORIZED, "invalid_api_key", text)
        })
    }
}

/// A request without a name, as HTTP/1.0 has it, comes from no browser.
fn is_local_name(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else {
        return true;
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

fn has_key(headers: &HeaderMap, key: &str) -> bool {
    let said = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
    let said = said.and_then(|value| value.strip_prefix(b"Bearer "));
    said.is_some_and(|said| is_same(said, key.as_bytes()))
}

/// Takes as long for a good guess as for a bad one.
fn is_same(said: &[u8], key: &[u8]) -> bool {
    let differences = said.iter().zip(key).fold(0, |sum, (a, b)| sum | (a ^ b));
    said.len() == key.len() && differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(guard: &Guard, path: &str, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        guard.admit(&request).map_or_else(|it| it.status, |()| 200)
    }

    fn guard(listen: &str, key: Option<&str>) -> Guard {
        Guard::new(listen.parse().unwrap(), key.map(SecretString::from))
    }

    #[test]
    fn a_server_of_this_machine_answers_to_its_names_only() {
        let private = guard("127.0.0.1:8080", None);
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:8080",
            "[::1]:80",
            "[::1]",
        ] {
            assert_eq!(
                status(&private, "/v1/models", &[("host", host)]),
                200,
                "{host}"
            );
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example:80",
        ] {
            assert_eq!(
                status(&private, "/v1/models", &[("host", host)]),
                403,
                "{host}"
            );
        }
        assert_eq!(status(&private, "/v1/models", &[]), 200);
        let open = guard("0.0.0.0:8080", None);
        assert_eq!(status(&open, "/v1/models", &[("host", "mac.lan")]), 200);
    }

    #[test]
    fn a_key_is_asked_of_all_but_a_look_at_the_health() {
        let guard = guard("0.0.0.0:8080", Some("sesame"));
        let with = |value| [("authorization", value)];
        assert_eq!(status(&guard, "/v1/models", &with("Bearer sesame")), 200);
        assert_eq!(status(&guard, "/health", &[]), 200);
        for said in ["Bearer sesam", "Bearer sesame2", "Bearer ", "sesame"] {
            assert_eq!(status(&guard, "/v1/models", &with(said)), 401, "{said}");
        }
        assert_eq!(status(&guard, "/metrics", &[]), 401);
    }
}
