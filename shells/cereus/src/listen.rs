//! Where a server listens, as people write it.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs as _};

/// Reads `127.0.0.1:8080`, `[::1]:8080`, a name of this machine with a port, or a port alone, which
/// means this machine and nobody else.
pub(crate) fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let expected = |why: &str| {
        format!(
            "`{text}`: {why}; expected a port or HOST:PORT, for instance 8080, localhost:8080 or \
             0.0.0.0:8080 (every network of this machine)"
        )
    };
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let port = text.parse::<u16>();
        let port = port.map_err(|_| expected("ports end at 65535"))?;
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| expected("no port"))?;
    let port: u16 = port.parse().map_err(|_| expected("no port"))?;
    if host.eq_ignore_ascii_case("localhost") {
        // The name stands for an IPv4 and an IPv6 address, and a server listens on one: on that by
        // which most clients come.
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let mut addresses = (host, port)
        .to_socket_addrs()
        .map_err(|_| expected("no such host"))?;
    addresses.next().ok_or_else(|| expected("no such host"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_is_read_as_people_write_it() {
        let table = [
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("0.0.0.0:0", "0.0.0.0:0"),
            ("[::1]:8080", "[::1]:8080"),
            ("8080", "127.0.0.1:8080"),
            ("0", "127.0.0.1:0"),
            ("localhost:8080", "127.0.0.1:8080"),
            ("LocalHost:1", "127.0.0.1:1"),
        ];
        for (text, expected) in table {
            assert_eq!(parse_listen(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_place_is_refused_with_examples() {
        for text in ["", "70000", "localhost", "localhost:", "localhost:x", ":"] {
            let message = parse_listen(text).unwrap_err();
            assert!(message.contains("localhost:8080"), "{text}: {message}");
        }
    }
}
