//! The binary within a pipeline.
#![cfg(unix)]

use std::io::pipe;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

/// The signal by which other tools end there.
const SIGPIPE: i32 = 13;

#[test]
fn a_reader_that_has_read_enough_ends_the_program_without_a_word() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_cereus-sim"))
        .args(["swarm", "--plans"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), Some(SIGPIPE), "{:?}", output.status);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
