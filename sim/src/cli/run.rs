//! `cereus-sim run FILE`.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use cereus_core::coordinator::Policy;
use cereus_core::money::MicroUsd;
use cereus_core::time::Span;
use cereus_sim::hardware::{Hardware, PlaceError};
use cereus_sim::machine::Pace;
use cereus_sim::report::Report;
use cereus_sim::stream::Ratio;
use cereus_sim::workload::Workload;
use cereus_sim::world::config::{
    FLEET, FleetShare, MACHINES_MAX, PrefixCache, RunConfig, Slo, parse_fleet,
};
use cereus_sim::world::knowledge::Knowledge;
use cereus_sim::world::{Progress, World};
use clap::ValueEnum;
use flate2::bufread::MultiGzDecoder;
use indicatif::{ProgressBar, ProgressStyle};

/// A bar appears when a run takes longer than this.
const BAR_AFTER: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Choice {
    /// The least expected time to first content: what a coordinator does.
    Expected,
    /// The fewest requests under way.
    LeastOutstanding,
    /// Any machine that has room.
    Random,
    /// Each machine in turn.
    RoundRobin,
    /// The less loaded of two that chance picks.
    TwoChoices,
}

impl From<Choice> for Policy {
    fn from(choice: Choice) -> Self {
        match choice {
            Choice::Expected => Self::Expected,
            Choice::LeastOutstanding => Self::LeastOutstanding,
            Choice::Random => Self::Random,
            Choice::RoundRobin => Self::RoundRobin,
            Choice::TwoChoices => Self::TwoChoices,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Told {
    Perfect,
    Production,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cache {
    Off,
    On,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A trace: Azure (.csv), BurstGPT (.csv) or Mooncake (.jsonl), as it is or compressed with gzip.
    file: PathBuf,
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=i64::from(MACHINES_MAX)))]
    machines: u32,
    /// Arrivals come this many times as fast as they were recorded.
    #[arg(long, default_value = "1", value_parser = parse_ppm)]
    speedup: Ppm,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Mix of machines as chip/gigabytes:weight,...
    #[arg(long, default_value = FLEET, value_parser = parse_mix)]
    fleet: Mix,
    /// What they serve: a name of the table of models.
    #[arg(long, default_value = "llama-3-8b-4bit")]
    model: String,
    /// Which of the machines that could take a request gets it.
    #[arg(long, value_enum, default_value_t = Choice::Expected)]
    policy: Choice,
    /// What the coordinator is told: estimates and bounds as in production, or true lengths and rates,
    /// as an upper bound.
    #[arg(long, value_enum, default_value_t = Told::Production)]
    knowledge: Told,
    /// Whether machines find what they have computed of earlier prompts, by the blocks that a trace
    /// names (Mooncake's).
    #[arg(long, value_enum, default_value_t = Cache::On)]
    prefix_cache: Cache,
    /// Rows that a machine computes together.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    rows: u16,
    /// Requests that may wait for one model.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    queue: u32,
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    queue_wait_s: u64,
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    slo_ttft_ms: u64,
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    slo_tpot_ms: u64,
    /// Least one-way latency of a link.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    latency_ms: u64,
    /// Uniform addition to the latency.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    jitter_ms: u64,
    /// Lost messages in a million, at most half; each comes late, by as many resends as are lost too.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(0..=500_000))]
    loss_ppm: u32,
    /// Consumers' accounts.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    accounts: u32,
    /// Deposit of each account in whole US dollars.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    balance_usd: u32,
    /// Advance decode token by token. The digest is the same.
    #[arg(long)]
    slow: bool,
    /// The report as one JSON object; the speed goes to standard error.
    #[arg(long)]
    json: bool,
    /// Print what the world did: events by kind.
    #[arg(long)]
    stats: bool,
}

#[derive(Clone, Copy, Debug)]
struct Ppm(u64);

#[derive(Clone, Debug)]
struct Mix(Vec<FleetShare>);

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
    let mut config = RunConfig::reference(args.machines);
    config.seed = args.seed;
    config.fleet.clone_from(&args.fleet.0);
    config.model = Hardware::built_in().model(&args.model)?.clone();
    config.pace = if args.slow { Pace::Step } else { Pace::Leap };
    config.speedup_ppm = args.speedup.0;
    config.rows_max = args.rows;
    config.prefix_cache = match args.prefix_cache {
        Cache::Off => PrefixCache::Off,
        Cache::On => PrefixCache::On,
    };
    config.queue_depth_max = args.queue;
    config.queue_wait_max = Span::secs(args.queue_wait_s);
    config.accounts = args.accounts;
    config.balance = MicroUsd(i64::from(args.balance_usd) * 1_000_000);
    config.net.latency_min = Span::millis(args.latency_ms);
    config.net.latency_spread = Span::millis(args.jitter_ms);
    config.net.loss = Ratio::ppm(args.loss_ppm);
    config.slo = Slo {
        ttft: Span::millis(args.slo_ttft_ms),
        tpot: Span::millis(args.slo_tpot_ms),
    };
    config.policy = args.policy.into();
    config.knowledge = match args.knowledge {
        Told::Perfect => Knowledge::Perfect,
        Told::Production => Knowledge::Production,
    };
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

fn parse_ppm(text: &str) -> Result<Ppm, String> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number = |text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("`{text}` is no number"))
    };
    if fraction.len() > 6 {
        return Err("at most six digits after the point".into());
    }
    let parts = number(&format!("0{fraction:0<6}"))?;
    let ppm = number(whole)?
        .checked_mul(1_000_000)
        .and_then(|whole| whole.checked_add(parts))
        .ok_or("too large")?;
    if ppm == 0 {
        return Err("must be above zero".into());
    }
    Ok(Ppm(ppm))
}

fn parse_mix(text: &str) -> Result<Mix, String> {
    parse_fleet(text).map(Mix)
}
