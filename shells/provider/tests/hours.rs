//! A machine that serves at its owner's hours only, over a real socket.

mod support;

use std::sync::Mutex;
use std::time::Duration;

use cereus_core::schedule::{LocalTime, Schedule, Weekday};
use cereus_provider::{Hours, LocalClock, Preload, Progress};
use support::{World, echo, settings};

/// Shows one time after the other, and stays at the last.
#[derive(Debug)]
struct Wall(Mutex<Vec<u32>>);

impl LocalClock for Wall {
    fn read(&self) -> LocalTime {
        let mut seconds = self.0.lock().unwrap();
        let next = if seconds.len() > 1 {
            seconds.remove(0)
        } else {
            seconds[0]
        };
        LocalTime::new(Weekday::Monday, next)
    }
}

#[tokio::test]
async fn a_machine_serves_from_the_opening_of_its_window_to_its_end() {
    let second = |hour: u32, minute: u32, second: u32| (hour * 60 + minute) * 60 + second;
    let mut settings = settings(16, vec![echo("a", 1, Duration::ZERO)]);
    settings.preload = Preload::Fitting;
    settings.hours = Hours {
        schedule: Schedule::new(["mon 22:00-22:01".parse().unwrap()]),
        // The second look is for whoever wants to know how long it will be.
        clock: Box::new(Wall(Mutex::new(vec![
            second(21, 59, 59),
            second(21, 59, 59),
            second(22, 0, 55),
            second(22, 1, 0),
        ]))),
    };
    let mut world = World::new(settings).await;
    assert_eq!(world.answer("a").await["type"], "inference_complete");
    let steps = world.rested(1).await;
    let wait = Some(Duration::from_secs(1));
    assert_eq!(steps[1], Progress::Resting(wait), "{steps:?}");
    let week = Duration::from_secs(7 * 24 * 3_600 - 60);
    let tail = [
        Progress::Resting(Some(week)),
        Progress::Unloaded("a".to_owned()),
    ];
    assert!(steps.ends_with(&tail), "{steps:?}");
    world.end().await;
}
