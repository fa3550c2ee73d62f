//! The page's tables.

use std::collections::BTreeMap;

use super::chart::escaped;
use super::{Page, grouped, milli, percent, percent_of, time};
use crate::record::{LENGTHS, Part};
use crate::report::Histogram;
use crate::study::{Contender, Goal, Interval, Measure, Sizing, Unit};
use crate::world::Ran;

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let heads = heads
        .iter()
        .map(|head| format!("<th>{}</th>", escaped(head)));
    let rows = rows.map(|row| {
        let cells = row.iter().map(|cell| format!("<td>{cell}</td>"));
        format!("<tr>{}</tr>", cells.collect::<String>())
    });
    format!(
        "<div class=\"wide\"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>",
        heads.collect::<String>(),
        rows.collect::<String>()
    )
}

/// Names and what they are.
fn facts(rows: &[(&str, String)]) -> String {
    let rows = rows
        .iter()
        .map(|(name, value)| format!("<tr><td>{name}</td><td>{value}</td></tr>"));
    format!(
        "<table class=\"facts\"><tbody>{}</tbody></table>",
        rows.collect::<String>()
    )
}

/// Time at a share of those that have one.
fn at(histogram: &Histogram, per_mille: u32) -> String {
    match histogram.count() {
        0 => "none".to_owned(),
        _ => time(histogram.per_mille(per_mille)),
    }
}

/// What ours has more or less than the other, with the interval.
pub(super) fn differences(ours: &Contender, other: &Contender) -> String {
    let rows = Measure::ALL.into_iter().map(|measure| {
        let unit = measure.unit();
        let [what, of] = measure.title();
        let less = ours.less(other, measure);
        let mean = less.map_or_else(String::new, |less| unit.signed(less.mean));
        let half = less.and_then(|less| less.half_width);
        let half = half.map_or_else(|| "?".to_owned(), |half| unit.text(half));
        let (class, sure) = match less {
            Some(less) if less.is_sure() && is_better(measure, less.mean) => ("better", "better"),
            Some(less) if less.is_sure() => ("worse", "worse"),
            Some(_) | None => ("soft", "may be chance"),
        };
        vec![
            format!("{what} {of}"),
            unit.text(ours.median(measure)),
            unit.text(other.median(measure)),
            format!("{mean} &plusmn; {half}"),
            format!("<span class=\"{class}\">{sure}</span>"),
        ]
    });
    let heads = [
        "",
        &ours.name,
        &other.name,
        "difference, paired by seed",
        "",
    ];
    format!(
        "<h2>{} against {}</h2><p class=\"soft\">Medians over the seeds; the mean of the differences at \
         each seed with its 95 % interval.</p>{}",
        escaped(&ours.name),
        escaped(&other.name),
        table(&heads, rows)
    )
}

const fn is_better(measure: Measure, difference: i64) -> bool {
    match measure {
        Measure::TtftP50
        | Measure::TtftP90
        | Measure::TtftP99
        | Measure::TpotP99
        | Measure::Refused
        | Measure::Busiest => difference < 0,
        Measure::Goodput | Measure::LeastServed | Measure::PrefixHits => difference > 0,
    }
}

/// What a sweep tried.
pub(super) fn sizes(goal: Goal, sizing: &Sizing) -> String {
    let with_half = |unit: Unit, interval: Interval| {
        let half = interval.half_width;
        let half = half.map_or_else(|| "?".to_owned(), |half| unit.text(half));
        format!("{} &plusmn; {half}", unit.text(interval.mean))
    };
    let rows = sizing.sizes.iter().map(|size| {
        let (class, says) = match goal.is_met(size) {
            true => ("better", "good enough"),
            false => ("worse", "not good enough"),
        };
        vec![
            size.machines.to_string(),
            with_half(Unit::Ppm, size.goodput),
            with_half(Unit::Micros, size.ttft_p99),
            format!("<span class=\"{class}\">{says}</span>"),
        ]
    });
    let heads = ["machines", "within the objective, %", "TTFT p99, ms", ""];
    format!(
        "<p class=\"soft\">All sizes that were tried, means over the seeds with their 95 % intervals. A \
         fleet may be the smallest that is good enough where its interval reaches the goal, and surely is \
         good enough where all of its interval does.</p>{}",
        table(&heads, rows)
    )
}

pub(super) fn fairness(ran: &Ran) -> String {
    let fairness = ran.record.fairness();
    format!(
        "<p>The busiest machine works {} times as long as the mean of its kind. The machine with the fewest \
         requests has {} % of those of the one with the most.</p>",
        Unit::Milli.text(i64::try_from(fairness.busiest_milli).unwrap_or(i64::MAX)),
        percent_of(fairness.least_ppm)
    )
}

pub(super) fn kinds(ran: &Ran) -> String {
    let mut machines: BTreeMap<&str, (u64, u64, u128)> = BTreeMap::new();
    for machine in &ran.record.machines {
        let (count, attempts, busy_ns) = machines.entry(&machine.kind).or_default();
        *count += 1;
        *attempts += machine.attempts;
        *busy_ns += u128::from(machine.busy_ns);
    }
    let nobody = Part::default();
    let rows = machines
        .into_iter()
        .map(|(kind, (count, attempts, busy_ns))| {
            let part = ran.record.by_kind.get(kind).unwrap_or(&nobody);
            let span_ns = u128::from(ran.report.simulated_us.max(1)) * 1_000 * u128::from(count);
            let busy_ppm = u64::try_from(busy_ns * 1_000_000 / span_ns).unwrap_or(u64::MAX);
            let good_ppm = (part.good * 1_000_000).checked_div(part.finished);
            vec![
                escaped(kind),
                count.to_string(),
                grouped(part.finished),
                milli(attempts * 1_000 / count),
                format!("{} %", percent_of(busy_ppm)),
                at(&part.ttft_us, 500),
                at(&part.ttft_us, 990),
                at(&part.tpot_us, 990),
                good_ppm.map_or_else(|| "none".to_owned(), |ppm| format!("{} %", percent_of(ppm))),
            ]
        });
    let heads = [
        "chip / GB",
        "machines",
        "answers",
        "requests each",
        "time in use",
        "TTFT p50",
        "TTFT p99",
        "TPOT p99",
        "within the objective",
    ];
    table(&heads, rows)
}

pub(super) fn lengths(ran: &Ran) -> String {
    let rows = LENGTHS
        .iter()
        .zip(&ran.record.by_length)
        .map(|((_, name), part)| {
            vec![
                (*name).to_owned(),
                grouped(part.asked),
                grouped(part.refused + part.failed),
                at(&part.ttft_us, 500),
                at(&part.ttft_us, 990),
                at(&part.tpot_us, 990),
                match part.asked {
                    0 => "none".to_owned(),
                    _ => format!("{} %", percent_of(part.goodput_ppm())),
                },
            ]
        });
    let heads = [
        "prompt tokens",
        "requests",
        "without an answer",
        "TTFT p50",
        "TTFT p99",
        "TPOT p99",
        "within the objective",
    ];
    table(&heads, rows)
}

pub(super) fn refusals(page: &Page) -> String {
    let rows = page.comparison.contenders.iter().flat_map(|contender| {
        let refusals = contender.refusals().into_iter();
        refusals
            .map(|(code, count)| vec![escaped(&contender.name), code.to_owned(), grouped(count)])
    });
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return "<p>None, at any seed.</p>".to_owned();
    }
    table(&["policy", "code", "requests, over all seeds"], rows)
}

pub(super) fn money(ran: &Ran) -> String {
    let money = &ran.report.money;
    let usd = |micros: i64| format!("{} USD", Unit::Milli.text(micros / 1_000));
    facts(&[
        ("consumers paid", usd(money.deposited - money.consumers)),
        ("machines' owners earned", usd(money.providers)),
        ("the platform kept", usd(money.platform)),
        ("still held", usd(money.held)),
        ("sum of all accounts", format!("{} micro-USD", money.sum)),
    ])
}

pub(super) fn origin(page: &Page) -> String {
    let config = &page.config;
    let hardware = &config.hardware;
    let mut chips: BTreeMap<&str, &str> = BTreeMap::new();
    for share in &config.fleet {
        let chip = hardware
            .chips()
            .iter()
            .find(|chip| chip.name == share.place.chip);
        if let Some(chip) = chip {
            chips.insert(&chip.name, &chip.source);
        }
    }
    let models = config.models.iter().map(|share| {
        let facts = &share.facts;
        format!("{}: {}", escaped(&facts.name), escaped(&facts.source))
    });
    let chips = chips
        .iter()
        .map(|(name, source)| format!("{}: {}", escaped(name), escaped(source)));
    let first = &page.comparison.contenders[0];
    let seeds: Vec<String> = first.runs.iter().map(|run| run.seed.to_string()).collect();
    let digests = page.comparison.contenders.iter().flat_map(|contender| {
        let runs = contender.runs.iter();
        runs.map(|run| format!("{} {}: {}", escaped(&contender.name), run.seed, run.digest))
    });
    let code = |text: &str| format!("<code>{text}</code>");
    let kept = i64::try_from(page.goal_ppm).unwrap_or(i64::MAX);
    facts(&[
        ("command", code(&escaped(&page.command))),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("seeds", seeds.join(", ")),
        (
            "goal",
            format!("{} % of requests within the objective", percent(kept)),
        ),
        (
            "what the coordinator is told",
            escaped(&format!("{:?}", config.knowledge).to_lowercase()),
        ),
        ("rows of a machine", config.rows_max.to_string()),
        ("models", models.collect::<Vec<_>>().join("<br>")),
        ("chips", chips.collect::<Vec<_>>().join("<br>")),
        ("digests", code(&digests.collect::<Vec<_>>().join("<br>"))),
    ])
}
