//! The journal: what was written is read and replays to the same digests; what was damaged is
//! reported with its position; nothing that can be read makes the reader or the replay panic.
#![no_main]

use core::num::NonZeroU32;

use arbitrary::Arbitrary;
use cereus_core::coordinator::Coordinator;
use cereus_core::effect::Effects;
use cereus_core::event::Event;
use cereus_core::journal::{Ending, MAGIC, Reader, Record, VERSION, Writer, replay};
use cereus_core::time::Tick;
use cereus_fuzz::ops::{Op, Script, Turn, config};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input {
    /// Anything at all.
    Bytes(Vec<u8>),
    /// Frames whose checksums are right, whatever stands in them.
    Framed {
        config: Option<Vec<u8>>,
        records: Vec<Vec<u8>>,
        tail: Vec<u8>,
    },
    /// A journal of ours, then changed.
    Recorded { ops: Vec<Op>, damage: Damage },
}

#[derive(Arbitrary, Debug)]
enum Damage {
    Cut(u16),
    Flip {
        at: u16,
        mask: u8,
    },
    None,
    /// One record twice, or swapped with the next: each is whole, and in the wrong place.
    Repeat(u16),
}

const OPS_MAX: usize = 100;
const CHECKPOINT_EVENTS: NonZeroU32 = NonZeroU32::new(8).unwrap();

fuzz_target!(|input: Input| {
    match &input {
        Input::Bytes(bytes) => {
            read(bytes);
            let mut marked = MAGIC.to_vec();
            marked.extend_from_slice(bytes);
            read(&marked);
        }
        Input::Framed {
            config,
            records,
            tail,
        } => read(&framed(config.as_deref(), records, tail)),
        Input::Recorded { ops, damage } => recorded(ops, damage),
    }
});

/// Reads to the end, then replays; both stop at the same byte.
fn read(bytes: &[u8]) {
    let size = bytes.len() as u64;
    let mut reader = match Reader::open(bytes) {
        Ok(reader) => reader,
        Err(fault) => {
            assert!(fault.at() <= size);
            return;
        }
    };
    let mut last = 0;
    let mut events = 0;
    let mut ending = Ending::Closed;
    let mut again = reader.clone();
    while let Some(record) = again.next() {
        match record {
            Ok(Record::Event(_)) => events += 1,
            Ok(
                Record::Checkpoint(_) | Record::Closed(_) | Record::Snapshot(_) | Record::Trail(..),
            ) => {}
            Err(fault) => {
                assert!(fault.at() <= size);
                ending = Ending::Faulty(fault);
            }
        }
        assert!(again.offset() >= last && again.offset() <= size);
        last = again.offset();
    }
    // A snapshot of the fuzzer's making is refused or restored; its state may be any, and is not run.
    let _ = reader.coordinator();
    let mut coordinator = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut coordinator);
    assert_eq!((report.events, report.ending), (events, ending));
    coordinator.check();
}

fn recorded(ops: &[Op], damage: &Damage) {
    let mut bytes = vec![];
    let starts = record(ops, &mut bytes);
    let sound = bytes.clone();
    match *damage {
        Damage::Cut(at) => bytes.truncate(usize::from(at)),
        Damage::Flip { at, mask } => {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= mask;
        }
        Damage::None => {}
        Damage::Repeat(number) => {
            let ix = usize::from(number) % starts.len();
            let from = starts[ix];
            let to = starts.get(ix + 1).copied().unwrap_or(bytes.len());
            let twice = bytes[from..to].to_vec();
            bytes.splice(to..to, twice);
        }
    }
    let is_sound = bytes == sound;
    let mut reader = match Reader::open(&bytes) {
        Ok(reader) => reader,
        Err(_) => return assert!(!is_sound, "our own header cannot be read"),
    };
    let mut coordinator = Coordinator::new(reader.config().clone());
    let report = replay(&mut reader, &mut coordinator);
    assert_eq!(
        report.diverged, None,
        "what is sound replays the same, up to the damage"
    );
    assert_eq!(
        report.ending == Ending::Closed,
        is_sound,
        "damage was not seen, or was imagined"
    );
    assert_eq!(
        report.is_faithful(),
        is_sound || matches!(report.ending, Ending::Faulty(f) if f.is_torn_tail())
    );
}

/// Writes the journal of a run; answers where its records begin.
fn record(ops: &[Op], out: &mut Vec<u8>) -> Vec<usize> {
    let config = config();
    let mut writer = Writer::begin(&config, CHECKPOINT_EVENTS, out).expect("a small configuration");
    let mut coordinator = Coordinator::new(config);
    let (mut script, mut effects) = (Script::default(), Effects::default());
    let mut now = Tick(1);
    let mut starts = vec![];
    for op in ops.iter().take(OPS_MAX) {
        let event = match script.turn(op, coordinator.books().last_seq()) {
            Turn::Event(event) => event,
            Turn::Pass(span) => {
                now = now + span;
                Event::Woke
            }
        };
        effects.clear();
        starts.push(out.len());
        writer.event(now, &event, out).expect("a small event");
        let _ = coordinator.step(now, &event, &mut effects);
        writer.effects(&effects, 0);
        script.follow(&effects);
        if writer.is_checkpoint_due() {
            starts.push(out.len());
            writer.checkpoint(Some(coordinator.digest()), out);
        }
    }
    starts.push(out.len());
    writer.close(Some(coordinator.digest()), out);
    starts
}

/// The layout of the journal, as its module describes it.
fn framed(header: Option<&[u8]>, records: &[Vec<u8>], tail: &[u8]) -> Vec<u8> {
    let mut bytes = vec![];
    match header {
        None => {
            Writer::begin(&config(), CHECKPOINT_EVENTS, &mut bytes).expect("a small configuration");
        }
        Some(config) => {
            let size = u32::try_from(config.len()).expect("inputs are small");
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&size.to_le_bytes());
            bytes.extend_from_slice(&sum(24, config).to_le_bytes());
            let head = sum(0, &bytes);
            bytes.extend_from_slice(&head.to_le_bytes());
            bytes.extend_from_slice(config);
        }
    }
    for record in records {
        let at = u32::try_from(bytes.len()).expect("inputs are small");
        let mut head = u32::try_from(record.len())
            .expect("as above")
            .to_le_bytes()
            .to_vec();
        head.extend_from_slice(&sum(at, record).to_le_bytes());
        let head_sum = sum(at, &head);
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&head_sum.to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes.extend_from_slice(tail);
    bytes
}

fn sum(at: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(at);
    hasher.update(bytes);
    hasher.finalize()
}
