//! A page says what the runs say, and needs nothing but itself.

use cereus_core::coordinator::Policy;
use cereus_core::time::Span;

use super::*;
use crate::study::{Contender, Measured, Size, Smallest, rate_milli, run};
use crate::workload::Arrival;

fn page() -> Page {
    let arrivals: Vec<Arrival> = (0..400u64)
        .map(|ix| Arrival {
            after: Span::millis(ix * 600),
            prompt_tokens: 200 + u32::try_from(ix * 977 % 9_000).unwrap(),
            output_tokens: 20 + u32::try_from(ix * 331 % 400).unwrap(),
            blocks: Vec::new(),
        })
        .collect();
    let config = RunConfig {
        queue_depth_max: 8,
        ..RunConfig::reference(12)
    };
    let of = |policy, seed| {
        let config = RunConfig {
            seed,
            policy,
            ..config.clone()
        };
        run(config, &arrivals).unwrap()
    };
    let contender = |name: &str, policy| Contender {
        name: name.to_owned(),
        runs: (1..=3)
            .map(|seed| Measured::of(&of(policy, seed)))
            .collect(),
    };
    let comparison = Comparison {
        load_ppm: None,
        speedup_ppm: 1_000_000,
        rate_milli: rate_milli(&arrivals, 1_000_000),
        contenders: vec![
            contender("expected", Policy::Expected),
            contender("random <1>", Policy::Random),
        ],
    };
    Page {
        command: "cargo xtask sim report 'a & b'".to_owned(),
        trace: "trace.csv".to_owned(),
        requests: 400,
        goal_ppm: 950_000,
        runs: vec![of(Policy::Expected, 1), of(Policy::Random, 1)],
        loads: vec![comparison.clone()],
        comparison,
        capacity_milli: Some(1_234),
        sizing: Some((
            Goal {
                goodput_ppm: 950_000,
                ttft_p99_us: None,
            },
            Sizing {
                smallest: Smallest {
                    machines: Some(17),
                    tried: vec![(16, false), (17, true)],
                },
                between: Some((16, 19)),
                sizes: [(16, 940_000), (17, 951_000)]
                    .map(|(machines, mean)| Size {
                        machines,
                        goodput: Interval {
                            mean,
                            half_width: Some(12_000),
                        },
                        ttft_p99: Interval {
                            mean: 4_000_000,
                            half_width: Some(100_000),
                        },
                    })
                    .to_vec(),
            },
        )),
        config,
    }
}

#[test]
fn a_page_needs_nothing_but_itself_and_is_the_same_each_time() {
    let html = page().html();
    assert_eq!(html, page().html());
    for outside in ["http", "<script", "src=", "url(", "@import", "<link"] {
        // The tables' sources are named, not linked.
        assert!(!html.contains(outside), "{outside}");
    }
    for tag in ["figure", "svg", "table", "p", "div", "text", "h2"] {
        let opened =
            html.matches(&format!("<{tag}>")).count() + html.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, html.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(html.contains("random &lt;1&gt;") && !html.contains("random <1>"));
}

#[test]
fn a_page_says_what_the_runs_say() {
    let page = page();
    let html = page.html();
    let report = &page.runs[0].report;
    assert!(html.contains(&report.digest));
    let first = &page.comparison.contenders[0];
    let goodput = first.interval(Measure::Goodput).unwrap();
    assert!(html.contains(&format!("{} % of requests", percent(goodput.mean))));
    let verdict = Verdict::of(goodput, page.goal_ppm);
    assert_ne!(verdict, Verdict::Meets);
    let smallest = "Smallest fleet for the objective: 17 machines (16 to 19 with 95 % confidence)";
    assert!(html.contains(smallest));
    assert!(
        html.contains("95.10") && html.contains("94.00"),
        "what was tried"
    );
    for share in &page.config.fleet {
        assert!(html.contains(&share.place.to_string()));
    }
}

#[test]
fn a_verdict_is_given_where_chance_cannot_turn_it() {
    let of = |mean, half_width| Verdict::of(Interval { mean, half_width }, 950_000);
    assert_eq!(of(960_000, Some(10_000)), Verdict::Meets);
    assert_eq!(of(960_000, Some(10_001)), Verdict::Open);
    assert_eq!(of(949_000, Some(999)), Verdict::Misses);
    assert_eq!(of(1_000_000, None), Verdict::Open);
}

#[test]
fn times_are_said_as_people_say_them() {
    let said = [37, 65_300, 1_000_000, 5_040_000, 150_000_000].map(time);
    assert_eq!(said, ["37 \u{b5}s", "65.3 ms", "1 s", "5 s", "2.5 min"]);
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(grouped(12), "12");
}
