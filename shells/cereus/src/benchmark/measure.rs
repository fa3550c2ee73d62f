//! Measures an engine through its handle, as any caller would.
//!
//! A step's tokens are counted by the engine's own figures, and only while all rows of the batch
//! decode together: what comes before is prefill, and what comes after is a smaller batch.

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use cereus_engine::runtime::{CapacitySnapshot, Engine, Event, Job};
use cereus_engine::scheduler::RowId;
use serde_json::json;

use super::prompts::{Cut, prompt};

/// Tokens of the answers that warm up what is compiled or allocated at its first use.
const WARM_TOKENS: u32 = 10;
/// Between two looks at the engine's figures: small beside a batch of steps.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// An engine that says nothing for so long is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// What to measure of each size of batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) prompt_tokens: u32,
    pub(super) new_tokens: u32,
    pub(super) iterations: u32,
}

/// One size of batch; each figure is the median of the iterations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cell {
    pub(super) prompt_tokens: f64,
    pub(super) prefill_per_second: f64,
    pub(super) first_token_ms: f64,
    pub(super) decode_per_second: f64,
}

/// An engine, and what cuts its prompts.
pub(super) struct Measured {
    pub(super) engine: Engine,
    pub(super) cut: Cut,
}

pub(super) struct Bench {
    measured: Measured,
    events: Receiver<Event>,
    next: u64,
}

/// A batch that was handed in together and has ended.
struct Round {
    prompt_tokens: u64,
    time: Duration,
    first_tokens: Vec<Duration>,
    /// While all rows decoded together.
    decode: Option<Window>,
}

/// The engine's tokens at two times.
#[derive(Clone, Copy)]
struct Window {
    began: Instant,
    tokens_before: u64,
    ended: Instant,
    tokens_after: u64,
}

impl Window {
    fn per_second(&self) -> Option<f64> {
        let time = (self.ended - self.began).as_secs_f64();
        let tokens = self.tokens_after.saturating_sub(self.tokens_before);
        (time > 0.0 && tokens > 0).then(|| float(tokens) / time)
    }
}

impl Bench {
    pub(super) fn start(
        start: impl FnOnce(Box<dyn FnMut(Event) + Send>) -> Result<Measured, String>,
    ) -> Result<Self, String> {
        let (tell, events) = channel();
        // Fails only once nobody measures any more.
        let measured = start(Box::new(move |event| drop(tell.send(event))))?;
        Ok(Self {
            measured,
            events,
            next: 0,
        })
    }

    pub(super) fn capacity(&self) -> CapacitySnapshot {
        self.measured.engine.capacity()
    }

    /// # Errors
    /// Why this size of batch could not be measured.
    pub(super) fn cell(&mut self, plan: Plan, rows: u16) -> Result<Cell, String> {
        let tokens = plan.prompt_tokens;
        self.round(rows, tokens, WARM_TOKENS)?;
        let (mut prefills, mut first_tokens, mut decodes) = (vec![], vec![], vec![]);
        let mut prompt_tokens = 0;
        for _ in 0..plan.iterations {
            let prefill = self.round(rows, tokens, 1)?;
            prompt_tokens += prefill.prompt_tokens;
            prefills.push(float(prefill.prompt_tokens) / prefill.time.as_secs_f64());
            let milliseconds = |time: &Duration| time.as_secs_f64() * 1e3;
            first_tokens.extend(prefill.first_tokens.iter().map(milliseconds));
            // The first token belongs to the prefill.
            let decode = self.round(rows, tokens, plan.new_tokens.saturating_add(1))?;
            let speed = decode.decode.and_then(|window| window.per_second());
            decodes.push(speed.ok_or(
                "its rows never decoded together for long enough; give more --new tokens, or more \
                 memory with --kv-gb",
            )?);
        }
        let prompts = u64::from(plan.iterations) * u64::from(rows);
        Ok(Cell {
            prompt_tokens: float(prompt_tokens) / float(prompts.max(1)),
            prefill_per_second: median(prefills),
            first_token_ms: median(first_tokens),
            decode_per_second: median(decodes),
        })
    }

    /// Hands in a batch and waits for its end.
    fn round(&mut self, rows: u16, tokens: u32, new_tokens: u32) -> Result<Round, String> {
        let jobs = (0..rows).map(|_| self.job(tokens, new_tokens));
        let jobs = jobs.collect::<Result<Vec<Job>, String>>()?;
        let first_tokens_before = self.measured.engine.capacity().first_tokens_emitted;
        let began = Instant::now();
        for job in jobs {
            self.measured
                .engine
                .submit(job)
                .map_err(|failure| failure.text)?;
        }
        let mut round = Round {
            prompt_tokens: 0,
            time: Duration::ZERO,
            first_tokens: vec![],
            decode: None,
        };
        let mut failed = None;
        let mut left = rows;
        let mut heard = began;
        while left > 0 {
            match self.events.recv_timeout(LOOK_EVERY) {
                Ok(event) => {
                    heard = Instant::now();
                    left -= u16::from(round.hear(event, &mut failed));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("the engine ended".to_owned()),
            }
            let capacity = self.measured.engine.capacity();
            if capacity.num_running == u32::from(rows)
                && capacity.first_tokens_emitted - first_tokens_before == u64::from(rows)
            {
                round.look(capacity.active_tokens);
            }
            if heard.elapsed() > SILENCE_MAX {
                return Err(format!(
                    "the engine said nothing for {} s",
                    SILENCE_MAX.as_secs()
                ));
            }
        }
        round.time = began.elapsed();
        failed.map_or(Ok(round), Err)
    }

    /// The next request. Its prompt is in tokens, because how many a text gives is the model's affair.
    fn job(&mut self, tokens: u32, new_tokens: u32) -> Result<Job, String> {
        self.next += 1;
        let body = json!({
            "prompt": prompt(&self.measured.cut, self.next, tokens)?,
            "max_tokens": new_tokens, "temperature": 0, "ignore_eos": true,
        });
        Ok(Job {
            id: RowId(self.next),
            body: body.to_string().into_bytes(),
            scope: None,
        })
    }
}

impl Round {
    /// Whether a row ended with this.
    fn hear(&mut self, event: Event, failed: &mut Option<String>) -> bool {
        match event {
            Event::Accepted { prompt_tokens, .. } => {
                self.prompt_tokens += u64::from(prompt_tokens);
                false
            }
            Event::Delta { .. } => false,
            Event::Failed { failure, .. } => {
                *failed = Some(failure.text.into_owned());
                true
            }
            Event::Finished(finished) => {
                let timing = finished.timing;
                self.first_tokens.push(timing.queued + timing.prefill);
                true
            }
        }
    }

    fn look(&mut self, tokens: u64) {
        let now = Instant::now();
        match &mut self.decode {
            None => {
                self.decode = Some(Window {
                    began: now,
                    tokens_before: tokens,
                    ended: now,
                    tokens_after: tokens,
                });
            }
            // Between two steps nothing happens: the time of the newest step counts.
            Some(window) if tokens > window.tokens_after => {
                window.ended = now;
                window.tokens_after = tokens;
            }
            Some(_) => {}
        }
    }
}

/// The middle one; of two, their mean.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => 0.0,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(*value, values[middle - 1]),
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of tokens are far below 2^53"
)]
fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
