//! `cereus-sim calibrate FILE...`.

use std::error::Error;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cereus_core::ids::ModelIx;
use cereus_core::journal::{MAGIC, Reader};
use cereus_sim::calibrate::{
    Benchmark, Calibration, Entry, Errors, Figure, HEAD, Naming, Points, Timings, calibrate,
    usual_context_ns,
};
use cereus_sim::hardware::{ChipFacts, Hardware, ModelFacts};
use serde_json::{Value, json};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
EXAMPLES
    cereus benchmark MODEL --rows 1,2,4,8 --prompt 512 --new 256 --json > 512.json
    cereus benchmark MODEL --rows 1,2,4,8 --prompt 8192 --new 256 --json > 8192.json
    cargo xtask sim calibrate 512.json 8192.json --model llama-3-8b-4bit --name m4-max --out chips.csv
        a chip by two benchmarks: of one length alone nobody knows what long prompts cost
    cargo xtask sim calibrate journal.000001 --model llama-3-8b-4bit
        every machine of a coordinator's journal, by its attempts
    cargo xtask sim calibrate journal.000001 --model llama-3-8b-4bit --machine 3 --name attic --json
        one of them, for a script
    cargo xtask sim run azure.csv --chips chips.csv --fleet m4-max/128
        what a fleet of what was measured would do

Figures are printed with their standard errors, and with how far points that the fit did not see lie from
it: every fourth is left out, and then the next, until each was. `usual` is what was not measured, and is
taken as for other chips. The entry is for the model that all chips of the table are measured with: it
follows by the bytes and the work of the two models, so --model has to be the one that was measured.")]
pub(crate) struct Args {
    /// What `cereus benchmark --json` printed, several where they are of one machine and one model; or one
    /// journal.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Which model of the table of models was measured.
    #[arg(long)]
    model: String,
    /// The name of the chip. One of the table brings its bandwidth and cores.
    #[arg(long, default_value = "mine")]
    name: String,
    /// The bandwidth of its memory, as its maker states it; a journal has it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    bandwidth_gbs: Option<u32>,
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    gpu_cores: Option<u32>,
    /// Which machine of a journal, in the order in which they joined, from 1; all where none is named.
    #[arg(long)]
    machine: Option<usize>,
    /// Writes the entries as a table that `--chips` reads.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// One JSON object.
    #[arg(long)]
    json: bool,
}

/// One machine, calibrated.
struct Found {
    fit: Calibration,
    entry: Entry,
    points: (usize, usize),
}

pub(crate) fn run(args: &Args) -> ExitCode {
    match found(args) {
        Ok(all) => {
            if let Some(path) = &args.out
                && let Err(error) = write(path, &all)
            {
                eprintln!("{}: {error}", path.display());
                return ExitCode::FAILURE;
            }
            print(args, &all);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn found(args: &Args) -> Result<Vec<Found>, Box<dyn Error>> {
    let model = Hardware::built_in().model(&args.model)?;
    let mut texts = Vec::new();
    for path in &args.files {
        let of = |error: &dyn Error| format!("{}: {error}", path.display());
        let bytes = std::fs::read(path).map_err(|error| of(&error))?;
        if bytes.starts_with(&MAGIC) {
            if args.files.len() > 1 {
                return Err(format!(
                    "{} is a journal: calibrate by one journal, or by benchmarks",
                    path.display()
                )
                .into());
            }
            return of_journal(args, model, &bytes).map_err(|error| of(&*error).into());
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            format!(
                "{}: neither a journal nor what `cereus benchmark --json` prints",
                path.display()
            )
        })?;
        texts.push(Benchmark::read_all(&text).map_err(|error| of(&error))?);
    }
    let all: Vec<Benchmark> = texts.into_iter().flatten().collect();
    let points = Benchmark::points(&all)?;
    let source = format!("cereus benchmark, {}", args.model);
    Ok(vec![of_points(
        args,
        model,
        &points,
        args.name.clone(),
        None,
        source,
    )?])
}

fn of_journal(args: &Args, model: &ModelFacts, bytes: &[u8]) -> Result<Vec<Found>, Box<dyn Error>> {
    let sold = sold(args, bytes)?;
    let mut timings = Timings::of(sold);
    let replay = cereus_sim::replay::replay(bytes, |at, event, effects| {
        timings.note(at, event, effects);
    })?;
    if replay.report.diverged.is_some() {
        eprintln!(
            "the journal is of another build: its machines are read as this one would decide"
        );
    }
    let machines = timings.machines();
    let wanted = match args.machine {
        Some(number) if (1..=machines.len()).contains(&number) => number - 1..number,
        Some(number) => {
            return Err(format!("it has no machine {number}, only {}", machines.len()).into());
        }
        None => 0..machines.len(),
    };
    let is_one = wanted.len() == 1;
    let mut all = Vec::new();
    for ix in wanted {
        let name = match is_one {
            true => args.name.clone(),
            false => format!("{}-{}", args.name, ix + 1),
        };
        let bandwidth = machines[ix].spec.map(|spec| spec.bandwidth_gbs);
        let source = format!(
            "a journal, {}, {} answers",
            args.model, machines[ix].finished
        );
        let points = timings.points(ix);
        match of_points(args, model, &points, name, bandwidth, source) {
            Ok(found) => all.push(found),
            Err(error) if is_one => return Err(error),
            Err(error) => eprintln!("machine {}: {error}", ix + 1),
        }
    }
    match all.is_empty() {
        true => {
            Err("no machine of it did enough alone; record for longer, or with less load".into())
        }
        false => Ok(all),
    }
}

/// The model of the journal: its only one, or the one of that name.
fn sold(args: &Args, bytes: &[u8]) -> Result<ModelIx, Box<dyn Error>> {
    let reader = Reader::open(bytes)?;
    let catalog = &reader.config().catalog;
    let mut all = catalog.iter();
    if let (Some((only, _)), None) = (all.next(), all.next()) {
        return Ok(only);
    }
    let found = catalog.iter().find(|(_, spec)| spec.id == args.model);
    let known: Vec<&str> = catalog.iter().map(|(_, spec)| spec.id.as_str()).collect();
    let (model, _) = found.ok_or_else(|| {
        format!(
            "it sells several models, none of which is called {}: {}",
            args.model,
            known.join(", ")
        )
    })?;
    Ok(model)
}

fn of_points(
    args: &Args,
    model: &ModelFacts,
    points: &Points,
    chip: String,
    bandwidth_gbs: Option<u32>,
    source: String,
) -> Result<Found, Box<dyn Error>> {
    let chips = Hardware::built_in().chips();
    let known: Option<&ChipFacts> = chips.iter().find(|known| known.name == args.name);
    let bandwidth_gbs = args.bandwidth_gbs.or(bandwidth_gbs.filter(|it| *it > 0));
    let bandwidth_gbs = bandwidth_gbs.or(known.map(|known| known.bandwidth_gbs));
    let bandwidth_gbs = bandwidth_gbs.ok_or(
        "say --bandwidth-gbs, the bandwidth of the chip's memory as its maker states it, or --name \
         a chip of the table",
    )?;
    let fit = calibrate(points, usual_context_ns(model, bandwidth_gbs))?;
    let naming = Naming {
        chip,
        gpu_cores: args.gpu_cores,
        bandwidth_gbs,
        source,
    };
    let entry = Entry::of(&fit, naming, model, Hardware::built_in().measured_with())?;
    Ok(Found {
        fit,
        entry,
        points: (points.decode.len(), points.prefill.len()),
    })
}

fn write(path: &Path, all: &[Found]) -> Result<(), csv::Error> {
    let mut table = csv::Writer::from_writer(File::create(path)?);
    table.write_record(HEAD)?;
    for found in all {
        table.write_record(found.entry.line())?;
    }
    table.flush()?;
    Ok(())
}

fn print(args: &Args, all: &[Found]) {
    if args.json {
        let all: Vec<Value> = all.iter().map(json_of).collect();
        println!("{}", json!({ "model": args.model, "chips": all }));
        return;
    }
    for found in all {
        println!("{}", text_of(found));
    }
    let line = |cells: &[String]| {
        let mut out = csv::Writer::from_writer(Vec::new());
        // A vector takes everything.
        let _ = out.write_record(cells);
        String::from_utf8(out.into_inner().unwrap_or_default()).unwrap_or_default()
    };
    print!("{}", line(&HEAD.map(str::to_owned)));
    for found in all {
        print!("{}", line(&found.entry.line()));
    }
}

fn text_of(found: &Found) -> String {
    let Found { fit, entry, points } = found;
    let figure = |figure: Figure| format!("{:10.3} +- {:.3}", figure.value, figure.error);
    let maybe = |it: Option<Figure>, unit: &str, missing: &str| match it {
        Some(it) => format!("{} {unit}", figure(it)),
        None => format!("     usual, {missing}"),
    };
    let errors = |errors: Errors| {
        let percent = |ppm: u64| format!("{}.{:02} %", ppm / 10_000, ppm / 100 % 100);
        match errors.points {
            0 => "none could be held out".to_owned(),
            points => format!(
                "{} median, {} at most, of {points} points held out",
                percent(errors.median_ppm),
                percent(errors.worst_ppm)
            ),
        }
    };
    let mut text = format!(
        "{}\n  points          {} of decode, {} of prefill, {} left out as outliers\n",
        entry.naming.chip, points.0, points.1, fit.outliers
    );
    text += &format!("  prefill of 512  {} tokens/s\n", figure(entry.prefill_512));
    text += &format!(
        "  prefill of 8192 {}\n",
        maybe(
            entry.prefill_8192,
            "tokens/s",
            "for want of prompts of different length"
        )
    );
    text += &format!("  decode          {} tokens/s\n", figure(entry.decode));
    text += &format!(
        "  a further row   {}\n",
        maybe(
            entry.row_percent,
            "% of a lone step",
            "for want of batches of different size"
        )
    );
    text += &format!(
        "  context         {}\n",
        maybe(
            entry.context_percent,
            "% of the bandwidth",
            "for want of contexts of different length"
        )
    );
    if let Some(travel) = fit.travel_ns {
        text += &format!(
            "  network         {:10.3} ms there and back\n",
            travel.value / 1e6
        );
    }
    if let Some(mbs) = entry.load_mbs {
        text += &format!("  load            {mbs} MB/s: --disk-mbs {mbs}\n");
    }
    text += &format!("  decode off by   {}\n", errors(fit.held_out.decode));
    text += &format!("  prefill off by  {}\n", errors(fit.held_out.prefill));
    text
}

fn json_of(found: &Found) -> Value {
    let Found { fit, entry, points } = found;
    let figure = |it: Figure| json!({ "value": it.value, "standard_error": it.error });
    let errors = |it: Errors| json!({ "points": it.points, "median_ppm": it.median_ppm, "worst_ppm": it.worst_ppm });
    json!({
        "chip": entry.naming.chip,
        "gpu_cores": entry.naming.gpu_cores,
        "bandwidth_gbs": entry.naming.bandwidth_gbs,
        "prefill_512": figure(entry.prefill_512),
        "prefill_8192": entry.prefill_8192.map(figure),
        "decode": figure(entry.decode),
        "row_percent": entry.row_percent.map(figure),
        "context_percent": entry.context_percent.map(figure),
        "network_ms": fit.travel_ns.map(|it| it.value / 1e6),
        "load_mbs": entry.load_mbs,
        "decode_points": points.0,
        "prefill_points": points.1,
        "outliers": fit.outliers,
        "held_out": { "decode": errors(fit.held_out.decode), "prefill": errors(fit.held_out.prefill) },
        "line": entry.line(),
    })
}
