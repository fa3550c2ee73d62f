//! `cereus-sim replay JOURNAL`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::time::Tick;
use cereus_sim::record;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A journal that a coordinator recorded.
    file: PathBuf,
    /// Print each event with the effects that it had.
    #[arg(long)]
    records: bool,
}

pub(crate) fn run(args: &Args) -> ExitCode {
    let began = Instant::now();
    let bytes = match std::fs::read(&args.file) {
        Ok(bytes) => bytes,
        Err(error) => {
            eprintln!("{}: {error}", args.file.display());
            return ExitCode::FAILURE;
        }
    };
    let observe = |at: Tick, event: &Event<'_>, effects: &Effects| {
        if args.records {
            show(at, event, effects);
        }
    };
    match cereus_sim::replay::replay(&bytes, observe) {
        Err(fault) => {
            eprintln!("{}: {fault}", args.file.display());
            ExitCode::FAILURE
        }
        Ok(replay) => {
            println!("{replay}");
            println!("took           {:.3} s", began.elapsed().as_secs_f64());
            if replay.report.is_faithful() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints an event and what followed from it.
pub(super) fn show(at: Tick, event: &Event<'_>, effects: &Effects) {
    println!("{}", record::show(at, event, effects));
}
