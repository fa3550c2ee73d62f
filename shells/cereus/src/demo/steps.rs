//! Steps of the demo, each with a spinner while it lasts and a line when it is done.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::paint::Paint;
use crate::say;

const TURN_EVERY: Duration = Duration::from_millis(80);

pub(crate) struct Step {
    name: &'static str,
    began: Instant,
    spinner: ProgressBar,
    paint: Paint,
}

impl Step {
    pub(crate) fn begin(name: &'static str, paint: Paint) -> Self {
        let spinner = if std::io::stderr().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            spinner.set_style(style);
        }
        spinner.set_message(name);
        spinner.enable_steady_tick(TURN_EVERY);
        Self {
            name,
            began: Instant::now(),
            spinner,
            paint,
        }
    }

    pub(crate) fn done(self, what: &str) {
        self.spinner.finish_and_clear();
        let took = self.began.elapsed().as_millis();
        let mark = self.paint.green("✓");
        let took = self.paint.dim(&format!("{took} ms"));
        // A closed output is no error here: the demo reports it when it ends.
        let _ = say(&format!("{mark} {:<12} {what}  {took}\n", self.name));
    }
}
