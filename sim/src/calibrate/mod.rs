//! What a chip can do, fitted to what was measured of it: by `cereus benchmark`, or by a coordinator's
//! journal. The figures are those of [`Chip`](crate::hardware::Chip), which takes the same time for the
//! same step again; how well it does shows at points that were held out.
//!
//! Floating point is at home here: nothing of it reaches a run but through a table of whole figures.

mod benchmark;
mod entry;
mod journal;
mod least;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use benchmark::{Benchmark, BenchmarkError};
pub use entry::{Entry, EntryError, HEAD, Naming};
pub use journal::{MachineTimings, Timings};

use self::least::{Fit, Point};
use crate::hardware::{ATTENTION_PPM, CONTEXT_PERCENT, LONG, ModelFacts, ROW_PERCENT, SHORT};

/// Steps in which the same rows decode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Decode {
    pub steps: f64,
    pub rows: f64,
    /// Tokens of keys and values that a step reads, on average.
    pub context_tokens: f64,
    pub took_ns: f64,
}

/// Prompts that were read with nothing beside them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefill {
    pub tokens: f64,
    /// Over these, the tokens before each, itself among them.
    pub pairs: f64,
    pub steps: f64,
    pub took_ns: f64,
}

/// How far points lie from what is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Of what something takes.
    pub share: f64,
    /// Beside it, whatever it takes.
    pub jitter_ns: f64,
}

/// Everything that is known of one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    pub decode: Vec<Decode>,
    pub prefill: Vec<Prefill>,
    pub noise: Noise,
    /// Whether prompts and first tokens travel, which takes a time that is to be found too.
    pub travel: bool,
    /// Until the weights were in memory.
    pub load_ms: Option<u64>,
}

/// A figure and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    pub value: f64,
    pub error: f64,
}

/// What one machine takes for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct Calibration {
    /// A step of a lone row with nothing before it.
    pub lone_ns: Figure,
    /// Each further row. None: no batches of different size were seen, so what is usual is taken.
    pub row_ns: Option<Figure>,
    /// Each token of keys and values that a step reads. None: likewise.
    pub context_ns: Option<Figure>,
    /// A token of a prompt of `SHORT`.
    pub short_ns: Figure,
    /// A token of one of `LONG`. None: there were no prompts of different length.
    pub long_ns: Option<Figure>,
    /// Both ways of the network together, where there is one.
    pub travel_ns: Option<Figure>,
    pub load_ms: Option<u64>,
    /// Points that no other agreed with, and that were left out.
    pub outliers: usize,
    pub held_out: HeldOut,
}

/// Relative errors at points that the fit did not see, in millionths: every fourth is left out, and then
/// the next fourth, until each was; of few points one after the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeldOut {
    pub decode: Errors,
    pub prefill: Errors,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    pub points: usize,
    pub median_ppm: u64,
    pub worst_ppm: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CalibrateError {
    #[error("nothing was measured of decode: at least one batch must decode for some tokens")]
    NoDecode,
    #[error(
        "nothing was measured of prefill: at least {0} prompts must be read with nothing beside them"
    )]
    NoPrefill(usize),
    #[error(
        "the prompts that were read take no longer when they are longer; measure again with nothing \
             else on the machine, and with prompts of at least 512 tokens"
    )]
    Flat,
}

const FOLDS: usize = 4;
/// Fewer points than this are left out one by one.
const FEW: usize = 9;
/// Points beyond so many times the median distance are of something else.
const OUTLYING: f64 = 6.0;
const SIFTINGS: u32 = 3;
/// The share of a lone step that a further row takes at least and at most.
const ROW_SHARES: (f64, f64) = (0.001, 0.999);

impl Noise {
    fn weight(self, took_ns: f64) -> f64 {
        let share_ns = self.share * took_ns;
        1.0 / (share_ns * share_ns + self.jitter_ns * self.jitter_ns)
    }
}

/// What a token of keys and values takes to read where nobody measured it.
#[must_use]
pub fn usual_context_ns(model: &ModelFacts, bandwidth_gbs: u32) -> f64 {
    let usual_ps = model.kv_bytes_per_token * 100_000 / CONTEXT_PERCENT;
    float(usual_ps) / 1e3 / f64::from(bandwidth_gbs.max(1))
}

/// Fits everything. `usual_context_ns`: see [`usual_context_ns`].
///
/// # Errors
/// Too little was measured.
pub fn calibrate(points: &Points, usual_context_ns: f64) -> Result<Calibration, CalibrateError> {
    // What a benchmark prints is a median already. In a journal there is more at work than is told.
    let rounds = if points.travel { SIFTINGS } else { 0 };
    let (decode, outlying_steps) = sifted(&points.decode, rounds, |all| {
        let fitted = Decoding::of(all, points.noise, usual_context_ns);
        fitted.map(|fitted| {
            all.iter()
                .map(|one| off(one.took_ns, fitted.at(one)))
                .collect()
        })
    });
    let decoding = Decoding::of(&decode, points.noise, usual_context_ns);
    let decoding = decoding.ok_or(CalibrateError::NoDecode)?;
    let (prefill, outlying_prompts) = sifted(&points.prefill, rounds, |all| {
        let fitted = Reading::of(all, points, decoding.step_ns());
        fitted.map(|fitted| {
            all.iter()
                .map(|one| off(one.took_ns, fitted.at(one)))
                .collect()
        })
    });
    let least = 1 + usize::from(points.travel);
    if prefill.len() < least {
        return Err(CalibrateError::NoPrefill(least));
    }
    let reading = Reading::of(&prefill, points, decoding.step_ns());
    let reading = reading.ok_or(CalibrateError::Flat)?;
    Ok(Calibration {
        lone_ns: decoding.lone,
        row_ns: decoding.row.ok(),
        context_ns: decoding.context.ok(),
        short_ns: reading.short,
        long_ns: reading.long,
        travel_ns: points.travel.then_some(reading.travel),
        load_ms: points.load_ms,
        outliers: outlying_steps + outlying_prompts,
        held_out: HeldOut {
            decode: held_out(&decode, |seen, one: &Decode| {
                let fitted = Decoding::of(seen, points.noise, usual_context_ns)?;
                Some(off(one.took_ns, fitted.at(one)))
            }),
            prefill: held_out(&prefill, |seen, one: &Prefill| {
                let fitted = Reading::of(seen, points, decoding.step_ns())?;
                Some(off(one.took_ns, fitted.at(one)))
            }),
        },
    })
}

/// Relative.
fn off(measured: f64, expected: f64) -> f64 {
    ((expected - measured) / measured).abs()
}

/// Without those that lie far from a fit to all of them, once and again.
fn sifted<T: Copy>(
    all: &[T],
    rounds: u32,
    offs: impl Fn(&[T]) -> Option<Vec<f64>>,
) -> (Vec<T>, usize) {
    let mut kept = all.to_vec();
    for _ in 0..rounds {
        let Some(offs) = offs(&kept) else { break };
        let mut sorted = offs.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let far = OUTLYING * sorted[sorted.len() / 2];
        // Where all points lie on the fit, rounding is not far.
        let far = far.max(1e-3);
        let each = kept.iter().zip(&offs);
        let near: Vec<T> = each
            .filter(|(_, off)| **off <= far)
            .map(|(one, _)| *one)
            .collect();
        if near.len() == kept.len() {
            break;
        }
        kept = near;
    }
    let dropped = all.len() - kept.len();
    (kept, dropped)
}

fn held_out<T: Copy>(all: &[T], error: impl Fn(&[T], &T) -> Option<f64>) -> Errors {
    let folds = if all.len() < FEW { all.len() } else { FOLDS };
    let mut errors = Vec::new();
    for fold in 0..folds {
        let is_out = |ix: usize| ix % folds == fold;
        let each = all.iter().enumerate();
        let seen: Vec<T> = each
            .filter(|(ix, _)| !is_out(*ix))
            .map(|(_, one)| *one)
            .collect();
        let out = all.iter().enumerate().filter(|(ix, _)| is_out(*ix));
        errors.extend(out.filter_map(|(_, one)| error(&seen, one)));
    }
    errors.sort_unstable_by(f64::total_cmp);
    let ppm = |ix: usize| errors.get(ix).map_or(0, |error| whole(error * 1e6));
    Errors {
        points: errors.len(),
        median_ppm: ppm(errors.len() / 2),
        worst_ppm: ppm(errors.len().saturating_sub(1)),
    }
}

/// The nearest whole number from 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and what is not above zero is nought"
)]
fn whole(value: f64) -> u64 {
    (value + 0.5) as u64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "figures of tables are far below 2^53"
)]
const fn float(value: u64) -> f64 {
    value as f64
}

/// `Err`: was not measured, and this is taken.
type Measured = Result<Figure, f64>;

const fn value(figure: Measured) -> f64 {
    match figure {
        Ok(figure) => figure.value,
        Err(usual) => usual,
    }
}

/// How long steps of decode take.
#[derive(Clone, Copy, Debug)]
struct Decoding {
    lone: Figure,
    row: Measured,
    context: Measured,
}

impl Decoding {
    /// By as many figures as the points tell apart.
    fn of(all: &[Decode], noise: Noise, usual_context_ns: f64) -> Option<Self> {
        let beside = |one: &Decode| one.steps * (one.rows - 1.0);
        let context = |one: &Decode| one.steps * one.context_tokens;
        let without = |one: &Decode| one.took_ns - usual_context_ns * context(one);
        let whole = points(all, noise, |one| {
            (
                [one.steps, beside(one), context(one)],
                one.took_ns,
                one.took_ns,
            )
        });
        if let Some(fit) = Fit::of(&whole).filter(|fit| fit.values[2] > 0.0) {
            return Self::sound(fit.figure(0), Ok(fit.figure(1)), Ok(fit.figure(2)));
        }
        let usual = Err(usual_context_ns);
        let rows = points(all, noise, |one| {
            ([one.steps, beside(one)], without(one), one.took_ns)
        });
        if let Some(fit) = Fit::of(&rows) {
            return Self::sound(fit.figure(0), Ok(fit.figure(1)), usual);
        }
        let share = float(ROW_PERCENT) / 100.0;
        let lone = points(all, noise, |one| {
            ([one.steps + share * beside(one)], without(one), one.took_ns)
        });
        let lone = Fit::of(&lone)?.figure(0);
        Self::sound(lone, Err(share * lone.value), usual)
    }

    fn sound(lone: Figure, row: Measured, context: Measured) -> Option<Self> {
        let (least, most) = ROW_SHARES;
        let row = row.map(|row| Figure {
            value: row
                .value
                .clamp(least * lone.value.max(0.0), most * lone.value.max(0.0)),
            ..row
        });
        (lone.value > 0.0).then_some(Self { lone, row, context })
    }

    /// What every step takes, whatever it computes.
    const fn step_ns(&self) -> f64 {
        self.lone.value - value(self.row)
    }

    const fn at(&self, one: &Decode) -> f64 {
        let beside = value(self.row) * (one.rows - 1.0);
        let context = value(self.context) * one.context_tokens;
        one.steps * (self.lone.value + beside + context)
    }
}

/// How long prompts take to read.
#[derive(Clone, Copy, Debug)]
struct Reading {
    short: Figure,
    long: Option<Figure>,
    travel: Figure,
    step_ns: f64,
}

impl Reading {
    fn of(all: &[Prefill], points_of: &Points, step_ns: f64) -> Option<Self> {
        let noise = points_of.noise;
        let net = |one: &Prefill| one.took_ns - step_ns * one.steps;
        let long = points(all, noise, |one| {
            let [short, long] = parts(one);
            ([short, long, 1.0], net(one), one.took_ns)
        });
        let usual = points(all, noise, |one| {
            ([usual_part(one), 1.0], net(one), one.took_ns)
        });
        let none = Figure {
            value: 0.0,
            error: 0.0,
        };
        let falls = |short: Figure, long: Figure| short.value > 0.0 && long.value > short.value;
        if points_of.travel {
            let by_both = Fit::of(&long).filter(|fit| falls(fit.figure(0), fit.figure(1)));
            if let Some(fit) = by_both {
                return Some(Self {
                    short: fit.figure(0),
                    long: Some(fit.figure(1)),
                    travel: fit.figure(2),
                    step_ns,
                });
            }
            let fit = Fit::of(&usual).filter(|fit| fit.values[0] > 0.0)?;
            return Some(Self {
                short: fit.figure(0),
                long: None,
                travel: fit.figure(1),
                step_ns,
            });
        }
        let by_both = Fit::of(&first_columns::<3, 2>(&long));
        if let Some(fit) = by_both.filter(|fit| falls(fit.figure(0), fit.figure(1))) {
            return Some(Self {
                short: fit.figure(0),
                long: Some(fit.figure(1)),
                travel: none,
                step_ns,
            });
        }
        let fit = Fit::of(&first_columns::<2, 1>(&usual)).filter(|fit| fit.values[0] > 0.0)?;
        Some(Self {
            short: fit.figure(0),
            long: None,
            travel: none,
            step_ns,
        })
    }

    fn at(&self, one: &Prefill) -> f64 {
        let read = match self.long {
            Some(long) => {
                let [of_short, of_long] = parts(one);
                self.short.value * of_short + long.value * of_long
            }
            None => self.short.value * usual_part(one),
        };
        read + self.travel.value + self.step_ns * one.steps
    }
}

/// What a token of a short prompt and one of a long prompt take, put together to this: a token has half
/// of its prompt before it on average, and what those before it cost grows by the token.
fn parts(one: &Prefill) -> [f64; 2] {
    let (short, long) = (float(SHORT) / 2.0, float(LONG) / 2.0);
    let of_long = (one.pairs - short * one.tokens) / (long - short);
    [one.tokens - of_long, of_long]
}

/// The same where what those before it cost is taken as usual.
fn usual_part(one: &Prefill) -> f64 {
    let share = float(ATTENTION_PPM) / 1e6;
    (one.tokens + share * one.pairs) / (1.0 + share * float(SHORT) / 2.0)
}

impl<const N: usize> Fit<N> {
    const fn figure(&self, ix: usize) -> Figure {
        Figure {
            value: self.values[ix],
            error: self.errors[ix],
        }
    }
}

/// `of`: the parts, what they make up, and the time by which it counts.
fn points<T, const N: usize>(
    all: &[T],
    noise: Noise,
    of: impl Fn(&T) -> ([f64; N], f64, f64),
) -> Vec<Point<N>> {
    let each = all.iter().map(|one| {
        let (parts, measured, took_ns) = of(one);
        Point {
            parts,
            measured,
            weight: noise.weight(took_ns),
        }
    });
    each.collect()
}

fn first_columns<const N: usize, const M: usize>(points: &[Point<N>]) -> Vec<Point<M>> {
    let each = points.iter().map(|point| Point {
        parts: core::array::from_fn(|ix| point.parts[ix]),
        measured: point.measured,
        weight: point.weight,
    });
    each.collect()
}
