//! Whatever a tenant sees of its own answers, it learns nothing of what another asked: all is as it
//! would have been had the other asked something else, or nothing.
#![cfg(feature = "mlx")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::time::Duration;

use cereus_core::draw::Seed;
use cereus_engine::kv::Scope;
use cereus_engine::runtime::{
    CapacitySnapshot, Engine, EngineConfig, Event, Finished, Job, MlxBackend, Timing,
};
use cereus_engine::scheduler::{Admission, RowId};
use proptest::prelude::*;
use support::{FAMILIES, write_byte_folder_of};

/// Of the row that the attacker has running all the while, by which it counts steps.
const CLOCK: u64 = 100;
const CLOCK_TOKENS: u32 = 40;
const VICTIM: u64 = 1;
const ANSWER_TOKENS: u32 = 6;
/// Small, so that a prompt that is not found takes many steps.
const CHUNK_TOKENS: u32 = 40;
/// The longest prompt of these tests and its answer, in tokens.
const LONGEST_TOKENS: u32 = 360;
/// Generous: only an engine that hangs is so slow.
const PATIENCE: Duration = Duration::from_secs(60);

static FOLDERS: LazyLock<Vec<Served>> = LazyLock::new(|| {
    let served = |(ix, json): (usize, &&str)| Served::new(json, ix as u64 + 1);
    FAMILIES.iter().enumerate().map(served).collect()
});

struct Served {
    _folder: tempfile::TempDir,
    path: PathBuf,
    row_bytes: u64,
}

impl Served {
    fn new(json: &str, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_byte_folder_of(folder.path(), json, seed);
        let path = folder.path().to_owned();
        let json = std::fs::read(path.join("config.json")).unwrap();
        let config = cereus_engine::model::Config::from_json(&json).unwrap();
        let layout = config.kv_layout(4, 0);
        Self {
            row_bytes: layout.bytes(LONGEST_TOKENS, LONGEST_TOKENS),
            path,
            _folder: folder,
        }
    }
}

/// Between two events of its engine nothing happens until [`Running::go_on`].
struct Running {
    // Dropped before the engine, which would wait for a hearer.
    events: Receiver<Event>,
    go: Sender<()>,
    engine: Engine,
}

impl Running {
    fn start(folder: &Path, config: &EngineConfig) -> Self {
        let folder = folder.to_owned();
        let (sender, events) = sync_channel(0);
        let (go, may_go) = channel();
        let on_event = move |event| {
            if sender.send(event).is_ok() {
                // An error says that the test is over.
                let _is_over = may_go.recv();
            }
        };
        let engine = Engine::start(config, move || MlxBackend::open(&folder), on_event);
        Self {
            events,
            go,
            engine: engine.unwrap(),
        }
    }

    fn submit(&self, id: u64, prompt: &str, tokens: u32, tenant: Option<u8>) {
        let content = serde_json::to_string(prompt).unwrap();
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":{content}}}],"temperature":0,
                "max_tokens":{tokens},"ignore_eos":true}}"#
        );
        let job = Job {
            id: RowId(id),
            body: body.into_bytes(),
            scope: tenant.and_then(|tenant| Scope::new(&[tenant])),
        };
        // In the queue at once, or chance would say at which step a row begins.
        self.engine.submit_here(job).unwrap();
    }

    fn hear(&self) -> Event {
        self.events
            .recv_timeout(PATIENCE)
            .expect("the engine goes on")
    }

    fn go_on(&self) {
        self.go.send(()).unwrap();
    }

    fn wait_for_end(&self) {
        loop {
            let event = self.hear();
            self.go_on();
            match event {
                Event::Finished(_) => return,
                Event::Accepted { .. } | Event::Delta { .. } => {}
                Event::Failed { .. } => panic!("{event:?}"),
            }
        }
    }
}

/// What the attacker sees, without the time of day.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    event: Event,
    /// What the node counted since the attack began, and holds.
    counters: [u64; 11],
}

fn counters(now: &CapacitySnapshot, then: &CapacitySnapshot) -> [u64; 11] {
    [
        now.steps_executed - then.steps_executed,
        now.admits - then.admits,
        now.first_tokens_emitted - then.first_tokens_emitted,
        now.prompt_tokens - then.prompt_tokens,
        now.cached_tokens - then.cached_tokens,
        now.preemptions - then.preemptions,
        now.active_tokens,
        now.max_tokens_potential,
        now.active_token_budget_used,
        now.queued_token_budget,
        u64::from(now.num_running) + 1_000 * u64::from(now.num_waiting),
    ]
}

fn id(event: &Event) -> u64 {
    match event {
        Event::Accepted { id, .. } | Event::Delta { id, .. } | Event::Failed { id, .. } => id.0,
        Event::Finished(finished) => finished.id.0,
    }
}

fn timeless(event: Event) -> Event {
    match event {
        Event::Finished(finished) => Event::Finished(Finished {
            timing: Timing::default(),
            ..finished
        }),
        Event::Accepted { .. } | Event::Delta { .. } | Event::Failed { .. } => event,
    }
}

/// When the victim asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// While the attacker does.
    Beside,
    /// Its last answer is over when the attacker comes.
    Before,
}

#[derive(Clone, Debug)]
struct Attack {
    family: usize,
    victim: Option<u8>,
    attacker: Option<u8>,
    when: When,
    /// Of the victim's prompt.
    length: usize,
    /// Rows as long as the longest that the grant holds.
    rows: u64,
    is_optimistic: bool,
}

impl Attack {
    fn config(&self) -> EngineConfig {
        let kv_bytes_max = self.rows * FOLDERS[self.family].row_bytes;
        EngineConfig {
            rows_max: 3,
            waiting_max: 16,
            step_token_budget: 2 * CHUNK_TOKENS,
            prefill_chunk_tokens: CHUNK_TOKENS,
            admission: if self.is_optimistic {
                Admission::OPTIMISTIC
            } else {
                Admission::WorstCase
            },
            ..EngineConfig::reference(kv_bytes_max, Seed::from_number(5))
        }
    }

    /// What the attacker takes the victim's prompt to be.
    fn secret(&self) -> String {
        let words = "the code of the safe is four one seven and nobody else knows of it ";
        words.chars().cycle().take(self.length).collect()
    }

    /// All that the attacker sees, when the victim's prompt is this one.
    fn seen(&self, victim: Option<&str>) -> Vec<Seen> {
        let running = Running::start(&FOLDERS[self.family].path, &self.config());
        let ask_as_victim = |number: u64| {
            if let Some(prompt) = victim {
                running.submit(VICTIM + number, prompt, ANSWER_TOKENS, self.victim);
            }
        };
        if self.when == When::Before && victim.is_some() {
            // The second finds the first.
            for number in 0..2 {
                ask_as_victim(number);
                running.wait_for_end();
            }
        }
        let guess = self.secret();
        let longer = format!("{guess}and more");
        let guesses = [&guess[..], &longer, &guess[..self.length / 2], &guess];
        let mut live = 1 + guesses.len();
        let mut guesses = (CLOCK + 1..).zip(guesses);
        running.submit(CLOCK, "tick", CLOCK_TOKENS, self.attacker);
        let mut seen = vec![];
        let mut then = None;
        while live > 0 {
            let event = running.hear();
            let now = running.engine.capacity();
            let then = then.get_or_insert(now);
            if id(&event) >= CLOCK {
                let counters = counters(&now, then);
                let is_end = matches!(event, Event::Finished(_) | Event::Failed { .. });
                live -= usize::from(is_end);
                if self.when == When::Beside && seen.len() == 2 {
                    ask_as_victim(0);
                    ask_as_victim(1);
                }
                // The first when the victim is at work, each other when the one before has ended.
                if seen.len() == 5 || (is_end && id(&event) > CLOCK) {
                    for (id, guess) in guesses.by_ref().take(1) {
                        running.submit(id, guess, ANSWER_TOKENS, self.attacker);
                    }
                }
                let event = timeless(event);
                seen.push(Seen { event, counters });
            }
            running.go_on();
        }
        seen
    }
}

/// As long as the prompt, and with no word in common.
fn unlike(prompt: &str) -> String {
    let turned = |letter: char| match letter {
        'a'..='m' => char::from(letter as u8 + 13),
        'n'..='z' => char::from(letter as u8 - 13),
        other => other,
    };
    prompt.chars().map(turned).collect()
}

fn attack() -> impl Strategy<Value = Attack> {
    let tenants = prop_oneof![
        Just((Some(1), Some(2))),
        Just((Some(1), None)),
        Just((None, Some(2))),
        Just((None, None)),
    ];
    let when = prop_oneof![Just(When::Beside), Just(When::Before)];
    (
        0..FAMILIES.len(),
        tenants,
        when,
        64_usize..256,
        1_u64..6,
        any::<bool>(),
    )
        .prop_map(
            |(family, (victim, attacker), when, length, rows, is_optimistic)| Attack {
                family,
                victim,
                attacker,
                when,
                length,
                rows,
                is_optimistic,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// ENG-10, tight grants included: what is forgotten for want of room depends on no prompt.
    #[test]
    fn a_tenant_cannot_tell_what_another_asked(attack in attack()) {
        let secret = attack.secret();
        prop_assert_eq!(attack.seen(Some(&secret)), attack.seen(Some(&unlike(&secret))));
    }
}

#[test]
fn with_room_for_all_a_tenant_cannot_tell_that_another_was_there() {
    for family in 0..FAMILIES.len() {
        for (victim, attacker) in [(Some(1), Some(2)), (Some(1), None), (None, Some(2))] {
            let attack = Attack {
                family,
                victim,
                attacker,
                when: When::Before,
                length: 200,
                rows: 20,
                is_optimistic: false,
            };
            let seen = attack.seen(Some(&attack.secret()));
            assert_eq!(seen, attack.seen(None), "{attack:?}");
        }
    }
}

/// The look that finds nothing of others is sharp enough: it tells of the tenant's own.
#[test]
fn a_tenant_can_tell_what_it_asked_itself() {
    for (family, name) in FAMILIES.iter().enumerate() {
        let attack = Attack {
            family,
            victim: Some(1),
            attacker: Some(1),
            when: When::Before,
            length: 200,
            rows: 20,
            is_optimistic: false,
        };
        let secret = attack.secret();
        let (same, other) = (
            attack.seen(Some(&secret)),
            attack.seen(Some(&unlike(&secret))),
        );
        let first_guess = |seen: &[Seen]| {
            let finished = seen.iter().find_map(|seen| match &seen.event {
                Event::Finished(finished) if finished.id == RowId(CLOCK + 1) => Some(*finished),
                _ => None,
            });
            finished
                .expect("the guess was answered")
                .usage
                .cached_tokens
        };
        assert_eq!(first_guess(&other), 0);
        assert!(first_guess(&same) > 0);
        // And without being told: the first token comes after fewer steps.
        let first_token = |seen: &[Seen]| {
            let steps = |is_it: fn(&Event) -> bool| {
                let found = seen
                    .iter()
                    .find(|seen| id(&seen.event) == CLOCK + 1 && is_it(&seen.event));
                found.expect("the guess was answered").counters[0]
            };
            steps(|event| matches!(event, Event::Delta { .. } | Event::Finished(_)))
                - steps(|event| matches!(event, Event::Accepted { .. }))
        };
        assert!(first_token(&same) < first_token(&other), "{name}");
    }
}
