//! `cereus-sim run FILE`.

use std::fs::File;
use std::io::{self, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cereus_sim::record::Keep;
use cereus_sim::report::Report;
use cereus_sim::workload::Workload;
use cereus_sim::world::config::RunConfig;
use cereus_sim::world::profile::Profile;
use cereus_sim::world::{Progress, Ran, World};
use indicatif::{ProgressBar, ProgressStyle};

use super::options::{Choice, Options};
use super::tables::Table;
use super::trace::{Trace, unpacked};

/// A bar appears when a run takes longer than this.
const BAR_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cargo xtask sim run azure.csv --machines 60
        what the users of 60 machines would have seen
    cargo xtask sim run azure.csv --machines 60 --speedup 1.5 --policy random --json | jq .goodput_ppm
        half as many requests again, sent to machines by chance
    cargo xtask sim run mooncake.jsonl --machines 300 --csv requests.csv --series series.csv
        the same with a row for each request, and one for each stretch of time
    cargo xtask sim run azure.csv --machines 1250 --speedup 8.35 --churn home:20 --profile
        what the coordinator's core takes of real time for so many requests, while machines come and go")]
pub(crate) struct Args {
    #[command(flatten)]
    trace: Trace,
    #[command(flatten)]
    options: Options,
    /// What chance draws from: the order of the fleet, the links, what is told.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which of the machines that could take a request gets it.
    #[arg(long, value_enum, default_value_t = Choice::Expected)]
    policy: Choice,
    /// The report as one JSON object; the speed goes to standard error.
    #[arg(long)]
    json: bool,
    /// Writes a row for each request: times in microseconds from the start of the world, machine,
    /// attempts, tokens and end.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Writes what happened over time, in a few hundred rows: arrivals, requests that waited and were on
    /// machines, rows in use, refusals, answers within the objective.
    #[arg(long, value_name = "FILE")]
    series: Option<PathBuf>,
    /// Print what the world did: events by kind.
    #[arg(long)]
    stats: bool,
    /// Print how long the coordinator's core takes for each event, and for all of a request, in real time.
    #[arg(long)]
    profile: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    match simulate(args, began) {
        Ok((report, profile)) => {
            print(args, &report, began.elapsed());
            if let Some(profile) = profile {
                // Beside the report, as the speed is: it differs from run to run.
                match args.json {
                    true => eprint!("{profile}"),
                    false => print!("\n{profile}"),
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", args.trace.file.display());
            ExitCode::FAILURE
        }
    }
}

fn simulate(
    args: &Args,
    began: Instant,
) -> Result<(Report, Option<Profile>), Box<dyn std::error::Error>> {
    let file = File::open(&args.trace.file)?;
    let size = file.metadata()?.len();
    let bar = Bar::new(size, began);
    let read = bar.bytes.wrap_read(file);
    let workload = Workload::open(unpacked(BufReader::with_capacity(1 << 16, read))?)?;
    let rows = args.csv.as_deref().map(Table::create).transpose()?;
    let series = args.series.as_deref().map(Table::create).transpose()?;
    let keep = if rows.is_some() {
        Keep::Rows
    } else {
        Keep::Nothing
    };
    let mut world = World::new(config(args), workload)?.keeping(keep);
    if args.profile {
        world = world.timed_by(clock_ns);
    }
    let ran = world.run_recorded(|progress| bar.show(progress));
    bar.bytes.finish_and_clear();
    let Ran {
        report,
        record,
        profile,
        ..
    } = ran?;
    if let Some(table) = rows {
        table.rows(&record.rows)?;
    }
    if let Some(table) = series {
        table.series(&record.series)?;
    }
    Ok((report, profile))
}

fn clock_ns() -> u64 {
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    let since = BEGAN.get_or_init(Instant::now).elapsed();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn config(args: &Args) -> RunConfig {
    args.policy.world(args.seed, &args.options.config())
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
