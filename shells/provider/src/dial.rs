//! The way to the coordinator: a connection, TLS where the address asks for it, and the upgrade.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cereus_core::agent::SessionId;
use cereus_core::wire::limits::TO_PROVIDER_SIZE_MAX;
use cereus_socket::NotUpgraded;
use http::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::ProviderError;
use crate::address::{Address, Transport};

/// Plain or encrypted, all the same to whoever reads.
pub(crate) trait Stream: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + fmt::Debug + Send + Unpin> Stream for T {}

/// A connection to the coordinator.
pub(crate) type Socket = cereus_socket::Socket<Box<dyn Stream>>;

/// What came of dialling.
pub(crate) type Dialled = (SessionId, io::Result<Socket>);

/// How the coordinator is reached, for every session of the process.
#[derive(Clone)]
pub(crate) struct Route {
    address: Address,
    /// `None`: without TLS.
    connector: Option<TlsConnector>,
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Route({})", self.address.uri)
    }
}

impl Route {
    /// `authorities` is a file of further certificates to trust, in PEM.
    pub(crate) fn new(address: Address, authorities: Option<&Path>) -> Result<Self, ProviderError> {
        // A file that cannot be used is a slip also where nothing is encrypted.
        let further = authorities.map_or(Ok(Vec::new()), certificates)?;
        let connector = match address.transport {
            Transport::Plain => None,
            Transport::Tls => Some(connector(further, authorities)?),
        };
        Ok(Self { address, connector })
    }

    /// Of the coordinator's endpoint.
    pub(crate) const fn address(&self) -> &Uri {
        &self.address.uri
    }

    /// Dials in a task of its own, which tells what came of it; dropping the handle gives it up.
    pub(crate) fn dial(&self, session: SessionId, tell: mpsc::Sender<Dialled>) -> AbortHandle {
        let route = self.clone();
        let task = tokio::spawn(async move {
            let dialled = route.connect().await;
            let _ = tell.send((session, dialled)).await;
        });
        task.abort_handle()
    }

    async fn connect(self) -> io::Result<Socket> {
        let Address { host, port, .. } = &self.address;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        // With Nagle's algorithm a small frame waits until the one before is acknowledged, and
        // peers delay that: each token would come late.
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.connector {
            None => Box::new(stream),
            Some(connector) => {
                let name = ServerName::try_from(host.clone()).map_err(io::Error::other)?;
                Box::new(connector.connect(name, stream).await?)
            }
        };
        Socket::connected(self.address.uri.clone(), stream, TO_PROVIDER_SIZE_MAX).await
    }
}

/// What a dial that failed says of the peer. Who answers in HTTP, and is neither busy nor broken, has
/// nothing for providers there.
pub(crate) fn why_failed(error: &io::Error) -> String {
    let inner = error.get_ref();
    match inner.and_then(|inner| inner.downcast_ref::<NotUpgraded>()) {
        Some(NotUpgraded { status }) if *status < 500 && *status != 429 => format!(
            "this is no coordinator, it answered with the status {status}; --coordinator takes the \
             address that `cereus coordinator` prints when it listens"
        ),
        Some(_) | None => error.to_string(),
    }
}

fn unusable(path: &Path, why: impl fmt::Display) -> ProviderError {
    ProviderError::Authorities {
        path: path.to_owned(),
        why: why.to_string(),
    }
}

/// Those in an operator's file, of which there must be one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ProviderError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| unusable(path, error))?;
    if found.is_empty() {
        return Err(unusable(path, "it holds no certificate"));
    }
    Ok(found)
}

/// Trusts whom the system trusts, and further authorities, which are those of a file.
fn connector(
    further: Vec<CertificateDer<'static>>,
    file: Option<&Path>,
) -> Result<TlsConnector, ProviderError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    // Certificates that cannot be parsed are skipped: old systems keep some in formats that are no
    // longer valid.
    roots.add_parsable_certificates(found.certs);
    for certificate in further {
        let added = roots.add(certificate);
        added.map_err(|error| unusable(file.unwrap_or(Path::new("")), error))?;
    }
    if roots.is_empty() {
        return Err(ProviderError::NoAuthorities);
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_answers_in_http_alone_is_said_to_be_no_coordinator_unless_it_is_in_trouble() {
        let why = |status| why_failed(&io::Error::other(NotUpgraded { status }));
        for status in [200, 401, 404, 405] {
            let said = why(status);
            assert!(said.contains("this is no coordinator"), "{said}");
            assert!(said.contains("--coordinator"), "{said}");
        }
        for status in [429, 502, 503] {
            assert!(!why(status).contains("no coordinator"), "{status}");
        }
        let broken = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(why_failed(&broken), broken.to_string());
    }

    #[test]
    fn a_file_of_authorities_that_cannot_be_used_is_refused_by_any_route() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, b"").unwrap();
        for address in ["http://localhost:1", "https://localhost:1"] {
            for file in [&empty, &folder.path().join("missing.pem")] {
                let route = Route::new(Address::parse(address).unwrap(), Some(file));
                let said = route.unwrap_err().to_string();
                assert!(said.contains("--authorities"), "{said}");
            }
        }
    }
}
