//! What a seed makes of machines, tasks, limits and requests.

use cereus_core::config::Limits;
use cereus_core::time::{Span, Tick};

use super::{Lie, PlannedAsk, PlannedMachine, Scale, TaskPlan};
use crate::stream::{Ratio, Stream, narrow};

/// A switch of this seed: half of all worlds have the feature.
pub(super) fn has(stream: &mut Stream) -> bool {
    stream.chance(Ratio::new(1, 2))
}

pub(super) fn draw_warm_min(seed: u64) -> Option<u16> {
    let mut stream = Stream::new(seed, "warm");
    has(&mut stream).then(|| u16::try_from(stream.below(3)).expect("few machines"))
}

pub(super) fn draw_machines(seed: u64, scale: Scale) -> Vec<PlannedMachine> {
    let mut stream = Stream::new(seed, "machines");
    let has_liars = has(&mut stream);
    let has_attested = stream.chance(Ratio::new(1, 8));
    let count = match scale {
        Scale::Small => stream.between(1, 4),
        Scale::Large => stream.between(5, 64),
    };
    let one = |_| PlannedMachine {
        chip: u8::try_from(stream.below(3)).expect("three chips"),
        rows_max: u16::try_from(stream.between(1, 4)).expect("few rows"),
        waiting_max: stream.pick(&[1, 4, 16]),
        kv_tokens: stream.pick(&[700, 4_096, 40_000]),
        lie: if has_liars && has(&mut stream) {
            stream.pick(&Lie::ALL)
        } else {
            Lie::None
        },
        joins_at: Tick(stream.below(3_000_000)),
        is_attested: has_attested,
    };
    (0..count).map(one).collect()
}

pub(super) fn draw_tasks(seed: u64) -> TaskPlan {
    let mut stream = Stream::new(seed, "task plan");
    let stalls = [Ratio::NEVER, Ratio::new(1, 30), Ratio::new(1, 300)];
    TaskPlan {
        lag_max: Span(stream.pick(&[0, 50, 2_000, 50_000])),
        stalls: stream.pick(&stalls),
        stall_max: Span(stream.pick(&[300_000, 3_000_000])),
        inbox_max: stream.pick(&[1, 8, 16_384]),
        orders_max: stream.pick(&[1, 4, 1_024]),
    }
}

pub(super) fn draw_limits(seed: u64, machines: u32) -> Limits {
    let mut stream = Stream::new(seed, "limits");
    let is_tight = has(&mut stream);
    let tight = |narrow_to: u32, wide: u32| if is_tight { narrow_to } else { wide };
    Limits {
        providers_max: tight(machines.saturating_sub(1).max(1), 64),
        requests_max: tight(stream.pick(&[2, 8]), 4_096),
        queue_depth_max: stream.pick(&[1, 3, 256]),
        queue_wait_max: Span::secs(stream.pick(&[2, 10])),
        accept_wait_max: Span::millis(stream.pick(&[800, 4_000])),
        first_content_wait_max: Span::secs(stream.pick(&[5, 20])),
        idle_wait_max: Span::secs(stream.pick(&[5, 20])),
        attempts_max: u8::try_from(stream.between(1, 4)).expect("few"),
        capacity_refusals_max: u8::try_from(stream.between(1, 3)).expect("few"),
        challenge_fresh_max: Span::secs(stream.pick(&[20, 960])),
        candidates_max: u8::try_from(stream.between(1, 4)).expect("few"),
        second_attempt_percent: stream.pick(&[0, 0, 5, 50]),
        ..Limits::reference()
    }
}

pub(super) fn draw_asks(
    seed: u64,
    scale: Scale,
    accounts: u32,
    models: u16,
    heals_at: Tick,
) -> Vec<PlannedAsk> {
    let mut stream = Stream::new(seed, "asks");
    let has_leavers = has(&mut stream);
    let has_repeats = has(&mut stream);
    let has_slow_readers = has(&mut stream);
    let is_bursty = has(&mut stream);
    let output_tokens_most = stream.pick(&[30, 200, 900]);
    let count = match scale {
        Scale::Small => stream.between(3, 30),
        Scale::Large => stream.between(100, 400),
    };
    let mut at = 4_000_000;
    let mut asks = Vec::new();
    for _ in 0..count {
        let mean_us = heals_at.0 / count;
        at += stream.exponential(if is_bursty { mean_us / 8 } else { mean_us });
        let output_tokens_max = narrow(stream.between(1, output_tokens_most));
        asks.push(PlannedAsk {
            at: Tick(at),
            account: narrow(stream.below(u64::from(accounts))),
            model: u16::try_from(stream.below(u64::from(models))).expect("few models"),
            prompt_chars: stream.pick(&[4, 100, 1_500]),
            output_tokens_max,
            output_tokens_true: narrow(stream.between(1, u64::from(output_tokens_max) * 2)),
            leaves_after: (has_leavers && stream.chance(Ratio::new(1, 3)))
                .then(|| Span(stream.below(4_000_000))),
            repeats_after: (has_repeats && stream.chance(Ratio::new(1, 3)))
                .then(|| Span(stream.below(2_000_000))),
            reads_after: Span(if has_slow_readers && stream.chance(Ratio::new(1, 3)) {
                stream.below(1_500_000)
            } else {
                0
            }),
            is_streamed: stream.chance(Ratio::new(4, 5)),
        });
    }
    asks
}
