//! `cereus-sim replay JOURNAL`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::time::Tick;
use cereus_sim::record;
use cereus_sim::replay::Verdict;

/// Nothing differs, and something is missing or could not be compared.
const PARTLY: u8 = 3;

#[derive(Debug, clap::Args)]
#[command(after_help = "Exit status:\n  \
    0  every event was verified, and the journal was closed in order\n  \
    1  something differs from what was recorded, or the file cannot be read\n  \
    3  nothing differs, and not all was verified: it is torn, ends in zeros, has a hole,\n     \
       or no checkpoint is left\n\n\
    Examples:\n  \
    cereus-sim replay journal.000001\n  \
    cereus-sim replay journal.000001 --records | less")]
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
            if fault.is_torn_tail() {
                eprintln!("its header is torn, so nothing could be verified");
                return ExitCode::from(PARTLY);
            }
            ExitCode::FAILURE
        }
        Ok(replay) => {
            println!("{replay}");
            println!("took           {:.3} s", began.elapsed().as_secs_f64());
            match replay.verdict() {
                Verdict::Differs => ExitCode::FAILURE,
                Verdict::Partly => ExitCode::from(PARTLY),
                Verdict::Verified => ExitCode::SUCCESS,
            }
        }
    }
}

/// Prints an event and what followed from it.
pub(super) fn show(at: Tick, event: &Event<'_>, effects: &Effects) {
    println!("{}", record::show(at, event, effects));
}
