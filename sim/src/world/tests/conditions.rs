//! Machines that are hot, worn or not what they say.

use super::super::config::parse_fleet;
use super::super::defects::{Defect, Defects};
use super::super::heat::Heat;
use super::*;

/// Four machines that always have something to do.
fn pressed(seed: u64) -> (RunConfig, Vec<Arrival>) {
    (tight(seed), arrivals(seed, 400, 1_400_000))
}

#[test]
fn a_fleet_that_gets_hot_is_slower_and_says_so() {
    let (config, arrivals) = pressed(2);
    let cool = report(&config, &arrivals);
    let warm = RunConfig {
        heat: Heat::Home,
        ..config
    };
    let hot = report(&warm, &arrivals);
    let heat = hot.living.heat.unwrap();
    assert!(heat.fair > 20 && heat.serious > 100, "{heat:?}");
    assert!(hot.tpot.mean_us > cool.tpot.mean_us * 105 / 100);
    assert!(hot.finished <= cool.finished);
    let stepping = RunConfig {
        pace: Pace::Step,
        ..warm
    };
    let mut step = report(&stepping, &arrivals);
    step.work.step_events = hot.work.step_events;
    assert_eq!(hot, step);
}

fn with(defect: Defect) -> Report {
    let config = RunConfig {
        defects: vec![Defects { count: 1, defect }],
        seed: 3,
        // Alike, so that only the defect sets one apart.
        fleet: parse_fleet("m4-max/64").unwrap(),
        ..RunConfig::reference(8)
    };
    report(&config, &arrivals(3, 500, 3_000_000))
}

#[test]
fn a_machine_that_degrades_gets_less_than_its_share() {
    let after = Span::secs(60);
    let slow = with(Defect::Degrades { percent: 10, after });
    let same = with(Defect::Degrades {
        percent: 100,
        after,
    });
    let jobs = |report: &Report| report.living.defects.unwrap().to_degraded;
    assert!(jobs(&slow) * 2 < jobs(&same), "{}", jobs(&slow));
    assert!(slow.latency.mean_us > same.latency.mean_us);
}

/// N4: whatever its reports claim, it gets few probes.
#[test]
fn a_machine_that_refuses_everything_gets_few_probes() {
    let report = with(Defect::Refuses);
    let probes = report.living.defects.unwrap().to_refusers;
    assert_eq!(report.finished, 500, "the others serve all");
    let minutes = report.simulated_us / 60_000_000;
    assert!(minutes >= 20);
    assert!(
        probes >= 1 && probes <= minutes * 3,
        "{probes} in {minutes}"
    );
}

#[test]
fn a_claim_of_speed_attracts_work_until_it_was_measured() {
    let boast = with(Defect::Boasts { percent: 1_000 });
    let true_claim = with(Defect::Boasts { percent: 100 });
    assert!(boast.living.defects.unwrap().to_boasters > 0);
    assert_ne!(boast.digest, true_claim.digest);
    assert!(boast.finished >= 490, "{}", boast.finished);
}
