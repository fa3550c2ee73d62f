//! The coordinator keeps what every server of this project keeps.

mod support;

use cereus_http::contract::{self, Server};
use secrecy::ExposeSecret as _;
use support::{MODEL, World, open_account};

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_every_server_keeps() {
    let world = World::new().await;
    let key = open_account(world.folder.path(), "eve", 1_000_000);
    let mut provider = world.provider().await;
    let serving = tokio::spawn(async move {
        loop {
            let request = provider.accept().await;
            provider.piece(&request, "five").await;
            provider.complete(&request, 20, 1).await;
        }
    });
    let server = Server {
        addr: world.running.addr(),
        key: Some(key.expose_secret().to_owned()),
        model: MODEL.to_owned(),
    };
    tokio::task::spawn_blocking(move || contract::keeps(&server))
        .await
        .unwrap();
    serving.abort();
}
