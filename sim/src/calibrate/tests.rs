//! What the simulator's own machines do is found again.

use proptest::prelude::*;

use super::*;
use crate::hardware::{Chip, Hardware, Place};
use crate::machine::{Job, Machine, Note, Pace, StepDue};
use crate::record::Watch;
use crate::stream::Stream;
use crate::workload::Arrival;
use crate::world::World;
use crate::world::config::{RunConfig, parse_fleet};
use cereus_core::ids::{AttemptKey, ModelIx};
use cereus_core::time::{Span, Tick};
use cereus_engine::kv::KvLayout;
use cereus_engine::scheduler::SchedulerConfig;

const BANDWIDTH_GBS: u32 = 400;

/// A chip as a line of the table, with the model that all are measured with.
#[derive(Clone, Debug)]
struct Truth {
    prefill_512: f64,
    prefill_8192: f64,
    decode: f64,
    row_percent: f64,
    context_percent: f64,
}

impl Truth {
    fn chip(&self) -> Chip {
        let table = format!(
            "chip,bandwidth_gbs,prefill_512,prefill_8192,decode,row_percent,context_percent,source\n\
             mine,{BANDWIDTH_GBS},{:.3},{:.3},{:.3},{:.3},{:.3},a draw\n",
            self.prefill_512,
            self.prefill_8192,
            self.decode,
            self.row_percent,
            self.context_percent
        );
        let hardware = Hardware::built_in().clone().with_chips(table.as_bytes());
        let hardware = hardware.unwrap();
        let place: Place = "mine/512".parse().unwrap();
        hardware.pair(&place, hardware.measured_with()).unwrap()
    }

    /// Five figures, each with what was found.
    fn beside(&self, entry: &Entry) -> [(&'static str, f64, Option<Figure>); 5] {
        [
            ("prefill_512", self.prefill_512, Some(entry.prefill_512)),
            ("prefill_8192", self.prefill_8192, entry.prefill_8192),
            ("decode", self.decode, Some(entry.decode)),
            ("row_percent", self.row_percent, entry.row_percent),
            (
                "context_percent",
                self.context_percent,
                entry.context_percent,
            ),
        ]
    }
}

fn truth() -> impl Strategy<Value = Truth> {
    let prefill = (100u32..3_000, 50u32..95);
    (prefill, 10u32..150, 15u32..60, 30u32..90).prop_map(
        |((prefill, kept), decode, row_percent, context_percent)| Truth {
            prefill_512: prefill.into(),
            prefill_8192: f64::from(prefill * kept) / 100.0,
            decode: decode.into(),
            row_percent: row_percent.into(),
            context_percent: context_percent.into(),
        },
    )
}

/// A batch on a machine: when its prompts are read, and when each token of each row came.
struct Round {
    read_us: u64,
    /// Tokens of all rows while all decoded, and that time; none where some ended before others began.
    together: Option<(u32, u64)>,
}

fn round(chip: Chip, rows: u16, prompt_tokens: u32, new_tokens: u32) -> Round {
    let config = SchedulerConfig {
        rows_max: rows,
        waiting_max: rows,
        ..SchedulerConfig::reference(131_072)
    };
    let layout = KvLayout::full_attention(1, 1 << 40);
    let machine = Machine::new(chip, config, layout, Pace::Step).unwrap();
    let mut machine = machine.with_progress(1);
    let mut due: Option<StepDue> = None;
    for slot in 0..u32::from(rows) {
        let job = Job {
            attempt: AttemptKey {
                slot,
                generation: 1,
            },
            prompt_tokens,
            output_tokens_max: new_tokens,
            output_tokens_true: new_tokens,
        };
        due = machine.submit(Tick::ZERO, &job, &[]).unwrap().or(due);
    }
    let (mut begun, mut read_us, mut ended_us, mut tokens) = (0, 0, 0, 0);
    let mut is_together = true;
    while let Some(step) = due {
        let mut notes = Vec::new();
        due = machine.step_done(step.epoch, &mut notes);
        let is_end = |note: &Note| matches!(note, Note::Completed { .. });
        let has_ended = notes.iter().any(is_end);
        if begun == rows && ended_us == 0 {
            tokens += u32::from(rows);
            ended_us = step.at.0 * u64::from(has_ended);
        }
        is_together &= begun == rows || !has_ended;
        let is_start = |note: &&Note| matches!(note, Note::Started { .. });
        begun += u16::try_from(notes.iter().filter(is_start).count()).unwrap();
        if begun == rows && read_us == 0 {
            read_us = step.at.0;
        }
    }
    Round {
        read_us,
        together: is_together.then_some((tokens, ended_us.saturating_sub(read_us))),
    }
}

const NEW_TOKENS: u32 = 256;

/// What `cereus benchmark --json` would print of a chip, each figure off by at most so much.
fn printed(chip: Chip, noise_ppm: u64, seed: u64) -> String {
    let mut stream = Stream::new(seed, "a benchmark's noise");
    let mut off = |figure: f64| {
        let ppm = stream.between(1_000_000 - noise_ppm, 1_000_000 + noise_ppm);
        figure * float(ppm) / 1e6
    };
    let mut text = String::new();
    for prompt_tokens in [128, 512, 2_048, 8_192] {
        let cell = |rows: u16| {
            let read = round(chip, rows, prompt_tokens, 1);
            let both = round(chip, rows, prompt_tokens, NEW_TOKENS + 1);
            let (tokens, took_us) = both.together?;
            let all = f64::from(rows) * f64::from(prompt_tokens);
            Some(serde_json::json!({
                "rows": rows,
                "prompt_tokens": prompt_tokens,
                "prefill_tokens_per_second": off(all * 1e6 / float(read.read_us)),
                "first_token_ms": 1.5,
                "decode_tokens_per_second": off(f64::from(tokens) * 1e6 / float(took_us)),
                "decode_linearity": null,
            }))
        };
        let cells: Vec<serde_json::Value> = [1, 2, 4, 8].into_iter().filter_map(cell).collect();
        let whole = serde_json::json!({
            "model": "llama", "version": "1", "prompt_tokens": prompt_tokens, "new_tokens": NEW_TOKENS,
            "model_load_ms": 2_000, "cells": cells, "unmeasured": [],
        });
        text += &format!("{whole:#}\n");
    }
    text
}

fn entry_of(points: &Points) -> (Calibration, Entry) {
    let common = Hardware::built_in().measured_with();
    let fit = calibrate(points, usual_context_ns(common, BANDWIDTH_GBS)).unwrap();
    let naming = Naming {
        chip: "found".into(),
        gpu_cores: None,
        bandwidth_gbs: BANDWIDTH_GBS,
        source: "a test".into(),
    };
    let entry = Entry::of(&fit, naming, common, common).unwrap();
    (fit, entry)
}

/// Eight standard errors: with thirteen points more than figures, one case in half a million by chance.
const ERRORS: f64 = 8.0;

fn require_found(truth: &Truth, entry: &Entry, rounding: f64, noise: f64) {
    for (name, value, found) in truth.beside(entry) {
        let found = found.unwrap_or_else(|| panic!("{name} was not found"));
        let allowed = ERRORS * found.error + rounding * value;
        assert!(
            (found.value - value).abs() <= allowed,
            "{name}: {found:?} of {value}, with {noise} of noise, {truth:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Without noise within half a percent (ticks, and an answer's context as its mean; what reads
    /// a context is the rest of small differences); with noise as the noise allows.
    #[test]
    fn a_benchmark_of_a_simulated_machine_gives_its_figures_back(
        truth in truth(), noise_ppm in prop::sample::select(vec![0u64, 5_000, 30_000]), seed in 0u64..1_000_000
    ) {
        let chip = truth.chip();
        let all = Benchmark::read_all(&printed(chip, noise_ppm, seed)).unwrap();
        let points = Benchmark::points(&all).unwrap();
        let (fit, entry) = entry_of(&points);
        let noise = float(noise_ppm) / 1e6;
        if entry.context_percent.is_some() && entry.prefill_8192.is_some() {
            require_found(&truth, &entry, 0.005, noise);
        } else {
            // What noise hides is not made up; without noise nothing is hidden.
            prop_assert!(noise_ppm > 0);
        }
        // The main figures are as sure as a mean of several measurements.
        prop_assert!(entry.decode.error <= (noise + 0.001) * entry.decode.value);
        prop_assert!(entry.prefill_512.error <= (noise + 0.001) * entry.prefill_512.value);
        // What was held out lies within the noise of it and of the fit.
        let (decode, prefill) = (fit.held_out.decode, fit.held_out.prefill);
        prop_assert!(decode.points >= 12 && decode.points == prefill.points, "{:?}", fit.held_out);
        let most_ppm = 3 * noise_ppm + 10_000;
        prop_assert!(decode.median_ppm <= most_ppm, "{:?}", fit.held_out);
        prop_assert!(prefill.median_ppm <= most_ppm, "{:?}", fit.held_out);
    }
}

/// Chats that leave a machine idle now and then, so that some prompts are read alone.
fn chats(seed: u64, count: u32, gap_us: u64) -> Vec<Arrival> {
    let mut stream = Stream::new(seed, "chats");
    let mut after = Span::ZERO;
    let one = |_| {
        after = after + Span(stream.exponential(gap_us));
        // As many short prompts as long ones, by their logarithm.
        let octave = stream.between(6, 12);
        let prompt_tokens = stream.between(1 << octave, 2 << octave);
        Arrival {
            after,
            prompt_tokens: u32::try_from(prompt_tokens).unwrap(),
            output_tokens: u32::try_from(stream.between(20, 900)).unwrap(),
            blocks: Vec::new(),
        }
    };
    (0..count).map(one).collect()
}

/// Of the network, beside a prompt that takes a second.
const JOURNAL_NOISE: f64 = 0.03;

/// Three machines that nobody can mistake for one another, over the internet, in a world as it is.
#[test]
fn a_journal_of_a_simulated_fleet_gives_its_machines_back() {
    for seed in 1..=4 {
        let mut config = RunConfig::reference(3);
        config.seed = seed;
        config.fleet = parse_fleet("m1-max/64,m2-ultra/192,m3-max/64").unwrap();
        let arrivals = chats(seed, 3_000, 4_000_000);
        let world = World::new(config.clone(), arrivals.into_iter().map(Ok)).unwrap();
        let watch = Watch::Timed(Box::new(Timings::of(ModelIx(0))));
        let ran = world.watching(watch).run_recorded(|_| {}).unwrap();
        let Watch::Timed(timings) = ran.watch else {
            unreachable!("it was asked for");
        };
        let common = config.hardware.measured_with();
        assert_eq!(timings.machines().len(), 3);
        let mut found = Vec::new();
        for (ix, machine) in timings.machines().iter().enumerate() {
            let spec = machine.spec.unwrap();
            let points = timings.points(ix);
            let fit = calibrate(&points, usual_context_ns(common, spec.bandwidth_gbs)).unwrap();
            assert!(fit.outliers * 10 < points.decode.len() + points.prefill.len());
            assert!(
                fit.held_out.decode.median_ppm < 10_000,
                "{:?}",
                fit.held_out
            );
            assert!(
                fit.held_out.prefill.median_ppm < 10_000,
                "{:?}",
                fit.held_out
            );
            // Two ways of 8 to 38 ms.
            let travel_ms = fit.travel_ns.unwrap().value / 1e6;
            assert!((36.0..56.0).contains(&travel_ms), "{travel_ms}");
            let naming = Naming {
                chip: format!("machine {ix}"),
                gpu_cores: None,
                bandwidth_gbs: spec.bandwidth_gbs,
                source: "a test".into(),
            };
            found.push(Entry::of(&fit, naming, common, common).unwrap());
        }
        // Who is who is known by the memory's bandwidth, and then by the pace of reading.
        let by = |entry: &Entry| (entry.naming.bandwidth_gbs, whole(entry.prefill_512.value));
        found.sort_unstable_by_key(by);
        for (name, entry) in ["m1-max", "m3-max", "m2-ultra"].into_iter().zip(&found) {
            let facts = config
                .hardware
                .chips()
                .iter()
                .find(|chip| chip.name == name);
            let facts = facts.unwrap();
            let rate = |mtps: u64| float(mtps) / 1e3;
            let truth = Truth {
                prefill_512: rate(facts.prefill_512_mtps),
                prefill_8192: rate(facts.prefill_8192_mtps.unwrap()),
                decode: rate(facts.decode_mtps),
                row_percent: float(ROW_PERCENT),
                context_percent: float(CONTEXT_PERCENT),
            };
            require_found(&truth, entry, 0.005, JOURNAL_NOISE);
        }
    }
}

#[test]
fn what_is_no_benchmark_or_of_two_models_is_refused_with_a_hint() {
    let cell = |model: &str, rows: u32, decode: f64| {
        format!(
            "{{\"model\":\"{model}\",\"new_tokens\":8,\"model_load_ms\":null,\"cells\":[{{\"rows\":{rows},\
             \"prompt_tokens\":64,\"prefill_tokens_per_second\":9.5,\"decode_tokens_per_second\":{decode}}}]}}"
        )
    };
    for (text, part) in [
        (String::new(), "run `cereus benchmark"),
        ("chip,decode".to_owned(), "not what `cereus benchmark"),
        (cell("a", 0, 1.0), "of 0 rows"),
        (cell("a", 4, -1.0), "of 4 rows"),
    ] {
        let said = Benchmark::read_all(&text).unwrap_err().to_string();
        assert!(said.contains(part), "{text}: {said}");
    }
    let both = cell("a", 1, 20.0) + &cell("b", 1, 20.0);
    let said = Benchmark::points(&Benchmark::read_all(&both).unwrap()).unwrap_err();
    assert!(said.to_string().contains("of a and of b"), "{said}");
    let one = Benchmark::points(&Benchmark::read_all(&cell("a", 1, 20.0)).unwrap()).unwrap();
    let (fit, entry) = entry_of(&one);
    assert_eq!(
        (fit.row_ns, fit.context_ns, fit.long_ns),
        (None, None, None)
    );
    assert!(entry.decode.value > 20.0, "the context was read too");
    let nothing = Points {
        decode: Vec::new(),
        ..one
    };
    assert_eq!(calibrate(&nothing, 1.0), Err(CalibrateError::NoDecode));
}
