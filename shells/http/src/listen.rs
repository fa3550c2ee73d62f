//! What is said when a server has no place to listen.

use std::io;
use std::net::SocketAddr;

/// Why nothing listens there, and what to do; `option` chooses another place.
#[must_use]
pub fn cannot_listen(listen: SocketAddr, option: &str, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is busy: something else listens on {listen}; stop it, or choose another with \
             {option}",
            listen.port()
        ),
        _ => format!("cannot listen on {listen} ({error}); choose another with {option}"),
    }
}
