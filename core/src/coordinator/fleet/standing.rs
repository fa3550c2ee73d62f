//! What a machine's conduct is worth: the faults that it has not made good, the bar that they bring,
//! by how much it is later than its own figures say, and how many times as slow. It belongs to the machine
//! and not to a connection (INV-13).

use serde::{Deserialize, Serialize};

use crate::time::{Span, Tick};

/// Faults that were not made good, from which on each further one bars the machine.
pub(crate) const FAULTS_TO_BAR: u8 = 3;
/// Good answers in a row that make one fault good: who fails as often as it serves never gets there.
const GOOD_FOR_FAULT: u8 = 4;
/// More are not counted, so that a machine that was repaired can work itself out of its past.
const FAULTS_MAX: u8 = 8;
const BAR: Span = Span::secs(30);
const BAR_MAX: Span = Span::secs(600);
/// What networks take, and a step that is under way: no forecast counts it, and no machine is late
/// because of it.
const LATE_ALLOWED: Span = Span::millis(250);
/// No single answer counts for more.
const LATE_MAX_US: u64 = 60_000_000;
/// The newest answer weighs one quarter.
const LATE_SHIFT: u32 = 2;
/// A sixteenth is forgotten with each report, so that who was slow once is tried again: half in
/// about a minute.
const LATE_FADE_SHIFT: u32 = 4;
/// Lateness that is worth remembering, and at least so much later than reports come fades it once.
const LATE_WORTH_US: u32 = 2_000_000;
const LATE_FADE_EVERY: Span = Span::secs(4);
/// Who is that late again and again is forgotten more slowly: each such answer counts two, each other
/// takes one away, and each two of the count double the time. At most to half in half an hour.
const LATE_AGAIN: u8 = 2;
const LATE_AGAIN_MAX: u8 = 10;
/// Up to twice what its figures say is explained by what else it does; from there on they count times as
/// much. In thousandths, and no single answer counts for more.
const SLOW_MILLI_NONE: u32 = 1_000;
const SLOW_MILLI_MAX: u64 = 64_000;
/// What a refusal counts; each answer that begins takes one away. So a machine that is honest about
/// its room, and now and then a report behind, never comes far.
const REFUSAL: u8 = 2;
/// From here on each refusal is a fault.
const REFUSALS_BORNE: u8 = 16;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Standing {
    faults: u8,
    /// Good answers since the last fault, or since they made one good.
    good: u8,
    /// `Tick::ZERO` while there is no bar.
    barred_until: Tick,
    /// By how much its answers come later than what it says of its speed lets expect.
    late_us: u32,
    late_again: u8,
    /// How many times as slow it is, in thousandths.
    slow_milli: u32,
    faded_at: Tick,
    refusals: u8,
    refused_at: Tick,
    /// It has served a request since it last spoke against one.
    is_credible: bool,
}

impl Default for Standing {
    fn default() -> Self {
        Self {
            faults: 0,
            good: 0,
            barred_until: Tick::ZERO,
            late_us: 0,
            late_again: 0,
            slow_milli: SLOW_MILLI_NONE,
            faded_at: Tick::ZERO,
            refusals: 0,
            refused_at: Tick::ZERO,
            is_credible: false,
        }
    }
}

/// How much a machine refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusing {
    NowAndThen,
    /// More than any machine whose reports are true.
    Steadily,
}

/// Whether an answer that has taken `actual` is as late as is worth remembering.
pub(super) fn is_late(expected: Span, actual: Span) -> bool {
    late_us(expected, actual) >= u64::from(LATE_WORTH_US)
}

fn late_us(expected: Span, actual: Span) -> u64 {
    let allowed = expected.0.saturating_add(LATE_ALLOWED.0);
    actual.0.saturating_sub(allowed).min(LATE_MAX_US)
}

impl Standing {
    /// It failed through a fault of its own, which brings it at least to so many. Each fault beyond
    /// the third doubles the bar.
    pub(super) fn fault(&mut self, now: Tick, faults_min: u8) {
        self.faults = (self.faults + 1).max(faults_min).min(FAULTS_MAX);
        self.good = 0;
        if self.faults < FAULTS_TO_BAR {
            return;
        }
        let doublings = u32::from(self.faults - FAULTS_TO_BAR);
        self.barred_until = now + Span((BAR.0 << doublings).min(BAR_MAX.0));
    }

    /// It did what it was asked: a bar ends, and a few in a row make one fault good.
    pub(super) fn success(&mut self) {
        self.good += 1;
        if self.good >= GOOD_FOR_FAULT {
            self.good = 0;
            self.faults = self.faults.saturating_sub(1);
        }
        self.barred_until = Tick::ZERO;
        self.is_credible = true;
    }

    /// It had no room, or not the model, for what was sent at `sent_at`. What was under way when it
    /// refused something else says nothing new.
    pub(super) fn refuses(&mut self, now: Tick, sent_at: Tick) -> Refusing {
        if sent_at < self.refused_at {
            return Refusing::NowAndThen;
        }
        self.refused_at = now;
        let is_steady = self.refusals >= REFUSALS_BORNE;
        self.refusals = (self.refusals + REFUSAL).min(REFUSALS_BORNE + REFUSAL);
        match is_steady {
            true => Refusing::Steadily,
            false => Refusing::NowAndThen,
        }
    }

    /// It spoke against a request. One machine's word is worth what it has served since its last.
    pub(super) fn speaks_against(&mut self) {
        self.is_credible = false;
    }

    /// Ends a bar whose time is up.
    pub(super) fn serve(&mut self, now: Tick) {
        if self.barred_until <= now {
            self.barred_until = Tick::ZERO;
        }
    }

    /// When the bar ends, if there is one.
    pub(crate) fn barred_until(self) -> Option<Tick> {
        (self.barred_until > Tick::ZERO).then_some(self.barred_until)
    }

    /// First content took `actual` where its machine's own figures let expect `expected`.
    pub(super) fn took(&mut self, expected: Span, actual: Span) {
        self.slows(Span(expected.0.saturating_mul(2)), actual);
        self.comes(expected, actual);
    }

    /// The rest of an answer took `actual` where twice what its machine says of itself is `twice`.
    pub(super) fn streamed(&mut self, twice: Span, actual: Span) {
        self.slows(twice, actual);
        self.comes(twice, actual);
    }

    fn slows(&mut self, twice: Span, actual: Span) {
        let allowed = twice.0.saturating_add(LATE_ALLOWED.0);
        let ratio_milli = u128::from(actual.0) * u128::from(SLOW_MILLI_NONE) / u128::from(allowed);
        let ratio_milli = u64::try_from(ratio_milli).unwrap_or(u64::MAX);
        let ratio_milli = ratio_milli.clamp(SLOW_MILLI_NONE.into(), SLOW_MILLI_MAX);
        let old = u64::from(self.slow_milli);
        let new = old - (old >> LATE_SHIFT) + (ratio_milli >> LATE_SHIFT);
        let new = new.max(SLOW_MILLI_NONE.into());
        self.slow_milli = u32::try_from(new).expect("at most the greatest ratio");
    }

    fn comes(&mut self, expected: Span, actual: Span) {
        let late_us = late_us(expected, actual);
        let old_us = u64::from(self.late_us);
        let new_us = old_us - (old_us >> LATE_SHIFT) + (late_us >> LATE_SHIFT);
        self.late_us = u32::try_from(new_us).expect("at most a minute");
        self.late_again = if late_us >= u64::from(LATE_WORTH_US) {
            (self.late_again + LATE_AGAIN).min(LATE_AGAIN_MAX)
        } else {
            self.late_again.saturating_sub(1)
        };
    }

    /// An answer has begun.
    pub(super) fn begins(&mut self) {
        self.refusals = self.refusals.saturating_sub(1);
    }

    /// Time passes: from report to report what was measured counts less, however often it reports.
    pub(super) fn fade(&mut self, now: Tick) {
        if now.since(self.faded_at) < LATE_FADE_EVERY {
            return;
        }
        self.faded_at = now;
        let shift = LATE_FADE_SHIFT + u32::from(self.late_again / 2);
        self.late_us -= self.late_us.div_ceil(1 << shift);
        self.slow_milli -= (self.slow_milli - SLOW_MILLI_NONE).div_ceil(1 << shift);
    }

    pub(super) fn slow_milli(self) -> u32 {
        self.slow_milli
    }

    pub(super) fn late_us(self) -> u32 {
        self.late_us
    }

    pub(super) fn is_credible(self) -> bool {
        self.is_credible && self.faults == 0
    }

    pub(super) fn has_faults(self) -> bool {
        self.faults > 0
    }

    /// It has as many faults as bar a machine, and has not made them good.
    pub(super) fn is_notorious(self) -> bool {
        self.faults >= FAULTS_TO_BAR
    }

    /// It was barred, and has not shown since that it can do what it is asked.
    pub(super) fn is_on_probation(self) -> bool {
        self.is_notorious() && self.barred_until == Tick::ZERO
    }

    /// Nothing that would have to be remembered.
    pub(super) fn is_spotless(self) -> bool {
        let is_punctual = self.late_us < LATE_WORTH_US
            && self.late_again == 0
            && self.slow_milli < 2 * SLOW_MILLI_NONE;
        self.faults == 0 && is_punctual && self.refusals == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_doubles_with_each_fault_and_stays_bounded() {
        let mut standing = Standing::default();
        let now = Tick(1_000_000);
        let mut bars = Vec::new();
        for _ in 0..10 {
            standing.fault(now, 1);
            bars.push(standing.barred_until().map(|until| until.since(now)));
        }
        let secs = |s| Some(Span::secs(s));
        assert_eq!(bars[..2], [None, None]);
        assert_eq!(bars[2..7], [30, 60, 120, 240, 480].map(secs));
        assert_eq!(bars[7..], [secs(600); 3]);
    }

    #[test]
    fn what_was_measured_counts_beside_what_is_claimed_and_fades() {
        let mut standing = Standing::default();
        let claimed = Span::millis(100);
        standing.took(claimed, Span::millis(340));
        assert_eq!(standing.late_us(), 0, "a network takes its time");
        for _ in 0..20 {
            standing.took(claimed, Span::millis(2_350));
        }
        assert!((1_900_000..=2_000_000).contains(&standing.late_us()));
        let mut now = Tick(1);
        let half = standing.late_us() / 2;
        for _ in 0..200 {
            now = now + Span::millis(10);
            standing.fade(now);
        }
        assert!(standing.late_us() > half, "not by reporting often");
        for _ in 0..8_000 {
            now = now + Span::secs(5);
            standing.fade(now);
        }
        assert_eq!(standing.late_us(), 0, "it is tried again");
    }

    /// Seconds until half of what was measured is forgotten.
    fn half_life(mut standing: Standing) -> u64 {
        let half = standing.late_us() / 2;
        let mut now = Tick(1);
        while standing.late_us() > half {
            now = now + Span::secs(5);
            standing.fade(now);
        }
        now.0 / 1_000_000
    }

    #[test]
    fn who_is_late_again_and_again_is_remembered_for_longer_and_who_was_once_is_not() {
        let claimed = Span::millis(100);
        let mut once = Standing::default();
        once.took(claimed, Span::secs(30));
        once.took(claimed, claimed);
        assert!(half_life(once) < 120);
        let mut often = Standing::default();
        for _ in 0..12 {
            // Its first words are in time, and the rest drips.
            often.took(claimed, claimed);
            often.took(claimed, Span::secs(30));
        }
        assert!(half_life(often) > 1_000);
        for _ in 0..10 {
            often.took(claimed, claimed);
        }
        assert!(half_life(often) < 120, "it has made that good");
    }

    /// Refusals until one is a fault, of a machine that begins so many answers after each.
    fn refusals_borne(answers_between: u32) -> Option<u32> {
        let mut standing = Standing::default();
        let mut now = Tick(1);
        (1..200).find(|_| {
            let sent_at = now;
            now = now + Span::secs(3);
            let refusing = standing.refuses(now, sent_at);
            (0..answers_between).for_each(|_| standing.begins());
            refusing == Refusing::Steadily
        })
    }

    #[test]
    fn who_refuses_steadily_is_told_from_who_is_a_report_behind() {
        assert_eq!(refusals_borne(0), Some(9));
        assert_eq!(refusals_borne(1), Some(17), "half of what it is sent");
        assert_eq!(refusals_borne(2), None);
    }

    #[test]
    fn refusals_of_one_moment_are_one() {
        let mut standing = Standing::default();
        for _ in 0..40 {
            let refusing = standing.refuses(Tick(9), Tick(5));
            assert_eq!(refusing, Refusing::NowAndThen);
        }
    }

    #[test]
    fn a_success_ends_the_bar_and_a_few_in_a_row_make_one_fault_good() {
        let mut standing = Standing::default();
        for _ in 0..4 {
            standing.fault(Tick(1), 1);
        }
        standing.success();
        assert_eq!(standing.barred_until(), None);
        assert!(standing.is_on_probation(), "four are still open");
        for _ in 1..2 * GOOD_FOR_FAULT {
            standing.success();
        }
        assert!(!standing.is_on_probation(), "two are");
        for _ in 0..2 * GOOD_FOR_FAULT {
            standing.success();
        }
        assert!(standing.is_spotless());
    }

    #[test]
    fn who_fails_as_often_as_it_serves_is_barred_for_ever_longer() {
        let mut standing = Standing::default();
        for _ in 0..FAULTS_MAX {
            standing.fault(Tick(1), 1);
            let until = standing.barred_until();
            standing.success();
            assert_eq!(until.is_some(), standing.faults >= FAULTS_TO_BAR);
        }
        assert_eq!(standing.faults, FAULTS_MAX);
    }
}
