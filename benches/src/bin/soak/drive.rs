//! The clients, what they hear, and what happens to the grant meanwhile.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use cereus_engine::failure::{Failure, Reason};
use cereus_engine::kv::KvLayout;
use cereus_engine::runtime::{Engine, Event, FinishReason, Finished, Job};
use cereus_engine::scheduler::RowId;

use crate::load::{Ask, Kind, LONGEST_TOKENS, Load, REPEATED};
use crate::resident::{Samples, warm_up};
use crate::verdict::{End, Ends, Found};
use crate::{Grants, Heard, Outcome, ROWS_MAX, WAITING_MAX};

/// More than there are rows: some always wait.
const CLIENTS: usize = 28;
/// Requests at once, more than may wait.
const BURST: u64 = 8 + ROWS_MAX as u64 + WAITING_MAX as u64;
/// A client that was refused asks again after so long.
const REST: Duration = Duration::from_millis(200);
/// Nothing is overlooked for longer.
const LOOK: Duration = Duration::from_millis(50);
/// Whoever looks so late was not running: the machine slept, or this process was stopped.
const STANDSTILL: Duration = Duration::from_secs(5);
const TELL_EVERY: Duration = Duration::from_secs(10);
/// A run has so many rounds of grants and bursts, but none is longer or shorter than this.
const ROUNDS: u32 = 30;
const ROUND_LEAST: Duration = Duration::from_secs(4);
const ROUND_MOST: Duration = Duration::from_secs(30);
/// Of the full grant, in quarters, through a round.
const GRANT_QUARTERS: [u64; 6] = [4, 4, 4, 3, 2, 3];
/// Only an engine that hangs is so slow to end what it took.
const PATIENCE: Duration = Duration::from_mins(5);
const LAST_OUTPUT_TOKENS: u32 = 8;

struct Client {
    asked: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Rests { until: Instant },
    Waits,
}

/// A request that has not ended.
struct Live {
    /// Absent for those of a burst.
    client: Option<usize>,
    kind: Kind,
    is_shared: bool,
    prompt_tokens: u32,
    output_tokens: u32,
    cancel_after: Option<u32>,
    pieces: u32,
    /// Kept of repeated requests alone.
    text: String,
}

/// When something is due next.
struct Due {
    every: Duration,
    at: Instant,
}

impl Due {
    const fn new(every: Duration, at: Instant) -> Self {
        Self { every, at }
    }

    fn is_now(&mut self, now: Instant) -> bool {
        if now < self.at {
            return false;
        }
        // One that was missed is not made up for.
        self.at = now + self.every;
        true
    }
}

pub(crate) struct Soak {
    engine: Engine,
    heard: Receiver<Heard>,
    load: Load,
    grants: Grants,
    time: Duration,
    /// Time that does not count.
    stood_still: Duration,
    began: Instant,
    clients: Vec<Client>,
    live: BTreeMap<RowId, Live>,
    last_id: u64,
    bursts: u64,
    granted: u64,
    answers: [Option<String>; REPEATED],
    ends: Ends,
    samples: Samples,
}

impl Soak {
    pub(crate) fn new(
        engine: Engine,
        heard: Receiver<Heard>,
        load: Load,
        grants: Grants,
        time: Duration,
    ) -> Self {
        let began = Instant::now();
        let clients = (0..CLIENTS).map(|_| Client {
            asked: 0,
            state: State::Rests { until: began },
        });
        Self {
            engine,
            heard,
            load,
            grants,
            time,
            stood_still: Duration::ZERO,
            began,
            clients: clients.collect(),
            live: BTreeMap::new(),
            last_id: 0,
            bursts: 0,
            granted: 0,
            answers: [const { None }; REPEATED],
            ends: Ends::default(),
            samples: Samples::default(),
        }
    }

    /// Until the time is over; what was asked last is still being answered then.
    pub(crate) fn run(&mut self) -> Outcome<()> {
        let round = (self.time / ROUNDS).clamp(ROUND_LEAST, ROUND_MOST);
        let phases = u32::try_from(GRANT_QUARTERS.len()).expect("a few");
        let mut grant = Due::new(round / phases, self.began + round / phases);
        let mut burst = Due::new(round, self.began + round / 2);
        let mut tell = Due::new(TELL_EVERY, self.began + TELL_EVERY);
        let mut last_look = self.began;
        loop {
            let now = Instant::now();
            let since = now - last_look;
            if since > STANDSTILL {
                self.stood_still += since;
            }
            last_look = now;
            if now >= self.began + self.time + self.stood_still {
                return Ok(());
            }
            if grant.is_now(now) {
                self.regrant();
            }
            if burst.is_now(now) {
                self.burst();
            }
            if tell.is_now(now) {
                self.tell();
            }
            self.ask_all(now);
            self.hear(LOOK)?;
        }
    }

    /// Waits for the last answer, asks for the whole of a grant, and looks at what is left.
    pub(crate) fn end(mut self) -> Outcome<Found> {
        self.settle()?;
        let unended = self.live.len();
        let before = self.ends.count(End::Complete);
        self.engine.set_grant(self.grants.longest);
        // The share that is held back for growth is not for one row either.
        let tokens = self.whole_grant_tokens();
        let last = self.load.of_length(tokens, LAST_OUTPUT_TOKENS);
        self.submit(None, last);
        self.settle()?;
        let capacity = self.engine.capacity();
        self.engine.stop();
        Ok(Found {
            time: self.time,
            stood_still: self.stood_still,
            warm_up: warm_up(self.time),
            unended,
            grants: self.granted,
            samples: self.samples,
            capacity,
            whole_grant_was_free: self.ends.count(End::Complete) == before + 1,
            ends: self.ends,
        })
    }

    /// What one row may have under the smallest grant, once the engine knows of it.
    fn whole_grant_tokens(&self) -> u32 {
        let began = Instant::now();
        loop {
            let tokens = self.engine.capacity().active_token_budget_max;
            let tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
            if tokens <= LONGEST_TOKENS || began.elapsed() > PATIENCE {
                return whole_pages(tokens.min(LONGEST_TOKENS));
            }
            std::thread::sleep(LOOK);
        }
    }

    fn settle(&mut self) -> Outcome<()> {
        let began = Instant::now();
        while !self.live.is_empty() && began.elapsed() < PATIENCE {
            self.hear(LOOK)?;
        }
        Ok(())
    }

    fn regrant(&mut self) {
        let phase = usize::try_from(self.granted % GRANT_QUARTERS.len() as u64);
        let quarters = GRANT_QUARTERS[phase.expect("one of a few")];
        self.granted += 1;
        self.engine.set_grant(self.grants.full / 4 * quarters);
    }

    fn burst(&mut self) {
        self.bursts += 1;
        for _ in 0..BURST {
            let ask = self.load.of_burst(self.bursts);
            self.submit(None, ask);
        }
    }

    fn ask_all(&mut self, now: Instant) {
        for ix in 0..self.clients.len() {
            let client = &mut self.clients[ix];
            if !matches!(client.state, State::Rests { until } if until <= now) {
                continue;
            }
            let number = client.asked;
            client.asked += 1;
            client.state = State::Waits;
            let ask = self.load.ask(ix as u64, number);
            if !self.submit(Some(ix), ask) {
                self.clients[ix].state = State::Rests { until: now + REST };
            }
        }
    }

    /// Says whether the engine took it.
    fn submit(&mut self, client: Option<usize>, ask: Ask) -> bool {
        self.last_id += 1;
        let id = RowId(self.last_id);
        self.ends.submitted += 1;
        let live = Live {
            client,
            kind: ask.kind,
            is_shared: ask.scope.is_some(),
            prompt_tokens: ask.prompt_tokens,
            output_tokens: ask.output_tokens,
            cancel_after: ask.cancel_after,
            pieces: 0,
            text: String::new(),
        };
        let (body, scope) = (ask.body, ask.scope);
        if let Err(failure) = self.engine.submit(Job { id, body, scope }) {
            self.note_failure(&live, &failure);
            return false;
        }
        if live.cancel_after == Some(0) {
            self.engine.cancel(id);
        }
        self.live.insert(id, live);
        true
    }

    fn hear(&mut self, wait: Duration) -> Outcome<()> {
        match self.heard.recv_timeout(wait) {
            Ok(heard) => self.take(heard),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err("the engine ended early".to_owned()),
        }
        while let Ok(heard) = self.heard.try_recv() {
            self.take(heard);
        }
        Ok(())
    }

    fn take(&mut self, heard: Heard) {
        if let Some(reading) = heard.memory {
            self.samples.note(self.began, reading);
        }
        match heard.event {
            Event::Accepted { id, prompt_tokens } => {
                let expected = self.live.get(&id).map(|live| live.prompt_tokens);
                if expected != Some(prompt_tokens) {
                    let why = format!("{id:?} was accepted with {prompt_tokens} tokens");
                    self.ends.note_wrong(End::Wrong, why);
                }
            }
            Event::Delta { id, delta } => {
                let Some(live) = self.live.get_mut(&id) else {
                    let why = format!("{id:?} goes on after its end");
                    self.ends.note_wrong(End::Wrong, why);
                    return;
                };
                live.pieces += 1;
                if matches!(live.kind, Kind::Repeated(_)) {
                    live.text.push_str(&delta.content);
                }
                if live.cancel_after == Some(live.pieces) {
                    self.engine.cancel(id);
                }
            }
            Event::Finished(finished) => {
                if let Some(live) = self.ended(finished.id) {
                    self.note_finished(live, &finished);
                }
            }
            Event::Failed { id, failure } => {
                if let Some(live) = self.ended(id) {
                    self.note_failure(&live, &failure);
                }
            }
        }
    }

    /// The request, and its client asks again.
    fn ended(&mut self, id: RowId) -> Option<Live> {
        let live = self.live.remove(&id);
        if let Some(client) = live.as_ref().and_then(|live| live.client) {
            let until = Instant::now();
            self.clients[client].state = State::Rests { until };
        }
        if live.is_none() {
            let why = format!("{id:?} ended twice");
            self.ends.note_wrong(End::Wrong, why);
        }
        live
    }

    fn note_finished(&mut self, live: Live, finished: &Finished) {
        let usage = finished.usage;
        let is_whole = finished.reason == FinishReason::Length
            && usage.completion_tokens == live.output_tokens;
        let was_taken_back =
            finished.reason == FinishReason::Cancelled && live.cancel_after.is_some();
        let is_cache_right = live.is_shared || usage.cached_tokens == 0;
        if !(is_whole || was_taken_back) || !is_cache_right {
            let why = format!("an answer ended wrongly: {finished:?}, {:?}", live.kind);
            self.ends.note_wrong(End::Wrong, why);
            return;
        }
        if !is_whole {
            self.ends.note(End::Cancelled);
            return;
        }
        if let Kind::Repeated(which) = live.kind
            && !self.is_answered_as_before(which, live.text)
        {
            let why = format!("the answer to {:?} was another before", live.kind);
            self.ends.note_wrong(End::Wrong, why);
            return;
        }
        self.ends.note(End::Complete);
    }

    fn is_answered_as_before(&mut self, which: usize, text: String) -> bool {
        let Some(before) = &self.answers[which] else {
            self.answers[which] = Some(text);
            return true;
        };
        self.ends.compared += 1;
        *before == text
    }

    fn note_failure(&mut self, live: &Live, failure: &Failure) {
        let is_too_long = match live.kind {
            Kind::Huge => Reason::RequestExceedsContext,
            Kind::Large | Kind::Ordinary | Kind::Repeated(_) => Reason::RequestExceedsNodeBudget,
        };
        let end = match failure.reason {
            Reason::QueueFull => End::QueueFull,
            Reason::Cancelled if live.cancel_after.is_some() => End::Cancelled,
            reason if reason == is_too_long && matches!(live.kind, Kind::Huge | Kind::Large) => {
                End::NeverFits
            }
            Reason::ProviderError => {
                let why = format!("the backend failed: {failure}");
                self.ends.note_wrong(End::Lost, why);
                return;
            }
            // What stood still missed its time; nothing else should.
            Reason::AdmissionTimeout | Reason::SafetyDeadline | Reason::Stalled
                if !self.stood_still.is_zero() =>
            {
                End::TooLate
            }
            Reason::AdmissionTimeout
            | Reason::Cancelled
            | Reason::ClientError
            | Reason::Draining
            | Reason::JinjaTemplate
            | Reason::RequestExceedsContext
            | Reason::RequestExceedsNodeBudget
            | Reason::SafetyDeadline
            | Reason::Stalled => {
                let why = format!("a request failed for no reason: {failure}, {:?}", live.kind);
                self.ends.note_wrong(End::Wrong, why);
                return;
            }
        };
        self.ends.note(end);
    }

    fn tell(&self) {
        let capacity = self.engine.capacity();
        let memory = self.samples.newest_mib();
        let memory = memory.map_or_else(|| "?".to_owned(), |mib| format!("{mib:.1}"));
        let cached = capacity.cached_tokens * 100 / capacity.prompt_tokens.max(1);
        eprintln!(
            "    {:4} s: {memory} MiB; {}; {} preemptions; {cached} % of prompt tokens found",
            self.began.elapsed().as_secs(),
            self.ends.line(),
            capacity.preemptions,
        );
    }
}

const fn whole_pages(tokens: u32) -> u32 {
    tokens / KvLayout::PAGE_TOKENS * KvLayout::PAGE_TOKENS
}
