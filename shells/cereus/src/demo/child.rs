//! The demo's child processes: this very binary, run as coordinator and as provider.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use cereus_provider::memory::ACTIVATION_VARIABLE;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// How long a child may take to end after SIGTERM.
const END_WAIT: Duration = Duration::from_secs(20);
/// Kept for what a step computes in between, in GiB.
const ACTIVATION_GIB: &str = "0.5";
/// Lines of a child's log that are shown when it fails.
const LOG_LINES: usize = 12;

/// A running child, killed if it is dropped.
pub(crate) struct Process {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Process {
    /// Runs this binary with `args`; its log goes to `folder`.
    pub(crate) fn start(name: &'static str, folder: &Path, args: &[&str]) -> Result<Self, String> {
        let log = folder.join(format!("{name}.log"));
        let start = || -> io::Result<Child> {
            let mut command = Command::new(std::env::current_exe()?);
            // The memory kept free for a step suits large models; on a small machine it would leave
            // none for the demo's tiny one.
            if std::env::var_os(ACTIVATION_VARIABLE).is_none() {
                command.env(ACTIVATION_VARIABLE, ACTIVATION_GIB);
            }
            command
                .arg(name)
                .args(args)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(File::create(&log)?)
                // Ctrl-C is for the demo, which then ends its children in order.
                .process_group(0)
                .kill_on_drop(true)
                .spawn()
        };
        let mut child = start().map_err(|error| format!("cannot start the {name}: {error}"))?;
        let stdout = child.stdout.take().expect("it is piped");
        Ok(Self {
            name,
            child,
            lines: BufReader::new(stdout).lines(),
            log,
        })
    }

    /// The rest of the next line that begins with `word`.
    pub(crate) async fn said(&mut self, word: &str, wait: Duration) -> Result<String, String> {
        let search = async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                if let Some(rest) = line.strip_prefix(word) {
                    return Some(rest.trim().to_owned());
                }
            }
            None
        };
        match timeout(wait, search).await {
            Ok(Some(rest)) => Ok(rest),
            Ok(None) => Err(self.failure("ended early").await),
            Err(_) => {
                let what = format!("did not say `{word}` within {} s", wait.as_secs());
                Err(self.failure(&what).await)
            }
        }
    }

    /// Ends it as an operator would, with SIGTERM, and checks that it ended well.
    pub(crate) async fn end(mut self) -> Result<(), String> {
        let id = self
            .child
            .id()
            .ok_or_else(|| format!("the {} is gone", self.name))?;
        let sent = Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await;
        if !sent.is_ok_and(|status| status.success()) {
            return Err(format!("cannot signal the {}", self.name));
        }
        match timeout(END_WAIT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(self.failure("ended badly").await),
            Err(_) => Err(self.failure("did not end").await),
        }
    }

    /// Returns when it has ended, which it should not do by itself.
    pub(crate) async fn ended(&mut self) -> String {
        let _ = self.child.wait().await;
        self.failure("ended early").await
    }

    async fn failure(&self, what: &str) -> String {
        let log = tokio::fs::read_to_string(&self.log)
            .await
            .unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
        format!(
            "the {} {what}; its log says:\n  {}",
            self.name,
            tail.join("\n  ")
        )
    }
}
