//! The coordinator's process: its births from the store, its deaths, and all other faults.

use cereus_core::event::Event;
use cereus_core::ids::{AccountId, ModelIx};
use cereus_core::money::MicroUsd;
use cereus_core::time::{Span, Tick};

use super::super::Plant;
use super::super::coordinator::CoordinatorProcess;
use super::super::coordinator::recording::Torn;
use super::super::disk::Written;
use super::super::log::Tail;
use super::super::marks::Mark;
use super::super::people::Outcome;
use super::super::plan::{Damage, Fault, Whose};
use super::{Happening, PROBER, Sleeper, World};
use crate::oracle::{Violation, require};

/// A process that stood still handles what came meanwhile before it looks at what it overslept.
const CATCHING_UP: Span = Span::millis(500);

impl World {
    pub(super) fn start_coordinator(&mut self, now: Tick) -> Result<(), Violation> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        self.life += 1;
        let epoch = self.plan.epoch(self.life);
        self.money.crash(epoch, self.disk.log.sound())?;
        let (left, tail) = self.disk.log.read(self.heard, self.trial.plant);
        match tail {
            Tail::BehindAHole => self.mark("a start found a hole in the log"),
            Tail::Clean => {}
            Tail::Damaged => self.mark("a start found a damaged end of the log"),
        }
        self.heard = self.disk.log.sound().last().map_or(0, |last| last.seq);
        let torn = match self.trial.plant {
            Some(Plant::JournalGoesOn) => core::mem::take(&mut self.torn),
            Some(_) | None => Torn::default(),
        };
        let process = CoordinatorProcess::new(&self.plan, self.life, &self.trial, torn);
        self.coordinator = Some(process);
        for number in (0..self.plan.accounts).chain([PROBER]) {
            let account = AccountId(u64::from(number) + 1);
            let known = left.balances.get(&account).copied();
            let balance = known.unwrap_or(MicroUsd::ZERO);
            self.inform(now, Event::AccountOpened { account, balance })?;
            if known.is_none() {
                let amount = if number == PROBER {
                    MicroUsd(1_000_000)
                } else {
                    self.plan.balance
                };
                self.inform(
                    now,
                    Event::AccountCredited {
                        account,
                        amount,
                        reference: None,
                    },
                )?;
            }
        }
        if let Some(machines) = self.plan.warm_min {
            for model in (0..self.plan.models).map(ModelIx) {
                self.inform(now, Event::WarmMinChanged { model, machines })?;
            }
        }
        for (request, (account, amount)) in left.holds {
            self.inform(
                now,
                Event::HoldRecovered {
                    account,
                    request,
                    amount,
                },
            )?;
        }
        Ok(())
    }

    pub(super) fn inform(&mut self, now: Tick, event: Event<'static>) -> Result<(), Violation> {
        self.with_coordinator(now, |coordinator, by| {
            coordinator.tell(event, by);
            Ok(())
        })
    }

    pub(super) fn disk_written(&mut self, now: Tick) -> Result<(), Violation> {
        match self.disk.written() {
            Written::Done { up_to, heard_after } => self.tell_heard(now + heard_after, up_to),
            Written::Failed { up_to } if self.trial.plant == Some(Plant::IgnoresWriteErrors) => {
                self.tell_heard(now, up_to);
            }
            Written::Failed { .. } => {
                self.mark("a write failed");
                self.stop_coordinator(now)?;
                self.queue
                    .push(now + Span::millis(700), Happening::CoordinatorBack);
                return Ok(());
            }
        }
        self.with_coordinator(now, |_, _| Ok(()))
    }

    fn tell_heard(&mut self, at: Tick, up_to: u64) {
        let life = self.life;
        self.queue.push(at, Happening::DiskHeard { life, up_to });
    }

    /// INV-05: what is called durable is in the log.
    pub(super) fn disk_heard(&mut self, now: Tick, up_to: u64) -> Result<(), Violation> {
        self.disk.heard();
        self.heard = self.heard.max(up_to);
        require(self.disk.log.holds(up_to), "INV-05", || {
            format!("all up to transfer {up_to} is called durable and is not in the log")
        })?;
        self.with_coordinator(now, |coordinator, by| {
            coordinator.durable(up_to, by);
            Ok(())
        })
    }

    /// INV-05: what was called durable is still in the log when its process ends.
    pub(super) fn stop_coordinator(&mut self, now: Tick) -> Result<(), Violation> {
        if let Some(mut coordinator) = self.coordinator.take() {
            if let Some(recording) = coordinator.take_recording() {
                self.torn = recording.tear(&mut self.tears, &mut self.tally.marks)?;
            }
            self.tally.marks.add(coordinator.marks());
            self.money.require_balances(coordinator.core())?;
            self.digest.wide(coordinator.core().running_digest());
            self.tally.stale_events += coordinator.watch.fleet.stale;
            self.tally.loads += coordinator.core().counts().loads_ordered;
        }
        if self.disk.is_writing() {
            self.mark("a write was under way at a crash");
        }
        if self
            .disk
            .log
            .sound()
            .last()
            .is_some_and(|last| last.seq > self.heard)
        {
            self.mark("a commit was not heard of before a crash");
        }
        self.disk.crash();
        require(
            self.heard == 0 || self.disk.log.holds(self.heard),
            "INV-05",
            || format!("transfer {} was called durable and is gone", self.heard),
        )?;
        self.wakes.retain(|who, _| matches!(who, Sleeper::Agent(_)));
        for conn in self.net.open_at_coordinator() {
            self.net.socket(conn).is_coordinator_open = false;
            if let Some(at) = self.net.down(now, conn) {
                self.queue.push(at, Happening::DownClosed { conn });
            }
        }
        for person in self.people.iter_mut().filter(|person| person.is_waiting()) {
            person.end(Outcome::Reset)?;
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, now: Tick, ix: usize) -> Result<(), Violation> {
        self.tally.faults += 1;
        let fault = self.plan.faults[ix].fault;
        self.tally.marks.hit(Mark::Broke(fault.kind()));
        match fault {
            Fault::Clock { whose, jump_us } => self.jump(now, whose, jump_us),
            Fault::Clog {
                machine,
                extra,
                lasts,
            } => self.net.clog(machine, extra, now + lasts),
            Fault::Crash {
                machine,
                down,
                heard_after,
            } => {
                self.crash(now, machine, down, heard_after);
            }
            Fault::Cut {
                machine,
                heard_after,
            } => self.cut(now, machine, heard_after),
            Fault::DiskDamage { damage, down } => self.lose_disk(now, damage, down)?,
            Fault::DiskStall { lasts } => self.disk.stall(now + lasts),
            Fault::Drain { machine } => self.drain(now, machine),
            Fault::CoordinatorCrash { down } => self.crash_coordinator(now, down)?,
            Fault::CoordinatorDrain { lasts } => {
                self.inform(now, Event::DrainBegan)?;
                let life = self.life;
                self.queue.push(now + lasts, Happening::Drained { life });
            }
            Fault::Partition {
                machines,
                lasts,
                outage,
            } => self.net.part(machines, now + lasts, outage),
            Fault::WriteError => self.disk.fail_next(),
        }
        Ok(())
    }

    fn cut(&mut self, now: Tick, machine: u32, heard_after: Span) {
        let Some((_, conn)) = self.posts[machine as usize].socket else {
            self.tally.skipped += 1;
            return;
        };
        if let Some(at) = self.net.up(now + heard_after, conn) {
            self.queue.push(at, Happening::UpClosed { conn });
        }
        self.down_closed(now, conn);
    }

    pub(super) fn crash_coordinator(&mut self, now: Tick, down: Span) -> Result<(), Violation> {
        if self.coordinator.is_none() {
            self.tally.skipped += 1;
            return Ok(());
        }
        self.stop_coordinator(now)?;
        self.queue.push(now + down, Happening::CoordinatorBack);
        Ok(())
    }

    /// It may be down already: a disk is damaged whoever runs.
    fn lose_disk(&mut self, now: Tick, damage: Damage, down: Span) -> Result<(), Violation> {
        self.crash_coordinator(now, down)?;
        self.disk.damage(damage);
        self.heard = self.disk.log.sound().last().map_or(0, |last| last.seq);
        Ok(())
    }

    /// Whoever sleeps until a time on the clock that jumped wakes at another.
    fn jump(&mut self, now: Tick, whose: Whose, by_us: i64) {
        let is_ahead = by_us.unsigned_abs();
        let sooner = |at: Tick| match by_us > 0 {
            true => Tick(at.0.saturating_sub(is_ahead)).max(now + CATCHING_UP),
            false => Tick(at.0.saturating_add(is_ahead)),
        };
        if by_us < 0 {
            self.mark("a clock stood still");
        }
        match whose {
            Whose::Coordinator => self.clock.jump(by_us),
            Whose::Machine(machine) => {
                self.posts[machine as usize].provider.clock.jump(by_us);
            }
        }
        let is_his = |who: &Sleeper| match (who, whose) {
            (Sleeper::Task(_), Whose::Coordinator) => true,
            (Sleeper::Agent(it), Whose::Machine(machine)) => *it == machine,
            (Sleeper::Agent(_), Whose::Coordinator) | (Sleeper::Task(_), Whose::Machine(_)) => {
                false
            }
        };
        let slept = self.wakes.iter().filter(|(who, _)| is_his(who));
        let slept: Vec<(Sleeper, Tick)> = slept.map(|(who, at)| (*who, *at)).collect();
        for (who, at) in slept {
            self.wakes.remove(&who);
            self.arm(now, sooner(at), who);
        }
    }
}
