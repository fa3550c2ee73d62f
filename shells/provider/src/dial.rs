//! The way to the coordinator: a connection, TLS where the address asks for it, and the upgrade.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use cereus_core::agent::SessionId;
use cereus_core::wire::limits::TO_PROVIDER_SIZE_MAX;
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
        let connector = match address.transport {
            Transport::Plain => None,
            Transport::Tls => Some(connector(authorities)?),
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

/// Trusts whom the system trusts, and the authorities in the operator's file.
fn connector(authorities: Option<&Path>) -> Result<TlsConnector, ProviderError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of the system cannot be read");
    }
    // Certificates that cannot be parsed are skipped: old systems keep some in formats that are no
    // longer valid.
    roots.add_parsable_certificates(found.certs);
    if let Some(path) = authorities {
        let unusable = |why: String| ProviderError::Authorities {
            path: path.to_owned(),
            why,
        };
        let certificates = CertificateDer::pem_file_iter(path);
        let mut count = 0;
        for certificate in certificates.map_err(|error| unusable(error.to_string()))? {
            let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
            count += 1;
        }
        if count == 0 {
            return Err(unusable("it holds no certificate".to_owned()));
        }
    }
    if roots.is_empty() {
        return Err(ProviderError::NoAuthorities);
    }
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
