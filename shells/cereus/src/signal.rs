//! Ctrl-C, SIGTERM, and what the system sends when a file has become too long.

use tokio::signal::unix::{SignalKind, signal};

/// SIGXFSZ, on Linux and on macOS.
const FILE_TOO_LONG: i32 = 25;

/// A write beyond the limit of `ulimit -f` fails from now on, as on a full disk, where it would end the
/// process without a word: a handler is enough for that, and it stays when its runtime is gone.
pub(crate) fn outlive_file_limit() {
    let listening = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .and_then(|runtime| {
            let _inside = runtime.enter();
            signal(SignalKind::from_raw(FILE_TOO_LONG)).map(drop)
        });
    if let Err(error) = listening {
        tracing::warn!(%error, "a file that reaches the limit of `ulimit -f` will end this process");
    }
}

/// Waits for Ctrl-C or SIGTERM. Without signal handling (which only a broken system lacks) waits for ever.
pub(crate) async fn asked_to_stop() {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
