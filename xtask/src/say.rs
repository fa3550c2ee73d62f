//! What xtask tells its reader. All of it goes to standard error; standard output is for results.

use std::time::Duration;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

use crate::failure::Failure;

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GREEN: Style = AnsiColor::Green.on_default().bold();
const RED: Style = AnsiColor::Red.on_default().bold();
const YELLOW: Style = AnsiColor::Yellow.on_default().bold();

pub(crate) fn heading(text: &str) {
    eprintln!("{BOLD}==> {text}{BOLD:#}");
}

pub(crate) fn note(text: &str) {
    eprintln!("    {text}");
}

pub(crate) fn good(text: &str) {
    eprintln!(" {GREEN}ok{GREEN:#} {text}");
}

pub(crate) fn bad(text: &str) {
    eprintln!("{RED}no{RED:#}  {text}");
}

pub(crate) fn warning(text: &str) {
    eprintln!("{YELLOW}warning{YELLOW:#}: {text}");
}

pub(crate) fn error(text: &str) {
    eprintln!("{RED}error{RED:#}: {text}");
}

pub(crate) fn faint(text: &str) {
    eprintln!("{DIM}    {text}{DIM:#}");
}

pub(crate) fn failure(failure: &Failure) {
    error(&failure.what);
    eprintln!("{BOLD}next{BOLD:#}: {}", failure.next);
}

/// `4.2 s`, `3 min 07 s`.
pub(crate) fn duration(time: Duration) -> String {
    const MINUTE_S: u64 = 60;
    let whole = time.as_secs();
    if whole < MINUTE_S {
        return format!("{:.1} s", time.as_secs_f64());
    }
    format!("{} min {:02} s", whole / MINUTE_S, whole % MINUTE_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_says_them() {
        assert_eq!(duration(Duration::from_millis(4_240)), "4.2 s");
        assert_eq!(duration(Duration::from_secs(187)), "3 min 07 s");
    }
}
