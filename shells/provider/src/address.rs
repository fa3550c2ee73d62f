//! Where the coordinator is, and how it is reached.

use std::net::IpAddr;

use http::Uri;

use crate::ProviderError;

/// Of the providers' endpoint.
const PATH: &str = "/ws/provider";

/// Whether the connection is encrypted on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) transport: Transport,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// What the handshake asks for.
    pub(crate) uri: Uri,
}

impl Address {
    /// Reads `http://HOST[:PORT]`, or the same with `https`, `ws` or `wss`, or with the `/v1` that
    /// OpenAI clients want.
    pub(crate) fn parse(text: &str) -> Result<Self, ProviderError> {
        let wrong = || ProviderError::Address(text.to_owned());
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let transport = match uri.scheme_str() {
            Some("http" | "ws") => Transport::Plain,
            Some("https" | "wss") => Transport::Tls,
            Some(_) | None => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let has_more = authority.as_str().contains('@') || uri.query().is_some();
        if has_more
            || !matches!(uri.path(), "" | "/" | "/v1" | "/v1/")
            || authority.host().is_empty()
        {
            return Err(wrong());
        }
        // `http` takes some authorities whose port cannot be read; behind the host only a port or
        // nothing is right.
        let behind = authority.as_str().strip_prefix(authority.host());
        if behind != Some("") && authority.port_u16().is_none() {
            return Err(wrong());
        }
        let (scheme, port) = match transport {
            Transport::Plain => ("ws", 80),
            Transport::Tls => ("wss", 443),
        };
        let endpoint = Uri::builder()
            .scheme(scheme)
            .authority(authority.clone())
            .path_and_query(PATH)
            .build()
            .map_err(|_| wrong())?;
        let host = authority.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        Ok(Self {
            transport,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(port),
            uri: endpoint,
        })
    }

    /// Whether a secret may travel there: encrypted, or without leaving this machine.
    pub(crate) fn is_confidential(&self) -> bool {
        let is_here = || {
            let address = self.host.parse::<IpAddr>();
            address.map_or(self.host.eq_ignore_ascii_case("localhost"), |address| {
                address.to_canonical().is_loopback()
            })
        };
        match self.transport {
            Transport::Plain => is_here(),
            Transport::Tls => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_becomes_the_endpoint_of_its_host() {
        let table = [
            ("http://a:1/", "ws://a:1/ws/provider", "a", 1),
            ("http://a:1/v1", "ws://a:1/ws/provider", "a", 1),
            ("ws://a", "ws://a/ws/provider", "a", 80),
            (
                "https://a.example",
                "wss://a.example/ws/provider",
                "a.example",
                443,
            ),
            (
                "wss://[::1]:8443",
                "wss://[::1]:8443/ws/provider",
                "::1",
                8_443,
            ),
        ];
        for (text, uri, host, port) in table {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.uri.to_string(), uri);
            assert_eq!((address.host.as_str(), address.port), (host, port));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_an_example() {
        let table = [
            "",
            "a:1",
            "a",
            "ftp://a",
            "http://",
            "http://a/b",
            "http://a?b",
            "http://u@a",
            "http://a:x",
        ];
        for wrong in table {
            let error = Address::parse(wrong).unwrap_err().to_string();
            assert!(error.contains("http://127.0.0.1:8080"), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_secret_leaves_this_machine_encrypted_or_not_at_all() {
        let table = [
            ("http://127.0.0.1:8080", true),
            ("http://127.9.9.9", true),
            ("http://localhost:8080", true),
            ("http://[::1]:8080", true),
            ("http://[::ffff:127.0.0.1]:8080", true),
            ("http://10.0.0.1:8080", false),
            ("http://localhost.example:8080", false),
            ("http://coordinator", false),
            ("https://coordinator", true),
        ];
        for (text, expected) in table {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.is_confidential(), expected, "{text}");
        }
    }
}
