//! Everything that one seed decides before its world begins.

use cereus_core::config::{Catalog, Config, Limits, ModelSpec};
use cereus_core::draw::Seed;
use cereus_core::event::Trust;
use cereus_core::money::Price;
use cereus_core::time::{Span, Tick};

use crate::stream::{Ratio, Stream, narrow};

/// A request has eight attempts: with more liars than this the first requests could spend them all.
const LIARS_MAX: u64 = 6;
/// Requests of one world.
const ASKS: u32 = 800;
pub(super) const CONSUMERS: u32 = 5;
pub(super) const PROMPT_BYTES: [u32; 4] = [40, 400, 3_000, 9_000];

const LOAD_PERCENT_MAX: u64 = 50;
const PAUSE_MAX: Span = Span::secs(5);

/// How a machine lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lie {
    /// Takes work and says that it does not have the model.
    Absent,
    /// Takes work and fails.
    Breaks,
    /// Shows the first words and fails.
    BreaksOff,
    /// Calls every request wrong.
    ClientError,
    /// Claims any speed, and is slow.
    ClaimsSpeed,
    /// A word every few seconds.
    Drip,
    /// Answers without a word, and claims a billion tokens or none.
    Empty,
    /// Takes work and goes.
    HangsUp,
    /// A lie of another kind each time.
    Mixed,
    /// Claims a token for each byte, which is true of some text.
    CountsBytes,
    /// Claims many times what it showed.
    OverClaim,
    /// Goes on beyond the bound.
    OverRun,
    /// Answers in the clear.
    Plaintext,
    /// Has no room, whatever it reports.
    Refuses,
    /// Repeats what an honest machine said when it registered, and speaks of others' attempts.
    Replays,
    /// Says nothing at all.
    Silence,
    /// Accepts and says nothing more.
    SilenceAccepted,
}

impl Lie {
    pub const ALL: [Self; 17] = [
        Self::Absent,
        Self::Breaks,
        Self::BreaksOff,
        Self::ClientError,
        Self::ClaimsSpeed,
        Self::CountsBytes,
        Self::Drip,
        Self::Empty,
        Self::HangsUp,
        Self::Mixed,
        Self::OverClaim,
        Self::OverRun,
        Self::Plaintext,
        Self::Refuses,
        Self::Replays,
        Self::Silence,
        Self::SilenceAccepted,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Breaks => "breaks",
            Self::BreaksOff => "breaks-off",
            Self::ClientError => "client-error",
            Self::ClaimsSpeed => "claims-speed",
            Self::CountsBytes => "counts-bytes",
            Self::Drip => "drip",
            Self::Empty => "empty",
            Self::HangsUp => "hangs-up",
            Self::Mixed => "mixed",
            Self::OverClaim => "over-claim",
            Self::OverRun => "over-run",
            Self::Plaintext => "plaintext",
            Self::Refuses => "refuses",
            Self::Replays => "replays",
            Self::Silence => "silence",
            Self::SilenceAccepted => "silence-accepted",
        }
    }

    /// It serves, and late: where all others are at work that may still be the soonest.
    pub(super) const fn is_slow(self) -> bool {
        matches!(self, Self::ClaimsSpeed | Self::Drip)
    }

    /// What a machine that lies in many ways draws from: all that one attempt can hold.
    pub(super) fn single() -> Vec<Self> {
        let is_single = |lie: &Self| !matches!(lie, Self::Mixed | Self::Replays);
        Self::ALL.into_iter().filter(is_single).collect()
    }
}

/// How a machine that lies does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Liar {
    pub lie: Lie,
    /// What it says of its speed, as a multiple of the truth. Above one it claims other things too.
    pub claims_factor: u32,
    /// It comes back on a new connection after so many attempts.
    pub reconnects_after: Option<u32>,
    /// Reports all the time, so that what fades from report to report fades soon.
    pub reports_often: bool,
    /// Serves as it should each so many attempts.
    pub serves_each: Option<u32>,
}

/// One machine of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedMachine {
    pub owner: u64,
    pub rows: u16,
    pub decode_mtps: u32,
    pub prefill_mtps: u32,
    pub joins_at: Tick,
    pub liar: Option<Liar>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    pub machines: Vec<PlannedMachine>,
    pub asks: u32,
    pub mean_between: Span,
    pub latency: Span,
    /// True thousandths of a byte for each token, and tokens that the template adds.
    pub text_milli: u32,
    /// The same for one consumer whose text is of another kind: digits, emoji, a rare script.
    pub unusual_milli: Option<u32>,
    pub template: u32,
    pub output_tokens_most: u32,
    /// Parts of the reports in which an honest machine has work that is not ours.
    pub foreign: Ratio,
    /// Connections of honest machines that are lost, each with its machine.
    pub flaps: Vec<(Tick, usize)>,
}

impl Plan {
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let mut shape = Stream::new(seed, "liars' world");
        let liars = shape.between(1, LIARS_MAX);
        let honest = liars * 2 + shape.below(5);
        let mut machines = draw_honest(seed, honest);
        machines.extend(draw_liars(seed, liars));
        let output_tokens_most = shape.pick(&[30, 90, 250]);
        let mean_between = pause(&mut shape, &machines, output_tokens_most);
        let end_us = mean_between.0 * u64::from(ASKS);
        let flaps = (0..shape.below(4))
            .map(|_| {
                let at = Tick(shape.between(20_000_000, 20_000_000 + end_us));
                let machine = usize::try_from(shape.below(honest)).expect("few machines");
                (at, machine)
            })
            .collect();
        Self {
            seed,
            machines,
            asks: ASKS,
            mean_between,
            latency: Span(shape.pick(&[1_000, 15_000, 60_000])),
            text_milli: narrow(shape.between(2_600, 4_700)),
            unusual_milli: shape
                .chance(Ratio::new(1, 2))
                .then(|| narrow(shape.between(1_000, 2_500))),
            template: narrow(shape.between(4, 40)),
            output_tokens_most,
            foreign: shape.pick(&[Ratio::NEVER, Ratio::new(1, 20), Ratio::new(1, 4)]),
            flaps,
        }
    }

    /// The same world with all its liars of this kind.
    #[must_use]
    pub fn only(seed: u64, lie: Lie) -> Self {
        let mut plan = Self::draw(seed);
        for machine in &mut plan.machines {
            if let Some(liar) = &mut machine.liar {
                liar.lie = lie;
                liar.serves_each = None;
            }
        }
        plan
    }

    /// What owners learn of the text, where the unusual consumer may for a while have asked twice as
    /// often as its share.
    pub(super) fn text_milli_learnt(&self) -> u32 {
        let unusual = self.unusual_milli.unwrap_or(self.text_milli);
        (self.text_milli * (CONSUMERS - 2) + unusual * 2) / CONSUMERS
    }

    /// And of the template, for which its short prompts are mistaken.
    pub(super) fn template_learnt(&self) -> u32 {
        let mistaken = self.unusual_milli.map_or(0, |_| PROMPT_BYTES[0]);
        self.template + mistaken * 2 / CONSUMERS
    }

    pub(super) fn core(&self) -> Config {
        let spec = ModelSpec {
            id: "model".into(),
            price: Price::DEFAULT,
            context_tokens: 32_768,
            output_tokens_default: 64,
            weights_bytes: 1_000_000_000,
        };
        let catalog = Catalog::new(vec![spec]).expect("one name");
        let limits = Limits {
            providers_max: 64,
            requests_max: 4_096,
            // What is told that it would wait for too long has been refused by no machine.
            overload_after: Span::secs(86_400),
            // Its machines have as much room as they say, so that it is known who could have been asked.
            pace_min_mtps: 0,
            ..Limits::reference()
        };
        Config {
            epoch: cereus_core::ids::Epoch(0),
            seed: Seed::from_number(self.seed),
            catalog,
            limits,
            fee_percent: 10,
            trust_min: Trust::None,
        }
    }
}

/// Time between two arrivals, such that the honest machines alone have room. A bar ends by the clock:
/// in a fleet that is asked more rarely, one try in ten minutes is a larger share than is judged here.
fn pause(shape: &mut Stream, machines: &[PlannedMachine], output_tokens_most: u32) -> Span {
    let load_percent = shape.pick(&[5, 25, LOAD_PERCENT_MAX]);
    let answer_mtok = u64::from(output_tokens_most) * 1_000 / 2;
    // Each row at twice the step of one that is alone.
    let honest = machines.iter().filter(|machine| machine.liar.is_none());
    let rows_mtps: u64 = honest
        .map(|machine| u64::from(machine.rows) * u64::from(machine.decode_mtps) / 3)
        .sum();
    let at_load_us = |percent| answer_mtok * 1_000 * 100_000 / (rows_mtps * percent);
    let least_us = at_load_us(LOAD_PERCENT_MAX);
    let wanted_us = at_load_us(load_percent).min(PAUSE_MAX.0);
    let drawn_us = shape.pick(&[100_000, 400_000, 1_200_000, 2_500_000]);
    Span(least_us.max(wanted_us).max(drawn_us))
}

fn draw_honest(seed: u64, count: u64) -> Vec<PlannedMachine> {
    let mut stream = Stream::new(seed, "honest machines");
    let one = |number| PlannedMachine {
        owner: 100 + number,
        rows: u16::try_from(stream.between(2, 8)).expect("few rows"),
        decode_mtps: narrow(stream.between(20_000, 90_000)),
        prefill_mtps: narrow(stream.between(400_000, 3_000_000)),
        joins_at: Tick(stream.between(100_000, 3_000_000)),
        liar: None,
    };
    (0..count).map(one).collect()
}

fn draw_liars(seed: u64, count: u64) -> Vec<PlannedMachine> {
    let mut stream = Stream::new(seed, "lying machines");
    let is_ring = stream.chance(Ratio::new(1, 3));
    let one = |number| {
        let liar = Liar {
            lie: stream.pick(&Lie::ALL),
            claims_factor: stream.pick(&[1, 1, 4, 40]),
            reconnects_after: stream
                .chance(Ratio::new(1, 2))
                .then(|| narrow(stream.between(1, 5))),
            reports_often: stream.chance(Ratio::new(1, 8)),
            // Several that serve in between could agree on each lie.
            serves_each: (count == 1 && stream.chance(Ratio::new(1, 2)))
                .then(|| narrow(stream.between(2, 4))),
        };
        PlannedMachine {
            owner: if is_ring { 999 } else { 1_000 + number },
            rows: 24,
            decode_mtps: narrow(stream.between(20_000, 90_000)),
            prefill_mtps: narrow(stream.between(400_000, 3_000_000)),
            joins_at: Tick(stream.between(100_000, 6_000_000)),
            liar: Some(liar),
        }
    };
    (0..count).map(one).collect()
}
