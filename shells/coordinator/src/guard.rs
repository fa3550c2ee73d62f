//! Looks after the data folder while a coordinator runs, and ends what does not end by itself.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::app::App;
use crate::store::presence::{Presence, Trouble};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Returns when the folder is gone or its log was changed, with what to say of it. While it takes no files nothing new that
/// costs money is let in.
pub(crate) async fn gone(app: Arc<App>, presence: Arc<Presence>) -> Trouble {
    loop {
        sleep(LOOK_EVERY).await;
        let looked = Arc::clone(&presence);
        // A disk that does not answer holds up this task alone.
        let look = tokio::task::spawn_blocking(move || looked.look()).await;
        match look.expect("a look does not panic") {
            Ok(()) => {
                if app.folder_trouble.send_replace(None).is_some() {
                    tracing::info!("the data folder takes files again: requests are let in");
                }
            }
            Err(trouble @ (Trouble::Gone(_) | Trouble::Log(_))) => return trouble,
            Err(trouble @ Trouble::Unwritable { .. }) => refuse(&app.folder_trouble, &trouble),
        }
    }
}

fn refuse(told: &watch::Sender<Option<String>>, trouble: &Trouble) {
    let trouble = trouble.to_string();
    if told.send_replace(Some(trouble.clone())).is_none() {
        tracing::error!(
            "{trouble}: new requests get 503 until it does; look at the disk's \
             room, the folder's owner and its attributes (lsattr)"
        );
    }
}

/// Does that on a thread of its own and waits so long for it: whether it has ended.
pub(crate) async fn ends_within(
    wait: Duration,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<bool> {
    let (tell, told) = oneshot::channel();
    // No thread of the runtime, which would wait for it without an end.
    thread::Builder::new()
        .name("cereus-end".to_owned())
        .spawn(move || {
            work();
            let _ = tell.send(());
        })?;
    Ok(timeout(wait, told).await.is_ok())
}
