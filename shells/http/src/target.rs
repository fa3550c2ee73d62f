//! What a request asks for, and of whom.

use axum::extract::Request;
use cereus_core::api::Envelope;
use hyper::header::{HOST, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery};
use hyper::{StatusCode, Uri, Version};

use crate::reply::complaint;

/// Holds a request to what RFC 9112 (3.2) demands of its Host. A proxy on the way and this server
/// may take two of them, or one beside another in the target, differently.
///
/// # Errors
/// 400 with what is wrong.
pub(crate) fn check_host<B>(request: &hyper::Request<B>) -> Result<(), Envelope> {
    let refused = |text| complaint(StatusCode::BAD_REQUEST, "invalid_host", text);
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(refused("the request has more than one Host header"));
    }
    let Some(host) = host else {
        return if request.version() >= Version::HTTP_11 {
            Err(refused("the request has no Host header"))
        } else {
            Ok(())
        };
    };
    let is_same = |target: &Authority| names(target, host, request.uri().scheme_str());
    if !request.uri().authority().is_none_or(is_same) {
        return Err(refused(
            "the Host header names another server than the request's target",
        ));
    }
    Ok(())
}

/// Whether a Host header names the authority of a target; a port that goes without saying may be
/// left out.
fn names(target: &Authority, host: &HeaderValue, scheme: Option<&str>) -> bool {
    let Ok(host) = Authority::try_from(host.as_bytes()) else {
        return false;
    };
    let usual = match scheme {
        Some("https") => 443,
        Some(_) | None => 80,
    };
    let port = |of: &Authority| of.port_u16().unwrap_or(usual);
    target.host().eq_ignore_ascii_case(host.host()) && port(target) == port(&host)
}

/// One slash for several, and none at the end: what a base address with a slash too many asks for.
pub(crate) fn with_plain_path(mut request: Request) -> Request {
    let path = request.uri().path();
    let has_more = path.contains("//") || (path.len() > 1 && path.ends_with('/'));
    if has_more && let Some(plain) = plain(request.uri()) {
        *request.uri_mut() = plain;
    }
    request
}

fn plain(uri: &Uri) -> Option<Uri> {
    let mut path = String::with_capacity(uri.path().len());
    for part in uri.path().split('/').filter(|part| !part.is_empty()) {
        path.push('/');
        path.push_str(part);
    }
    if path.is_empty() {
        path.push('/');
    }
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_names_its_host_once_and_as_its_target_does() {
        let refused = |version, target: &str, hosts: &[&str]| {
            let mut request = hyper::Request::builder().version(version).uri(target);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            check_host(&request.body(()).unwrap())
                .err()
                .map(|it| it.status)
        };
        for (target, hosts) in [
            ("/", &["here"][..]),
            ("/", &["here:8080"]),
            ("/", &[""]),
            ("http://here/", &["here"]),
            ("http://Here:80/", &["here"]),
            ("https://here/", &["here:443"]),
            ("http://[::1]:8080/", &["[::1]:8080"]),
        ] {
            assert_eq!(refused(Version::HTTP_11, target, hosts), None, "{target}");
        }
        for (target, hosts) in [
            ("/", &[][..]),
            ("/", &["here", "here"]),
            ("/", &["here", "there"]),
            ("http://here/", &[]),
            ("http://here/", &["there"]),
            ("http://here/", &[""]),
            ("http://here/", &["here:8080"]),
            ("http://here/", &["a b"]),
        ] {
            assert_eq!(
                refused(Version::HTTP_11, target, hosts),
                Some(400),
                "{target}"
            );
        }
        assert_eq!(refused(Version::HTTP_10, "/", &[]), None);
        assert_eq!(refused(Version::HTTP_10, "/", &["here", "here"]), Some(400));
    }

    #[test]
    fn slashes_that_say_nothing_are_left_out() {
        for (target, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/v1//chat///completions//", "/v1/chat/completions"),
            ("//v1/models/?a=//b/", "/v1/models?a=//b/"),
            ("/v1/models/a%2F%2Fb", "/v1/models/a%2F%2Fb"),
            ("http://here//v1/", "http://here/v1"),
            ("*", "*"),
        ] {
            let request = Request::builder()
                .uri(target)
                .body(axum::body::Body::empty());
            let plain = with_plain_path(request.unwrap());
            assert_eq!(plain.uri().to_string(), expected, "{target}");
        }
    }
}
