//! What a machine does with a request: a few acts, each at its time.

use cereus_core::event::{AttemptFault, Ending, Shown, Usage};
use cereus_core::time::Span;

use super::machine::Machine;
use super::plan::Lie;
use crate::stream::{Ratio, Stream};

/// One thing that a machine does, or that the relay tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Accept,
    Complete(Answer),
    Fail(AttemptFault),
    /// The connection ends with all that it carries.
    HangUp,
    Progress(Shown),
    Start,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) usage: Usage,
    pub(super) shown: Shown,
    pub(super) ending: Ending,
}

/// What the simulator alone knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Truth {
    /// Thousandths of a byte for each token of this consumer's text.
    pub(super) text_milli: u32,
    pub(super) prompt_bytes: u32,
    pub(super) prompt_tokens: u32,
    pub(super) output_tokens_max: u32,
    /// What an honest machine says to it.
    pub(super) output_tokens: u32,
}

const FEW_TOKENS: u32 = 20;
const BYTES_OF_TEMPLATE: u32 = 64;
/// What was relayed is told after this long at first, and then more rarely.
const PROGRESS: Span = Span::secs(3);
const PROGRESS_MAX: Span = Span::secs(100);

pub(super) type Script = Vec<(Span, Act)>;

/// A machine that serves as it should, or has no room.
pub(super) fn honest(machine: &Machine, truth: &Truth) -> Script {
    if !machine.can_take() {
        return vec![(Span::ZERO, Act::Fail(AttemptFault::Busy))];
    }
    let first = machine.prefill_time(truth.prompt_tokens);
    let last = Span(first.0 + machine.step_time().0 * u64::from(truth.output_tokens));
    streamed(first, last, said(truth, truth.output_tokens))
}

/// Content from `first` to `last`, with what the relay tells of it on the way.
fn streamed(first: Span, last: Span, answer: Answer) -> Script {
    let mut script = vec![(Span::ZERO, Act::Accept), (first, Act::Start)];
    let took = Span(last.0 - first.0);
    let mut at = PROGRESS;
    while at < took {
        let so_far = u64::from(answer.shown.pieces) * at.0 / took.0;
        let shown = Shown {
            pieces: u32::try_from(so_far).expect("fewer than all").max(1),
            text_bytes: 1,
            ..answer.shown
        };
        script.push((first + at, Act::Progress(shown)));
        at = Span(at.0 * 2).min(at + PROGRESS_MAX);
    }
    script.push((last, Act::Complete(answer)));
    script
}

/// An answer of so many tokens, rightly counted.
fn said(truth: &Truth, tokens: u32) -> Answer {
    Answer {
        usage: Usage {
            prompt_tokens: truth.prompt_tokens,
            completion_tokens: tokens,
        },
        shown: shown(truth, tokens),
        ending: Ending::Said,
    }
}

fn shown(truth: &Truth, tokens: u32) -> Shown {
    let bytes = u64::from(tokens) * u64::from(truth.text_milli) / 1_000;
    Shown {
        pieces: tokens,
        text_bytes: u32::try_from(bytes).expect("answers are short"),
        marks: 1,
        counted: None,
    }
}

/// A machine that lies in this way.
pub(super) fn lying(lie: Lie, machine: &Machine, truth: &Truth, stream: &mut Stream) -> Script {
    let soon = Span(stream.between(2_000, 400_000));
    let later = soon + Span(stream.between(50_000, 900_000));
    let accepted = (Span::ZERO, Act::Accept);
    match lie {
        Lie::Absent => vec![(soon, Act::Fail(AttemptFault::ModelUnavailable))],
        Lie::Breaks => vec![accepted, (soon, Act::Fail(AttemptFault::Internal))],
        Lie::BreaksOff => vec![
            accepted,
            (soon, Act::Start),
            (later, Act::Fail(AttemptFault::Internal)),
        ],
        Lie::ClientError => {
            let statuses = [400, 413, 415, 422];
            let status = stream.pick(&statuses);
            vec![(soon, Act::Fail(AttemptFault::Client(status)))]
        }
        Lie::ClaimsSpeed => {
            let first = Span(stream.between(3_000_000, 7_500_000));
            let each_us = stream.between(100_000, 500_000);
            slow(truth, first, each_us)
        }
        Lie::CountsBytes => {
            let mut answer = said(truth, truth.output_tokens);
            answer.usage = Usage {
                prompt_tokens: truth.prompt_bytes + BYTES_OF_TEMPLATE,
                completion_tokens: answer.shown.text_bytes,
            };
            served(machine, truth, answer)
        }
        Lie::Drip => slow(truth, soon, stream.between(1_500_000, 4_000_000)),
        Lie::Empty => {
            let claims_factor = machine.plan.liar.map_or(1, |liar| liar.claims_factor);
            let nothing = Answer {
                usage: Usage {
                    prompt_tokens: truth.prompt_tokens,
                    completion_tokens: if claims_factor > 1 { 1_000_000_000 } else { 1 },
                },
                shown: shown(truth, 0),
                ending: Ending::Said,
            };
            vec![accepted, (soon, Act::Complete(nothing))]
        }
        Lie::HangsUp if stream.chance(Ratio::new(1, 2)) => vec![accepted, (soon, Act::HangUp)],
        Lie::HangsUp => vec![accepted, (soon, Act::Start), (later, Act::HangUp)],
        Lie::OverClaim => {
            let mut answer = said(truth, truth.output_tokens);
            let factor = stream.pick(&[20, 1_000, 1_000_000]);
            if truth.output_tokens < FEW_TOKENS {
                // Beyond the rounding of small counts.
                answer.usage.completion_tokens = 1_000;
            } else if stream.chance(Ratio::new(1, 2)) {
                answer.usage.prompt_tokens = truth.prompt_tokens.saturating_mul(factor);
            } else {
                answer.usage.completion_tokens = truth.output_tokens.saturating_mul(factor);
            }
            served(machine, truth, answer)
        }
        Lie::OverRun => {
            // The relay cuts what goes beyond the bound, and shows what came until then.
            let answer = Answer {
                usage: Usage::default(),
                shown: shown(truth, truth.output_tokens_max * 2),
                ending: Ending::Cut,
            };
            served(machine, truth, answer)
        }
        Lie::Plaintext => vec![accepted, (soon, Act::Fail(AttemptFault::Encryption))],
        Lie::Refuses => vec![(soon, Act::Fail(AttemptFault::Busy))],
        Lie::Silence => Vec::new(),
        Lie::SilenceAccepted => vec![accepted],
        Lie::Mixed | Lie::Replays => unreachable!("the caller has drawn a single lie"),
    }
}

/// In the time that an honest machine needs.
fn served(machine: &Machine, truth: &Truth, answer: Answer) -> Script {
    let first = machine.prefill_time(truth.prompt_tokens);
    let last = Span(first.0 + machine.step_time().0 * u64::from(answer.shown.pieces));
    streamed(first, last, answer)
}

/// The truth, late.
fn slow(truth: &Truth, first: Span, each_us: u64) -> Script {
    let answer = said(truth, truth.output_tokens);
    let last = Span(first.0 + each_us * u64::from(truth.output_tokens));
    streamed(first, last, answer)
}
