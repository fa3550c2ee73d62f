//! The consumers' side of a swarm world.

use cereus_core::ids::AccountId;
use cereus_core::time::Tick;

use super::super::coordinator::Reply;
use super::super::people::Outcome;
use super::super::text;
use super::{Happening, World};
use crate::oracle::Violation;

impl World {
    pub(super) fn asked(&mut self, now: Tick, number: u32) {
        let at = now + self.net.latency();
        let person = &mut self.people[number as usize];
        person.is_sent = true;
        self.queue.push(at, Happening::AskArrived { number });
        if let Some(after) = person.ask.leaves_after {
            self.queue.push(now + after, Happening::Left { number });
        }
        if let Some(after) = person.ask.repeats_after {
            self.queue.push(at + after, Happening::Repeated { number });
        }
    }

    pub(super) fn ask_arrived(&mut self, now: Tick, number: u32) -> Result<(), Violation> {
        let person = &mut self.people[number as usize];
        if !person.is_waiting() {
            self.tally.skipped += 1;
            return Ok(());
        }
        if self.coordinator.is_none() {
            return person.end(Outcome::Reset);
        }
        let (request, account) = (person.request, AccountId(u64::from(person.ask.account) + 1));
        let body = text::body(number, &person.ask);
        self.with_coordinator(now, |coordinator, by| {
            coordinator.ask(request, account, &body, by);
            Ok(())
        })
    }

    /// The same request once more, while it is open.
    pub(super) fn repeated(&mut self, now: Tick, number: u32) -> Result<(), Violation> {
        let request = self.people[number as usize].request;
        let is_open = self.coordinator.as_ref();
        if !is_open.is_some_and(|coordinator| coordinator.watch.requests.is_open(request)) {
            self.tally.skipped += 1;
            return Ok(());
        }
        self.ask_arrived(now, number)
    }

    pub(super) fn left(&mut self, now: Tick, number: u32) -> Result<(), Violation> {
        let person = &mut self.people[number as usize];
        if !person.is_waiting() {
            self.tally.skipped += 1;
            return Ok(());
        }
        person.end(Outcome::Left)?;
        let request = person.request;
        self.with_coordinator(now, |coordinator, by| {
            coordinator.left(by.now, request, by);
            Ok(())
        })
    }

    pub(super) fn heard(&mut self, now: Tick, number: u32, reply: Reply) -> Result<(), Violation> {
        let person = &mut self.people[number as usize];
        if !person.is_waiting() {
            return Ok(());
        }
        let reads_at = now + person.ask.reads_after;
        match reply {
            Reply::Closed => {
                let is_last = true;
                self.queue
                    .push(reads_at, Happening::Read { number, is_last });
                Ok(())
            }
            Reply::Finished { completion_tokens } => {
                person.finish(completion_tokens);
                Ok(())
            }
            Reply::Readable => {
                let is_last = false;
                self.queue
                    .push(reads_at, Happening::Read { number, is_last });
                Ok(())
            }
            Reply::Refused(denial) => person.refuse(denial),
        }
    }

    pub(super) fn read(&mut self, number: u32, is_last: bool) -> Result<(), Violation> {
        let person = &mut self.people[number as usize];
        let (Some(coordinator), true) = (&mut self.coordinator, person.is_waiting()) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        coordinator.take(person.request, &mut bytes);
        person.read(&bytes);
        if is_last { person.close() } else { Ok(()) }
    }
}
