//! Which charts the page has.

use std::collections::BTreeMap;

use super::chart::{Axis, Chart, Limit, Line, Scale, Shape, Spread, spreads};
use super::{Page, milli, percent_of, time};
use crate::record::{Bucket, Part};
use crate::report::Histogram;
use crate::study::{Comparison, Measure};
use crate::world::Ran;

const PPM: u64 = 1_000_000;

fn whole_percent(ppm: u64) -> String {
    format!("{} %", (ppm + 5_000) / 10_000)
}

/// Thousandths without digits that say nothing.
fn number(value_milli: u64) -> String {
    match value_milli % 1_000 {
        0 => (value_milli / 1_000).to_string(),
        _ => milli(value_milli),
    }
}

fn row(charts: &[Chart]) -> String {
    let charts = charts.iter().map(Chart::html).collect::<String>();
    format!("<div class=\"charts\">{charts}</div>")
}

/// Shares of all requests that had their first token, or their tokens, within a time.
pub(super) fn distributions(page: &Page) -> String {
    let slo = page.config.slo;
    let ttft = distribution(
        page,
        "time to first token",
        |part| &part.ttft_us,
        slo.ttft.0,
    );
    let tpot = distribution(
        page,
        "time for each later token",
        |part| &part.tpot_us,
        slo.tpot.0,
    );
    row(&[ttft, tpot])
}

fn distribution(
    page: &Page,
    what: &'static str,
    of: fn(&Part) -> &Histogram,
    objective_us: u64,
) -> Chart {
    let parts = || page.runs.iter().map(|ran| &ran.record.all);
    let least = parts().map(|part| of(part).per_mille(1)).min().unwrap_or(1);
    let most = parts()
        .map(|part| of(part).per_mille(999))
        .max()
        .unwrap_or(1);
    let lines = (1u8..).zip(page.comparison.contenders.iter().zip(parts()));
    let lines = lines.map(|(colour, (contender, part))| {
        let share = |count: u64| count * PPM / part.asked.max(1);
        let points = of(part).cumulative();
        Line {
            name: contender.name.clone(),
            colour,
            shape: Shape::Line,
            points: points.map(|(value, count)| (value, share(count))).collect(),
        }
    });
    Chart {
        title: format!("Share of requests by {what}"),
        x: Axis {
            label: what,
            scale: Scale::Log,
            least: least.min(objective_us / 2).max(1),
            most: most.max(objective_us * 2),
            text: time,
        },
        y: Axis {
            label: "of all requests, at most",
            scale: Scale::Linear,
            least: 0,
            most: PPM,
            text: whole_percent,
        },
        lines: lines.collect(),
        limits: vec![Limit::X(
            objective_us,
            format!("objective {}", time(objective_us)),
        )],
        height: 280,
    }
}

/// Where it bends: times and goodput by the requests that come.
pub(super) fn loads(page: &Page) -> String {
    if page.loads.is_empty() {
        return "<p class=\"soft\">No other load was run.</p>".to_owned();
    }
    let most = page
        .loads
        .iter()
        .map(|load| load.rate_milli)
        .max()
        .unwrap_or(1);
    let most = most.max(page.comparison.rate_milli);
    let x = Axis {
        label: "requests a second",
        scale: Scale::Linear,
        least: 0,
        most,
        text: number,
    };
    let now = page.comparison.rate_milli;
    let mut limits = vec![Limit::X(now, "this page".to_owned())];
    if let Some(capacity) = page.capacity_milli
        && capacity.abs_diff(now) > most / 10
    {
        limits.push(Limit::X(capacity, "capacity".to_owned()));
    }
    let goodput = Chart {
        title: "Requests within the objective by load".to_owned(),
        x,
        y: Axis {
            label: "of all requests",
            scale: Scale::Linear,
            least: 0,
            most: PPM,
            text: whole_percent,
        },
        lines: load_lines(&page.loads, &[(Measure::Goodput, "")]),
        limits: [
            limits.clone(),
            vec![Limit::Y(page.goal_ppm, "goal".to_owned())],
        ]
        .concat(),
        height: 280,
    };
    let measures = [
        (Measure::TtftP50, ", the middle"),
        (Measure::TtftP99, ", 99 of 100"),
    ];
    let lines = load_lines(&page.loads, &measures);
    let values = || {
        lines
            .iter()
            .flat_map(|line| line.points.iter().map(|point| point.1))
    };
    let times = Chart {
        title: "Time to first token by load: the middle and 99 of 100".to_owned(),
        x,
        y: Axis {
            label: "time to first token of finished requests",
            scale: Scale::Log,
            least: values().min().unwrap_or(1).max(1) * 4 / 5,
            most: values().max().unwrap_or(1).max(2) * 5 / 4,
            text: time,
        },
        lines,
        limits,
        height: 280,
    };
    row(&[goodput, times])
}

fn load_lines(loads: &[Comparison], measures: &[(Measure, &str)]) -> Vec<Line> {
    let Some(first) = loads.first() else {
        return Vec::new();
    };
    let mut lines = Vec::new();
    for (ix, colour) in (0..first.contenders.len()).zip(1u8..) {
        for (measure, suffix) in measures {
            let point = |load: &Comparison| {
                let value = load.contenders[ix].median(*measure);
                (load.rate_milli, u64::try_from(value).unwrap_or(0))
            };
            lines.push(Line {
                name: format!("{}{suffix}", first.contenders[ix].name),
                colour,
                shape: Shape::Dots,
                points: loads.iter().map(point).collect(),
            });
        }
    }
    lines
}

pub(super) fn over_time(ran: &Ran) -> String {
    let series = &ran.record.series;
    let seconds = series.width.0 / 1_000_000;
    let rate = |count: fn(&Bucket) -> u64| move |bucket: &Bucket| count(bucket) * 1_000 / seconds;
    let mean = |sum: fn(&Bucket) -> u64| {
        let width = series.width.0;
        move |bucket: &Bucket| sum(bucket).saturating_mul(1_000) / width
    };
    let line = |name: &str, colour, shape, value: &dyn Fn(&Bucket) -> u64| {
        let buckets = (0u64..).zip(&series.buckets);
        let mut points: Vec<(u64, u64)> = buckets
            .map(|(ix, bucket)| (ix * seconds, value(bucket)))
            .collect();
        if let Some(&(at, last)) = points.last() {
            points.push((at + seconds, last));
        }
        Line {
            name: name.to_owned(),
            colour,
            shape,
            points,
        }
    };
    let asked = line("sent", 3, Shape::Steps, &rate(|bucket| bucket.asked));
    let good = line(
        "answered within the objective",
        1,
        Shape::Steps,
        &rate(|bucket| bucket.good),
    );
    let waiting = line(
        "waiting for a machine",
        2,
        Shape::Area,
        &mean(|bucket| bucket.waiting_us),
    );
    let serving = line(
        "on machines",
        1,
        Shape::Steps,
        &mean(|bucket| bucket.serving_us),
    );
    let rows = line("in use", 1, Shape::Area, &|bucket: &Bucket| {
        (bucket.rows * PPM)
            .checked_div(bucket.rows_max)
            .unwrap_or(0)
    });
    let refused = line(
        "refused or broken off",
        2,
        Shape::Area,
        &rate(|bucket| bucket.refused + bucket.failed),
    );
    let of = |title: &str, label, lines: Vec<Line>| time_chart(title, label, lines);
    let mut rows = of(
        "Rows in use, of those that machines compute together",
        "of all rows",
        vec![rows],
    );
    rows.y.text = percent_text;
    let mut charts = vec![
        of("Requests a second", "requests a second", vec![asked, good]),
        of(
            "Requests under way",
            "requests, on average",
            vec![waiting, serving],
        ),
        rows,
    ];
    if ran.record.all.refused + ran.record.all.failed > 0 {
        let title = "Refused or broken off, a second";
        charts.push(of(title, "requests a second", vec![refused]));
    }
    row(&charts)
}

fn percent_text(ppm: u64) -> String {
    match ppm.is_multiple_of(10_000) {
        true => whole_percent(ppm),
        false => format!("{} %", percent_of(ppm)),
    }
}

fn time_chart(title: &str, label: &'static str, lines: Vec<Line>) -> Chart {
    let points = || lines.iter().flat_map(|line| &line.points);
    let last = points().map(|point| point.0).max().unwrap_or(1);
    let most = points().map(|point| point.1).max().unwrap_or(1);
    Chart {
        title: title.to_owned(),
        x: Axis {
            label: "since the first request",
            scale: Scale::Clock,
            least: 0,
            most: last,
            text: clock,
        },
        y: Axis {
            label,
            scale: Scale::Linear,
            least: 0,
            most: most.max(1),
            text: number,
        },
        lines,
        limits: Vec::new(),
        height: 220,
    }
}

/// Seconds as minutes and seconds, or hours and minutes.
fn clock(seconds: u64) -> String {
    match seconds {
        0..3_600 => format!("{}:{:02}", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3_600, seconds / 60 % 60),
    }
}

/// How much of their time machines work, by their kind.
pub(super) fn machines(ran: &Ran) -> String {
    let span_us = ran.report.simulated_us.max(1);
    let mut kinds: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for machine in &ran.record.machines {
        let busy_ppm = u64::try_from(u128::from(machine.busy_ns) * 1_000 / u128::from(span_us));
        kinds
            .entry(&machine.kind)
            .or_default()
            .push(busy_ppm.unwrap_or(u64::MAX).min(PPM));
    }
    let rows = kinds.into_iter().map(|(kind, mut values)| {
        values.sort_unstable();
        Spread {
            name: format!("{} x {kind}", values.len()),
            values,
        }
    });
    let rows: Vec<Spread> = rows.collect();
    let axis = Axis {
        label: "of their time with something to compute: range, middle half and middle",
        scale: Scale::Linear,
        least: 0,
        most: PPM,
        text: whole_percent,
    };
    spreads("Time in use by kind of machine", &axis, &rows)
}
