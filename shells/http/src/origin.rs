//! Which web pages may speak to a server, and under which names it answers.
//!
//! A page that a person visits can send requests to servers of that person's own machine. Two things
//! keep it out: a name of the page's own that resolves to loopback is refused by the Host header, and
//! an origin that nobody allowed by the Origin header.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};

/// What containers call the machine that they run on. `internal` is reserved for private use, so no
/// page of the web can have such a name.
const CONTAINER_NAMES: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// The host names under which a server answers.
#[derive(Clone, Debug)]
pub enum Names {
    /// Any name: the server is meant for others, under whatever name they know it.
    Any,
    /// localhost, addresses, what containers call their host, and these.
    Local { also: Vec<String> },
}

impl Names {
    /// A request without a name, as HTTP/1.0 has it, comes from no browser.
    #[must_use]
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        let Self::Local { also } = self else {
            return true;
        };
        let Some(host) = headers.get(HOST) else {
            return true;
        };
        let Ok(host) = host.to_str() else {
            return false;
        };
        if host.parse::<SocketAddr>().is_ok() {
            return true;
        }
        let name = without_port(host);
        let is_allowed = |allowed: &String| {
            host.eq_ignore_ascii_case(allowed) || name.eq_ignore_ascii_case(allowed)
        };
        let is_hosts_own = |own: &&str| name.eq_ignore_ascii_case(own);
        is_loopback_name(name)
            || is_address(name)
            || CONTAINER_NAMES.iter().any(is_hosts_own)
            || also.iter().any(is_allowed)
    }
}

/// The web pages that may read a server's answers.
#[derive(Clone, Debug)]
pub enum OriginRule {
    /// All of them: the server's keys are what protects it.
    Any,
    /// Pages of this machine, and these origins (`https://chat.example`).
    Local { also: Vec<String> },
}

impl OriginRule {
    /// Whether a request of a page (or of no page) may be answered.
    #[must_use]
    pub fn admit(&self, headers: &HeaderMap) -> bool {
        headers.get(ORIGIN).is_none_or(|origin| self.allows(origin))
    }

    #[must_use]
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Self::Local { also } = self else {
            return true;
        };
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let is_of_this_machine = origin.split_once("://").is_some_and(|(_, host)| {
            let name = without_port(host);
            is_loopback_name(name) || is_loopback_address(name)
        });
        is_of_this_machine
            || also
                .iter()
                .any(|allowed| origin.eq_ignore_ascii_case(allowed))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

fn is_loopback_name(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost")
}

fn address(name: &str) -> Option<IpAddr> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse().ok()
}

fn is_address(name: &str) -> bool {
    address(name).is_some()
}

fn is_loopback_address(name: &str) -> bool {
    address(name).is_some_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: hyper::header::HeaderName, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn a_server_of_this_machine_answers_to_its_names_only() {
        let names = Names::Local {
            also: vec!["mac.lan".to_owned()],
        };
        for host in [
            "localhost",
            "LocalHost:8080",
            "127.0.0.1:8080",
            "[::1]:80",
            "[::1]",
            "host.docker.internal:8080",
            "HOST.docker.internal",
            "mac.lan:8080",
        ] {
            assert!(names.admit(&named(HOST, host)), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example:80",
            "host.docker.internal.evil.example",
            "evil.docker.internal",
        ] {
            assert!(!names.admit(&named(HOST, host)), "{host}");
        }
        assert!(names.admit(&HeaderMap::new()));
        assert!(Names::Any.admit(&named(HOST, "mac.lan")));
    }

    #[test]
    fn a_page_of_another_machine_is_let_in_by_name_only() {
        let rule = OriginRule::Local {
            also: vec!["https://chat.example".to_owned()],
        };
        for origin in [
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:5173",
            "https://chat.example",
        ] {
            assert!(rule.admit(&named(ORIGIN, origin)), "{origin}");
        }
        for origin in [
            "null",
            "https://evil.example",
            "https://chat.example.evil.example",
            "https://localhost.evil.example",
            "http://192.168.0.7",
        ] {
            assert!(!rule.admit(&named(ORIGIN, origin)), "{origin}");
        }
        assert!(rule.admit(&HeaderMap::new()));
        assert!(OriginRule::Any.admit(&named(ORIGIN, "https://evil.example")));
    }
}
