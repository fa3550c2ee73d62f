//! Machines that have several models.

use super::super::churn::Churn;
use super::super::config::{ModelShare, parse_fleet, parse_models};
use super::super::heat::Heat;
use super::*;

const THREE: &str = "llama-3-8b-4bit,qwen-2.5-7b-4bit,qwen3-30b-a3b-4bit";

fn several(seed: u64) -> RunConfig {
    RunConfig {
        seed,
        fleet: parse_fleet("m4-max/64:1,m3-ultra/96:1,m4/24:2").unwrap(),
        models: parse_models(THREE).unwrap(),
        rows_max: 4,
        ..RunConfig::reference(8)
    }
}

#[test]
fn models_come_into_memory_when_they_are_asked_for() {
    for seed in 0..3 {
        let report = report(&several(seed), &arrivals(seed, 500, 2_000_000));
        let residency = report.living.residency.as_ref().unwrap();
        assert_eq!(residency.by_model.len(), 3);
        let asked = |name| residency.by_model[name].asked;
        // Zipf: a half of the first, a third of it.
        let (first, third) = (asked("llama-3-8b-4bit"), asked("qwen3-30b-a3b-4bit"));
        assert!((200..=350).contains(&first) && (60..=130).contains(&third));
        assert!(residency.loads >= 8 + 2, "{residency:?}");
        assert!(report.finished > 480, "{}", report.finished);
        assert_eq!(
            report.finished + report.refused.values().sum::<u64>(),
            report.asked - report.failed.values().sum::<u64>()
        );
    }
}

/// Two models that never fit together push each other out.
#[test]
fn a_machine_without_room_for_both_models_swaps_them() {
    let config = RunConfig {
        fleet: parse_fleet("m4-pro/40").unwrap(),
        models: parse_models("qwen3-30b-a3b-4bit:1,gpt-oss-20b-4bit:1").unwrap(),
        ..RunConfig::reference(1)
    };
    let report = report(&config, &arrivals(1, 40, 60_000_000));
    let residency = report.living.residency.as_ref().unwrap();
    assert!(residency.evictions >= 5, "{residency:?}");
    assert!(report.finished > 30);
}

#[test]
fn a_slow_disk_makes_the_first_answer_late() {
    let with = |disk_mbs| RunConfig {
        disk_mbs,
        ..several(1)
    };
    let arrivals = arrivals(1, 200, 4_000_000);
    let quick = report(&with(10_000), &arrivals);
    let slow = report(&with(300), &arrivals);
    assert!(slow.ttft.mean_us > quick.ttft.mean_us);
}

/// INV-18, and the promise of [`Pace::Leap`], with all that can happen to such a machine.
#[test]
fn several_models_are_the_same_at_either_pace_and_each_time() {
    for seed in 0..3 {
        let config = RunConfig {
            churn: Churn::Home { hurry: 300 },
            heat: Heat::Home,
            warm_min: 2,
            ..several(seed)
        };
        let arrivals = turns(seed, 300);
        let leap = report(&config, &arrivals);
        assert_eq!(leap, report(&config, &arrivals));
        let stepping = RunConfig {
            pace: Pace::Step,
            ..config
        };
        let mut step = report(&stepping, &arrivals);
        step.work.step_events = leap.work.step_events;
        assert_eq!(leap, step);
    }
}

#[test]
fn a_model_that_is_to_be_warm_is_loaded_before_anybody_asks() {
    let loads = |warm_min| {
        let config = RunConfig {
            warm_min,
            ..several(2)
        };
        let report = report(&config, &arrivals(2, 3, 60_000_000));
        report.living.residency.unwrap().loads
    };
    assert!(loads(4) > loads(0));
}

#[test]
fn models_that_fit_nowhere_and_machines_that_hold_none_are_refused() {
    let refusal = |fleet: &str, models: Vec<ModelShare>| {
        let config = RunConfig {
            fleet: parse_fleet(fleet).unwrap(),
            models,
            ..RunConfig::reference(2)
        };
        World::new(config, std::iter::empty()).err().unwrap()
    };
    let models = |text| parse_models(text).unwrap();
    let text = refusal("m4/24", models("llama-3-8b-4bit,llama-3-70b-4bit")).to_string();
    assert!(text.contains("no machine of the fleet has room for llama-3-70b"));
    let text = refusal("m4/16", models("llama-3-70b-4bit,qwen3-30b-a3b-4bit")).to_string();
    assert!(text.contains("m4/16"), "{text}");
    let twice = refusal("m4/24", models("llama-3-8b-4bit,llama-3-8b-4bit"));
    assert_eq!(twice, RunError::Config(RunConfigError::Models));
    assert!(parse_models("llama").unwrap_err().contains("known"));
}
