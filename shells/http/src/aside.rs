//! Work too long to do between two awaits, such as parsing megabytes: other connections of the
//! same thread would wait for it.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

/// Bytes that are gone through in well under a millisecond.
const SHORT: usize = 128 << 10;

/// Goes through so many bytes where no other connection waits for it: its thread hands on what else it
/// had to do.
pub fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let is_long = bytes > SHORT;
    // `block_in_place` hands the thread's other tasks to another thread. A test's runtime may have
    // one thread only, where it would panic.
    let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
    if is_long && matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        block_in_place(work)
    } else {
        work()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: usize = SHORT + 1;
    const WAIT: Duration = Duration::from_secs(30);

    /// With one thread for tasks the second could not run while the first works.
    #[test]
    fn another_task_of_the_same_thread_goes_on_meanwhile() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (tell, told) = mpsc::channel();
            let first = tokio::spawn(async move {
                tokio::spawn(async move { tell.send(()).unwrap() });
                aside(LONG, || told.recv_timeout(WAIT)).unwrap();
            });
            first.await.unwrap();
        });
    }

    #[tokio::test]
    async fn it_is_done_all_the_same_where_there_is_one_thread() {
        assert_eq!(aside(LONG, || 7), 7);
    }
}
