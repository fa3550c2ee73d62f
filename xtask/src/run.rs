//! Running other programs: quietly under a spinner, or in the open.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::failure::{Doing, Failure};
use crate::{project, say};

/// Lines of a failed program's output that are shown; the rest is in its log.
const TAIL_LINES_MAX: usize = 30;
/// Bytes of a program's last line that fit beside the spinner.
const ASIDE_CHARS_MAX: usize = 60;
const SPIN_EVERY: Duration = Duration::from_millis(100);

/// Runs `command` under a spinner, its output in `.cache/log/NAME.log`. `name` is short and has no
/// spaces, `label` is what the reader sees.
pub(crate) fn quietly(
    name: &str,
    label: &str,
    next: &str,
    command: &mut Command,
) -> Result<(), Failure> {
    let began = Instant::now();
    let spinner = spinner(label);
    let result = logged(name, next, command, &spinner);
    spinner.finish_and_clear();
    if result.is_ok() {
        say::good(&format!("{label} ({})", say::duration(began.elapsed())));
    } else {
        say::bad(label);
    }
    result
}

/// Runs `command` with its output in the open.
pub(crate) fn openly(next: &str, command: &mut Command) -> Result<(), Failure> {
    say::faint(&line(command));
    let status = command.status().doing(
        format!("start `{}`", program(command)),
        "check that it is installed and in PATH",
    )?;
    if status.success() {
        return Ok(());
    }
    Err(
        Failure::new(format!("`{}` failed ({status})", line(command)), next)
            .with_code(status.code()),
    )
}

/// Runs `command` and gives what it prints; what it says on standard error stays in the open.
pub(crate) fn answer(next: &str, command: &mut Command) -> Result<String, Failure> {
    say::faint(&line(command));
    let output = command.stderr(Stdio::inherit()).output().doing(
        format!("start `{}`", program(command)),
        "check that it is installed and in PATH",
    )?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(said);
    }
    // Tests print there why they fail.
    let lines: Vec<&str> = said.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..] {
        say::faint(line);
    }
    let what = format!("`{}` failed ({})", line(command), output.status);
    Err(Failure::new(what, next).with_code(output.status.code()))
}

/// Becomes `command`: its exit status and signals are those of the program itself.
pub(crate) fn replaced_by(command: &mut Command) -> Result<(), Failure> {
    say::faint(&line(command));
    let error = command.exec();
    Err(Failure::new(
        format!("cannot start `{}`: {error}", line(command)),
        "check that it is installed and in PATH",
    ))
}

/// What `command` would be in a shell, near enough to read and to paste.
pub(crate) fn line(command: &Command) -> String {
    let mut words = vec![program(command)];
    for arg in command.get_args() {
        words.push(quoted(arg));
    }
    words.join(" ")
}

fn program(command: &Command) -> String {
    let path = Path::new(command.get_program());
    match path.file_name() {
        Some(name) if name == "cargo" => "cargo".to_owned(),
        _ => quoted(project::shown(path).as_ref()),
    }
}

fn quoted(word: &OsStr) -> String {
    let text = word.to_string_lossy().into_owned();
    if text.contains([' ', '"', '\'', '$', '*']) {
        format!("'{text}'")
    } else {
        text
    }
}

fn spinner(label: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        say::note(&format!("{label} ..."));
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("    {spinner} {prefix} {elapsed} {msg:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner()
        .with_style(style)
        .with_prefix(label.to_owned());
    bar.enable_steady_tick(SPIN_EVERY);
    bar
}

fn logged(
    name: &str,
    next: &str,
    command: &mut Command,
    spinner: &ProgressBar,
) -> Result<(), Failure> {
    let folder = project::cache().join("log");
    let path = folder.join(format!("{name}.log"));
    let writable = "make the folder .cache writable";
    fs::create_dir_all(&folder).doing("make the log folder", writable)?;
    let mut log =
        File::create(&path).doing(format!("write {}", project::shown(&path)), writable)?;
    writeln!(log, "$ {}", line(command)).doing("write the log", writable)?;

    let record = Mutex::new(Record {
        log,
        tail: VecDeque::new(),
    });
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .doing(
            format!("start `{}`", program(command)),
            "check that it is installed and in PATH",
        )?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| copy(stdout, &record, spinner));
        scope.spawn(|| copy(stderr, &record, spinner));
    });
    let status = child.wait().doing("wait for a program", "try again")?;
    if status.success() {
        return Ok(());
    }
    spinner.suspend(|| {
        for line in &locked(&record).tail {
            say::faint(line);
        }
    });
    let what = format!("`{}` failed ({status})", line(command));
    Err(Failure::new(
        what,
        format!("{next}; all it said is in {}", project::shown(&path)),
    )
    .with_code(status.code()))
}

struct Record {
    log: File,
    tail: VecDeque<String>,
}

fn copy(from: Option<impl Read>, record: &Mutex<Record>, spinner: &ProgressBar) {
    let Some(from) = from else { return };
    for line in BufReader::new(from).split(b'\n') {
        let Ok(line) = line else { return };
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        spinner.set_message(line.chars().take(ASIDE_CHARS_MAX).collect::<String>());
        let mut record = locked(record);
        // A full disk must not stop the program that is being watched.
        let _ = writeln!(record.log, "{line}");
        if record.tail.len() == TAIL_LINES_MAX {
            record.tail.pop_front();
        }
        record.tail.push_back(line);
    }
}

fn locked(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_of_a_program_is_passed_on() {
        let failure = openly("no next", Command::new("sh").args(["-c", "exit 7"])).err();
        assert_eq!(failure.map(|it| it.code), Some(7));
        assert!(openly("no next", &mut Command::new("true")).is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_what_to_do() {
        let failure = openly("no next", &mut Command::new("no-such-program")).err();
        let failure = failure.expect("it cannot start");
        assert!(failure.what.contains("no-such-program"));
        assert!(failure.next.contains("PATH"));
    }

    #[test]
    fn a_printed_command_can_be_pasted() {
        let mut command = Command::new("cargo");
        command.args(["test", "a name with spaces"]);
        assert_eq!(line(&command), "cargo test 'a name with spaces'");
    }
}
