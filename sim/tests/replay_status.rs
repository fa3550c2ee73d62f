//! What `replay` says to scripts.

use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::Command;

use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::journal::Writer;
use cereus_core::time::Tick;
use cereus_sim::world::config::RunConfig;

fn recorded() -> Vec<u8> {
    let config = RunConfig::reference(1).core();
    let mut bytes = Vec::new();
    let mut writer = Writer::begin(&config, NonZeroU32::MIN, &mut bytes).unwrap();
    let mut core = Coordinator::new(config);
    for second in 0..5 {
        let (at, mut effects) = (Tick(second * 1_000_000), Effects::default());
        writer.event(at, &Event::Woke, &mut bytes).unwrap();
        core.step(at, &Event::Woke, &mut effects).unwrap();
        writer.effects(&effects, 0);
        writer.checkpoint(Some(core.digest()), &mut bytes);
    }
    writer.close(Some(core.digest()), &mut bytes);
    bytes
}

fn status(name: &str, bytes: &[u8]) -> Option<i32> {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&file, bytes).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_cereus-sim"))
        .arg("replay")
        .arg(&file)
        .output()
        .unwrap();
    run.status.code()
}

#[test]
fn a_status_of_its_own_tells_what_could_not_be_verified() {
    let whole = recorded();
    assert_eq!(status("whole.journal", &whole), Some(0));
    assert_eq!(status("torn.journal", &whole[..whole.len() - 9]), Some(3));
    assert_eq!(status("header.journal", &whole[..30]), Some(3));
    let mut zeroed = whole.clone();
    zeroed.truncate(whole.len() - 90);
    zeroed.resize(whole.len() + 4_096, 0);
    assert_eq!(status("zeroed.journal", &zeroed), Some(3));
    let mut holed = whole.clone();
    let hole = whole.len() - 200..whole.len() - 190;
    holed[hole].fill(0xff);
    assert_eq!(status("holed.journal", &holed), Some(3));
    let mut other = whole;
    other[..8].copy_from_slice(b"NOTHING\n");
    assert_eq!(status("other.journal", &other), Some(1));
}
