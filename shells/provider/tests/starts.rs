//! What a provider refuses to begin with, and how it reaches a coordinator over TLS.

mod support;

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use cereus_provider::{EarnKey, ProviderError, Settings, serve};
use futures_util::StreamExt as _;
use secrecy::SecretString;
use serde_json::Value;
use support::{WAIT, echo, settings};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

const EARN_KEY: &str = "sk-cereus-of-the-owner";

/// Of a machine that earns for somebody.
fn earning(coordinator: &str, data: &std::path::Path) -> Settings {
    Settings {
        coordinator: coordinator.to_owned(),
        data: data.to_owned(),
        earn_key: Some(EarnKey {
            secret: SecretString::from(EARN_KEY),
            from: "CEREUS_EARN_KEY".to_owned(),
        }),
        ..settings(16, vec![echo("tiny", 1, Duration::ZERO)])
    }
}

async fn refused(settings: Settings) -> ProviderError {
    let (_ask, asked) = watch::channel(false);
    let ended = timeout(WAIT, serve(settings, asked, |_| {})).await;
    ended.expect("it does not begin").unwrap_err()
}

#[tokio::test]
async fn an_earning_key_is_not_sent_where_others_could_read_it() {
    let data = tempfile::tempdir().unwrap();
    let error = refused(earning("http://192.0.2.1:8080", data.path())).await;
    assert!(
        matches!(error, ProviderError::EarnKeyExposed { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("of CEREUS_EARN_KEY"), "{error}");
    assert!(error.to_string().contains("https://"), "{error}");
    assert!(!error.to_string().contains(EARN_KEY));
}

#[tokio::test]
async fn two_providers_do_not_share_a_folder() {
    let data = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("http://{}", listener.local_addr().unwrap());
    let (ask, asked) = watch::channel(false);
    let first = tokio::spawn(serve(earning(&here, data.path()), asked, |_| {}));
    // It has begun once it dials.
    timeout(WAIT, listener.accept()).await.unwrap().unwrap();
    let error = refused(earning(&here, data.path())).await;
    assert!(matches!(error, ProviderError::FolderInUse(_)), "{error}");
    ask.send_replace(true);
    timeout(WAIT, first).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_registration_travels_over_tls_to_an_authority_of_the_operators_choice() {
    let data = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let authorities = data.path().join("authorities.pem");
    let mut file = std::fs::File::create(&authorities).unwrap();
    file.write_all(own.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();

    let mut settings = earning(&format!("https://localhost:{port}"), data.path());
    settings.authorities = Some(authorities);
    let (ask, asked) = watch::channel(false);
    let ended = tokio::spawn(serve(settings, asked, |_| {}));
    let register = async {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
        let frame = socket.next().await.unwrap().unwrap();
        serde_json::from_str::<Value>(&frame.into_text().unwrap()).unwrap()
    };
    let register = timeout(WAIT, register).await.unwrap();
    assert_eq!(register["type"], "register");
    assert_eq!(register["auth_token"], EARN_KEY);
    ask.send_replace(true);
    timeout(WAIT, ended).await.unwrap().unwrap().unwrap();
}
