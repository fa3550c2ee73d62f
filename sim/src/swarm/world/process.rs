//! The coordinator's process: its births from the store, its deaths, and all other faults.

use cereus_core::event::Event;
use cereus_core::ids::{AccountId, ModelIx};
use cereus_core::money::MicroUsd;
use cereus_core::time::Tick;

use super::super::coordinator::CoordinatorProcess;
use super::super::people::Outcome;
use super::super::plan::Fault;
use super::{Happening, PROBER, Sleeper, World};
use crate::oracle::Violation;

impl World {
    pub(super) fn start_coordinator(&mut self, now: Tick) -> Result<(), Violation> {
        if self.coordinator.is_some() {
            return Ok(());
        }
        self.life += 1;
        let recovered = self.money.crash(self.plan.epoch(self.life));
        self.coordinator = Some(CoordinatorProcess::new(&self.plan, self.life, self.plant));
        for number in (0..self.plan.accounts).chain([PROBER]) {
            let account = AccountId(u64::from(number) + 1);
            let known = recovered.balances.iter().find(|(id, _)| *id == account);
            let balance = known.map_or(MicroUsd::ZERO, |(_, balance)| *balance);
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
        for (account, request, amount) in recovered.holds {
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

    pub(super) fn stop_coordinator(&mut self, now: Tick) -> Result<(), Violation> {
        if let Some(coordinator) = self.coordinator.take() {
            self.digest.wide(coordinator.core().running_digest());
            self.tally.stale_events += coordinator.watch.fleet.stale;
            self.tally.loads += coordinator.core().counts().loads_ordered;
        }
        self.disk.crash();
        self.wakes.retain(|who, _| matches!(who, Sleeper::Agent(_)));
        for conn in self.net.open_at_coordinator() {
            self.net.socket(conn).is_coordinator_open = false;
            let at = self.net.down(now, conn);
            self.queue.push(at, Happening::DownClosed { conn });
        }
        for person in self.people.iter_mut().filter(|person| person.is_waiting()) {
            person.end(Outcome::Reset)?;
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, now: Tick, ix: usize) -> Result<(), Violation> {
        self.tally.faults += 1;
        match self.plan.faults[ix].fault {
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
            } => {
                let Some((_, conn)) = self.posts[machine as usize].socket else {
                    self.tally.skipped += 1;
                    return Ok(());
                };
                let at = self.net.up(now + heard_after, conn);
                self.queue.push(at, Happening::UpClosed { conn });
                self.down_closed(now, conn);
            }
            Fault::Drain { machine } => self.drain(now, machine),
            Fault::DiskStall { lasts } => self.disk.stall(now + lasts),
            Fault::CoordinatorCrash { down } => {
                if self.coordinator.is_none() {
                    self.tally.skipped += 1;
                    return Ok(());
                }
                self.stop_coordinator(now)?;
                self.queue.push(now + down, Happening::CoordinatorBack);
            }
        }
        Ok(())
    }
}
