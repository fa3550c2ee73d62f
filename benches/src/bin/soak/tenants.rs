//! Whether a tenant can tell from its own times what another one asked.
//!
//! Round by round a victim asks a prompt, and then others ask that very prompt, or one that nobody ever
//! asked. What the times tell is said as a chance: that of guessing right from one time which of the
//! two it was. A half is no better than a coin.

use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use cereus_benches::words::Words;
use cereus_core::draw::{Purpose, Seed};
use cereus_engine::kv::Scope;
use cereus_engine::runtime::{Engine, EngineConfig, Event, Job, MlxBackend};
use cereus_engine::scheduler::RowId;
use serde_json::json;

use crate::Outcome;

const PROMPT_TOKENS: u32 = 600;
/// Letters of a word that no vocabulary has, and such words of a prompt. Long and few: a tokenizer that
/// keeps the words it has cut gains much by each, and is not full before the bench is over.
const LETTERS: u64 = 200;
const STRANGE_WORDS: u64 = 4;
const KV_BYTES: u64 = 64 << 20;
/// Standard errors from a half that chance seldom goes beyond.
const ERRORS_MAX: f64 = 4.0;

/// What a prompt is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    /// Words that each prompt has.
    Known,
    /// Words that no other prompt has, as a name or a password is.
    Strange,
}

/// Who asks, and whether the victim asked the same before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asker {
    NobodyAnew,
    NobodySame,
    TenantAnew,
    TenantSame,
    VictimSame,
}

const ASKERS: [Asker; 5] = [
    Asker::NobodyAnew,
    Asker::NobodySame,
    Asker::TenantAnew,
    Asker::TenantSame,
    Asker::VictimSame,
];

/// From its submission, in seconds.
#[derive(Clone, Copy)]
struct Times {
    accepted: f64,
    first_token: f64,
}

struct Bench {
    engine: Engine,
    heard: Receiver<(Instant, Event)>,
    words: Words,
    seed: Seed,
    asked: u64,
}

/// Prints what was found; says whether a tenant cannot tell.
pub(crate) fn tell_apart(model: &Path, rounds: u32, seed: Seed) -> Outcome<bool> {
    let (events, heard) = channel();
    let folder = model.to_owned();
    let engine = Engine::start(
        &EngineConfig::reference(KV_BYTES, seed),
        move || MlxBackend::open(&folder),
        // Nobody listens any more once the bench has failed.
        move |event| drop(events.send((Instant::now(), event))),
    )
    .map_err(|error| error.to_string())?;
    let mut bench = Bench {
        engine,
        heard,
        words: Words::read(model)?,
        seed,
        asked: 0,
    };
    let mut is_apart = true;
    for text in [Text::Known, Text::Strange] {
        let times = bench.measure(text, rounds)?;
        println!(
            "\n{text:?} words, {rounds} rounds; microseconds, middle (quarter to three quarters)"
        );
        is_apart &= print(&times);
    }
    Ok(is_apart)
}

impl Bench {
    /// By asker, one of each a round.
    fn measure(&mut self, text: Text, rounds: u32) -> Outcome<[Vec<Times>; ASKERS.len()]> {
        let mut times = [const { vec![] }; ASKERS.len()];
        // The first rounds are not counted: the machine warms up.
        for round in 0..rounds + rounds.div_ceil(10) {
            let round_number = u64::from(round);
            let texts = 8 * round_number;
            let victim = self.text(text, texts);
            self.ask(&victim, Some(1))?;
            let mut order = ASKERS;
            self.shuffle(&mut order, round_number);
            for asker in order {
                // Anew means anew for everybody.
                let anew = self.text(text, texts + 1 + asker as u64);
                let found = match asker {
                    Asker::NobodyAnew => self.ask(&anew, None)?,
                    Asker::NobodySame => self.ask(&victim, None)?,
                    Asker::TenantAnew => self.ask(&anew, Some(2))?,
                    Asker::TenantSame => self.ask(&victim, Some(2))?,
                    Asker::VictimSame => self.ask(&victim, Some(1))?,
                };
                if round >= rounds.div_ceil(10) {
                    times[asker as usize].push(found);
                }
            }
        }
        Ok(times)
    }

    fn shuffle(&self, order: &mut [Asker], round: u64) {
        for last in (1..order.len()).rev() {
            let bound = last as u64 + 1;
            let draw =
                self.seed
                    .draw_below(Purpose::Simulation, u128::from(round), last as u128, bound);
            order.swap(last, usize::try_from(draw).expect("below a length"));
        }
    }

    fn text(&self, text: Text, number: u64) -> String {
        match text {
            Text::Known => self.words.text(number, PROMPT_TOKENS),
            Text::Strange => {
                let word = |word: u64| -> String {
                    let letter = |ix: u64| {
                        let place = u128::from(word * LETTERS + ix);
                        let purpose = Purpose::Simulation;
                        let letter = self.seed.draw_below(purpose, u128::from(number), place, 26);
                        char::from(b'a' + u8::try_from(letter).expect("below 26"))
                    };
                    (0..LETTERS).map(letter).collect()
                };
                let words: Vec<String> = (0..STRANGE_WORDS).map(word).collect();
                words.join(" ")
            }
        }
    }

    fn ask(&mut self, text: &str, tenant: Option<u8>) -> Outcome<Times> {
        self.asked += 1;
        let id = RowId(self.asked);
        let body = json!({
            "prompt": text, "temperature": 0, "max_tokens": 1, "ignore_eos": true,
        });
        let body = body.to_string().into_bytes();
        let scope = tenant.and_then(|tenant| Scope::new(&[tenant]));
        let began = Instant::now();
        let submitted = self.engine.submit(Job { id, body, scope });
        submitted.map_err(|failure| failure.to_string())?;
        let (mut accepted, mut first_token) = (None, None);
        loop {
            let heard = self.heard.recv();
            let (at, event) = heard.map_err(|_| "the engine ended early".to_owned())?;
            let time = at.duration_since(began).as_secs_f64();
            match event {
                Event::Accepted { .. } => accepted = Some(time),
                Event::Delta { .. } => first_token = first_token.or(Some(time)),
                Event::Finished(_) => {
                    // The engine looks for work again before the next request comes.
                    std::thread::sleep(Duration::from_millis(1));
                    return Ok(Times {
                        accepted: accepted.ok_or("an answer came without being accepted")?,
                        // A token of half a character says nothing.
                        first_token: first_token.unwrap_or(time),
                    });
                }
                Event::Failed { failure, .. } => return Err(failure.to_string()),
            }
        }
    }
}

fn print(times: &[Vec<Times>; ASKERS.len()]) -> bool {
    type Part = fn(&Times) -> f64;
    let parts: [(&str, Part); 2] = [
        ("accepted", |times| times.accepted),
        ("first token", |times| times.first_token),
    ];
    let mut is_apart = true;
    for (name, part) in parts {
        let sorted = |asker: Asker| {
            let mut values: Vec<f64> = times[asker as usize].iter().map(part).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        for asker in ASKERS {
            println!("  {name}, {asker:?}: {}", spread(&sorted(asker)));
        }
        let pairs = [
            ("another tenant", Asker::TenantSame, Asker::TenantAnew),
            ("nobody", Asker::NobodySame, Asker::NobodyAnew),
        ];
        for (who, same, anew) in pairs {
            let (same, anew) = (sorted(same), sorted(anew));
            let guess = Guess::of(&same, &anew);
            let apart = guess.errors.abs() <= ERRORS_MAX;
            is_apart &= apart;
            println!(
                "  {}: by {name}, {who} guesses right in {:.1} % ({:+.1} standard errors from a half; \
                 middles differ by {:+.1} us)",
                if apart { "cannot tell" } else { "CAN TELL" },
                guess.right * 100.0,
                guess.errors,
                (middle(&same) - middle(&anew)) * 1e6,
            );
        }
        // What the same look tells when there is something to see.
        let found = Guess::of(&sorted(Asker::VictimSame), &sorted(Asker::TenantAnew));
        println!(
            "  for comparison: by {name}, the victim itself guesses right in {:.1} %",
            found.right * 100.0
        );
    }
    is_apart
}

/// How well one time tells which of two kinds it is of.
struct Guess {
    /// That a time of the first is below one of the second.
    right: f64,
    errors: f64,
}

impl Guess {
    /// Of sorted values, by Mann and Whitney.
    fn of(first: &[f64], second: &[f64]) -> Self {
        let below = first.iter().map(|value| {
            let above = second.len() - second.partition_point(|other| other <= value);
            let equal = second.partition_point(|other| other <= value)
                - second.partition_point(|other| other < value);
            above as f64 + equal as f64 / 2.0
        });
        let (one, other) = (first.len() as f64, second.len() as f64);
        let right = below.sum::<f64>() / (one * other);
        let error = ((one + other + 1.0) / (12.0 * one * other)).sqrt();
        Self {
            right,
            errors: (right - 0.5) / error,
        }
    }
}

fn middle(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

fn spread(sorted: &[f64]) -> String {
    let us = |value: f64| value * 1e6;
    let quarter = sorted.len() / 4;
    format!(
        "{:.0} ({:.0} to {:.0})",
        us(middle(sorted)),
        us(sorted[quarter]),
        us(sorted[sorted.len() - 1 - quarter])
    )
}
