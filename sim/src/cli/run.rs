//! `cereus-sim run FILE`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_sim::hardware::PlaceError;
use cereus_sim::report::Report;
use cereus_sim::workload::Workload;
use cereus_sim::world::config::RunConfig;
use cereus_sim::world::{Progress, World};
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

use super::options::{Choice, Options};

/// A bar appears when a run takes longer than this.
const BAR_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A trace: Azure (.csv), BurstGPT (.csv) or Mooncake (.jsonl), as it is or compressed with gzip.
    file: PathBuf,
    #[command(flatten)]
    options: Options,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which of the machines that could take a request gets it.
    #[arg(long, value_enum, default_value_t = Choice::Expected)]
    policy: Choice,
    /// The report as one JSON object; the speed goes to standard error.
    #[arg(long)]
    json: bool,
    /// Print what the world did: events by kind.
    #[arg(long)]
    stats: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    match simulate(args, began) {
        Ok(report) => {
            print(args, &report, began.elapsed());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.file.display());
            ExitCode::FAILURE
        }
    }
}

fn simulate(args: &Args, began: Instant) -> Result<Report, Box<dyn std::error::Error>> {
    let file = File::open(&args.file)?;
    let size = file.metadata()?.len();
    let bar = Bar::new(size, began);
    let read = bar.bytes.wrap_read(file);
    let workload = Workload::open(unpacked(BufReader::with_capacity(1 << 16, read))?)?;
    let world = World::new(config(args)?, workload)?;
    let report = world.run(|progress| bar.show(progress));
    bar.bytes.finish_and_clear();
    Ok(report?)
}

/// The trace, whether or not it is compressed with gzip.
fn unpacked<'a>(mut file: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    if file.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        let unpacked = BufReader::with_capacity(1 << 16, MultiGzDecoder::new(file));
        return Ok(Box::new(unpacked));
    }
    Ok(Box::new(file))
}

fn config(args: &Args) -> Result<RunConfig, PlaceError> {
    let mut config = args.options.config()?;
    config.seed = args.seed;
    config.policy = args.policy.into();
    Ok(config)
}

fn print(args: &Args, report: &Report, took: Duration) {
    let simulated = Duration::from_micros(report.simulated_us);
    let ratio = simulated.as_micros() / took.as_micros().max(1);
    let speed = format!(
        "speed          {ratio} x real time ({:.2} s)",
        took.as_secs_f64()
    );
    if args.json {
        println!(
            "{}",
            serde_json::to_string(report).expect("a report is plain data")
        );
        eprintln!("{speed}");
        return;
    }
    println!("{report}");
    if args.stats {
        println!("{}", report.work_text());
    }
    println!("{speed}");
}

/// A progress bar over the bytes of the trace, on a terminal only.
struct Bar {
    bytes: ProgressBar,
    began: Instant,
}

impl Bar {
    fn new(size: u64, began: Instant) -> Self {
        let bytes = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:40} {percent} % {msg}");
            let bar =
                ProgressBar::with_draw_target(Some(size), indicatif::ProgressDrawTarget::hidden());
            bar.with_style(style.expect("the template is well formed"))
        } else {
            ProgressBar::hidden()
        };
        Self { bytes, began }
    }

    fn show(&self, progress: Progress) {
        if self.began.elapsed() < BAR_AFTER || !io::stderr().is_terminal() {
            return;
        }
        if self.bytes.is_hidden() {
            self.bytes
                .set_draw_target(indicatif::ProgressDrawTarget::stderr());
        }
        self.bytes
            .set_message(format!("{} requests", progress.asked));
    }
}
