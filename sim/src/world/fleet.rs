//! The machines of a `run`: their engines, their reports and what they are at the moment.
//!
//! A machine has an engine for each model that it offers. Engines that work at the same time share
//! the chip evenly.

use std::collections::VecDeque;
use std::ops::Range;

use cereus_core::event::{MachineReport, MachineSpec, SlotReport, SlotState, Thermal};
use cereus_core::ids::{MachineId, ModelIx};
use cereus_core::time::{Span, Tick};
use cereus_engine::scheduler::SchedulerConfig;

use super::config::RunConfig;
use super::defects::{Defect, Defects};
use super::heat::{Heat, Warmth, Work};
use super::host::Host;
use super::knowledge::Benchmark;
use super::wares::{Stock, Wares};
use crate::hardware::{Chip, Place};
use crate::machine::{Machine, Note, StepDue};
use crate::stream::Stream;

const ONLY_MODEL: ModelIx = ModelIx(0);

/// A heartbeat under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) report: MachineReport,
    pub(super) slots: Told,
}

/// What a heartbeat says of models.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Of those that are or were in memory.
    Many(Vec<SlotReport>),
    One([SlotReport; 1]),
}

impl Told {
    pub(super) fn all(&self) -> &[SlotReport] {
        match self {
            Self::Many(slots) => slots,
            Self::One(slot) => slot,
        }
    }
}

/// What a heartbeat needs of a machine to which nothing has happened since the last: the fleet beats
/// hundreds of times as often as most of its machines are given work.
#[derive(Clone, Debug, Default)]
struct Post {
    reports: u64,
    /// That came to it.
    jobs: u64,
    /// It wants to restart, and takes nothing new.
    is_draining: bool,
    /// When it last reported.
    beat_at: Tick,
    /// Under way: the oldest, and those that came before it had arrived.
    beat: Option<Beat>,
    later_beats: VecDeque<Beat>,
    /// As it stands, unless something has happened to the machine since.
    slot: Option<SlotReport>,
}

/// What makes a machine slower than its chip, or other than it says.
#[derive(Clone, Debug)]
struct Condition {
    warmth: Option<Warmth>,
    defect: Option<Defect>,
    /// What is left of its speed, heat aside.
    percent: u32,
    /// Engines that work, as far as they share the chip now.
    working: u32,
}

impl Condition {
    fn speed_ppm(&self) -> u32 {
        let warm_ppm = self.warmth.map_or(1_000_000, |warmth| warmth.speed_ppm());
        warm_ppm / 100 * self.percent / self.working.max(1)
    }

    /// What it says of its speed, in percent.
    const fn claims_percent(&self) -> u32 {
        match self.defect {
            Some(Defect::Boasts { percent }) => percent,
            Some(Defect::Degrades { .. } | Defect::Refuses) | None => 100,
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    /// Of the first machine, of the second, and so on.
    engines: Vec<Machine>,
    /// The first engine of each machine, and an end.
    firsts: Vec<u32>,
    /// The machine of each engine.
    owners: Vec<u32>,
    /// None where there is but one model.
    hosts: Vec<Host>,
    /// The model that each had in memory when it was measured, by its place among its models.
    first_builds: Vec<usize>,
    posts: Vec<Post>,
    benchmarks: Vec<Benchmark>,
    conditions: Vec<Condition>,
    pub(super) notes: Vec<Note>,
    /// Steps of engines whose speed has changed.
    pub(super) dues: Vec<(u32, StepDue)>,
}

impl Fleet {
    pub(super) fn new(config: &RunConfig, wares: &Wares) -> Self {
        let places = config.places();
        let stocks = places.iter().map(|place| wares.stock(place));
        let stocks: Vec<Stock> = stocks.collect();
        let mut fleet = Self {
            engines: Vec::new(),
            firsts: vec![0],
            owners: Vec::new(),
            hosts: Vec::new(),
            first_builds: Vec::new(),
            posts: vec![Post::default(); stocks.len()],
            benchmarks: Vec::new(),
            conditions: Vec::new(),
            notes: Vec::new(),
            dues: Vec::new(),
        };
        let mut benchmarks = Stream::new(config.seed, "benchmarks");
        let mut firsts = Stream::new(config.seed, "first models");
        for (ix, stock) in (0..).zip(&stocks) {
            let engines = stock.0.iter().map(|(_, chip)| {
                let limits = SchedulerConfig {
                    rows_max: config.rows_max,
                    ..SchedulerConfig::reference(config.context_tokens)
                };
                let layout = crate::machine::layout(chip.kv_size_per_token, chip.kv_size);
                let machine = Machine::new(*chip, limits, layout, config.pace);
                machine.expect("limits are sane")
            });
            fleet.engines.extend(engines);
            fleet.owners.extend(stock.0.iter().map(|_| ix));
            let end = u32::try_from(fleet.engines.len()).expect("few enough engines");
            fleet.firsts.push(end);
            let first = match wares.is_choice() {
                true => wares.first(stock, &mut firsts),
                false => 0,
            };
            fleet.first_builds.push(first);
            let (_, chip) = &stock.0[first];
            let benchmark = Benchmark::of(chip, config.knowledge, &mut benchmarks);
            fleet.benchmarks.push(benchmark);
        }
        if wares.is_choice() {
            let hosts = stocks.iter().zip(&places);
            let host = |(stock, place): (&Stock, &&Place)| {
                Host::new(wares, stock, place.memory_gb, config)
            };
            fleet.hosts = hosts.map(host).collect();
        }
        let count = config.machines_in_all();
        let defects = Defects::assigned(&config.defects, count);
        let conditions = places.into_iter().zip(defects);
        let conditions = conditions.map(|(place, defect)| Condition {
            warmth: (config.heat == Heat::Home).then(|| Warmth::of(place)),
            defect,
            percent: 100,
            working: 1,
        });
        fleet.conditions = conditions.collect();
        fleet
    }

    pub(super) fn len(&self) -> usize {
        self.posts.len()
    }

    pub(super) fn engines(&self) -> impl Iterator<Item = &Machine> {
        self.engines.iter()
    }

    pub(super) fn engine_mut(&mut self, engine: u32) -> &mut Machine {
        self.posts[self.owners[engine as usize] as usize].slot = None;
        &mut self.engines[engine as usize]
    }

    pub(super) fn owner(&self, engine: u32) -> u32 {
        self.owners[engine as usize]
    }

    pub(super) fn engines_of(&self, machine: u32) -> Range<u32> {
        let ix = machine as usize;
        self.firsts[ix]..self.firsts[ix + 1]
    }

    /// The first engine of a machine; the only one where there is one model.
    pub(super) fn only_engine(&self, machine: u32) -> u32 {
        self.firsts[machine as usize]
    }

    pub(super) fn host(&self, machine: u32) -> Option<&Host> {
        self.hosts.get(machine as usize)
    }

    pub(super) fn host_mut(&mut self, machine: u32) -> Option<&mut Host> {
        self.hosts.get_mut(machine as usize)
    }

    pub(super) fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter()
    }

    pub(super) fn first_build(&self, machine: u32) -> usize {
        self.first_builds[machine as usize]
    }

    /// A job has come to a machine.
    pub(super) fn count_job(&mut self, machine: u32) {
        self.posts[machine as usize].jobs += 1;
    }

    /// Jobs that came to a machine.
    pub(super) fn jobs(&self, machine: u32) -> u64 {
        self.posts[machine as usize].jobs
    }

    /// A machine's chip, with the first of its models.
    pub(super) fn chip(&self, machine: u32) -> Chip {
        self.engines[self.only_engine(machine) as usize].chip
    }

    /// That a machine's engines have computed, in sum.
    pub(super) fn busy_ns(&self, machine: u32) -> u64 {
        self.engines_of(machine)
            .map(|engine| self.engines[engine as usize].busy_ns())
            .sum()
    }

    pub(super) fn is_engine_idle(&self, engine: u32) -> bool {
        self.engines[engine as usize].is_idle()
    }

    /// Bytes of keys and values that a machine's engines have promised.
    pub(super) fn reserved_bytes(&self, machine: u32) -> u64 {
        let engines = self.engines_of(machine);
        let engines = &self.engines[engines.start as usize..engines.end as usize];
        let bytes = |engine: &Machine| {
            let capacity = engine.capacity();
            let tokens = capacity.budget_used + capacity.budget_queued;
            tokens.saturating_mul(engine.chip.kv_size_per_token)
        };
        engines.iter().map(bytes).sum()
    }

    /// The step event of an engine came; its notes are in [`Self::notes`].
    pub(super) fn step_done(&mut self, engine: u32, epoch: u32) -> Option<StepDue> {
        self.notes.clear();
        let mut notes = core::mem::take(&mut self.notes);
        let due = self.engine_mut(engine).step_done(epoch, &mut notes);
        self.notes = notes;
        due
    }

    /// What a machine reports at this moment. It is kept until it arrives.
    pub(super) fn beat(&mut self, now: Tick, ix: u32) {
        let engines = self.engines_of(ix);
        let engines = &self.engines[engines.start as usize..engines.end as usize];
        let condition = &self.conditions[ix as usize];
        let post = &mut self.posts[ix as usize];
        post.reports += 1;
        let (slots, free_for_load_bytes) = match self.hosts.get(ix as usize) {
            None => {
                let slot = post
                    .slot
                    .get_or_insert_with(|| slot_report(&engines[0], condition.claims_percent()));
                (Told::One([*slot]), 0)
            }
            Some(host) => {
                let slots = host.report(now, engines);
                (Told::Many(slots), host.slots.max_loadable_bytes())
            }
        };
        post.beat_at = now;
        let beat = Beat {
            report: MachineReport {
                seq: post.reports,
                draining: post.is_draining,
                thermal: thermal(condition),
                memory_pressure_ppm: 0,
                has_capacity: true,
                free_for_load_bytes: Some(free_for_load_bytes),
            },
            slots,
        };
        match post.beat {
            None => post.beat = Some(beat),
            Some(_) => post.later_beats.push_back(beat),
        }
    }

    /// When a machine last reported.
    pub(super) fn beat_at(&self, ix: u32) -> Tick {
        self.posts[ix as usize].beat_at
    }

    pub(super) fn take_beat(&mut self, ix: u32) -> Beat {
        let post = &mut self.posts[ix as usize];
        let beat = post.beat.take().expect("a heartbeat arrives once");
        post.beat = post.later_beats.pop_front();
        beat
    }

    pub(super) fn defect(&self, ix: u32) -> Option<Defect> {
        self.conditions[ix as usize].defect
    }

    /// Time has passed, and a machine has become hotter or cooler. Where that changes its speed,
    /// [`Self::dues`] has the steps that end sooner.
    pub(super) fn pass(&mut self, now: Tick, ix: u32, span: Span) -> Thermal {
        let work = match self.is_idle(ix) {
            true => Work::None,
            false => Work::Some,
        };
        let condition = &mut self.conditions[ix as usize];
        let Some(warmth) = &mut condition.warmth else {
            return Thermal::Nominal;
        };
        let before_ppm = warmth.speed_ppm();
        warmth.pass(span, work);
        let thermal = warmth.thermal();
        if warmth.speed_ppm() != before_ppm {
            self.change_speed(now, ix);
        }
        thermal
    }

    pub(super) fn degrade(&mut self, now: Tick, ix: u32, percent: u32) {
        self.conditions[ix as usize].percent = percent;
        self.change_speed(now, ix);
    }

    /// As many engines share the chip as work now.
    pub(super) fn share_chip(&mut self, now: Tick, ix: u32) {
        let working = self
            .engines_of(ix)
            .filter(|engine| !self.engines[*engine as usize].is_idle());
        let working = u32::try_from(working.count()).expect("few engines").max(1);
        if self.conditions[ix as usize].working != working {
            self.conditions[ix as usize].working = working;
            self.change_speed(now, ix);
        }
    }

    fn change_speed(&mut self, now: Tick, ix: u32) {
        let speed_ppm = self.conditions[ix as usize].speed_ppm();
        for engine in self.engines_of(ix) {
            if let Some(due) = self.engine_mut(engine).set_speed(now, speed_ppm) {
                self.dues.push((engine, due));
            }
        }
    }

    /// It wants to restart: it takes nothing new until it has gone.
    pub(super) fn drain(&mut self, ix: u32) {
        self.posts[ix as usize].is_draining = true;
    }

    pub(super) fn is_draining(&self, ix: u32) -> bool {
        self.posts[ix as usize].is_draining
    }

    pub(super) fn is_idle(&self, ix: u32) -> bool {
        self.engines_of(ix)
            .all(|engine| self.engines[engine as usize].is_idle())
    }

    /// Its connection is gone: all that it worked on ends, and what it was about to report is lost.
    /// Returns how many rows ended.
    pub(super) fn drop_rows(&mut self, ix: u32, now: Tick) -> usize {
        self.hush(ix);
        self.engines_of(ix)
            .map(|engine| self.engine_mut(engine).drop_rows(now))
            .sum()
    }

    /// The same of a process that ends.
    pub(super) fn restart(&mut self, ix: u32, now: Tick) -> usize {
        self.hush(ix);
        if let Some(host) = self.host_mut(ix) {
            host.restart(now);
        }
        self.engines_of(ix)
            .map(|engine| self.engine_mut(engine).restart(now))
            .sum()
    }

    fn hush(&mut self, ix: u32) {
        let post = &mut self.posts[ix as usize];
        post.beat = None;
        post.later_beats.clear();
        post.slot = None;
        post.is_draining = false;
    }

    pub(super) fn spec(&self, ix: u32) -> MachineSpec {
        let chip = self.chip(ix);
        let benchmark = self.benchmarks[ix as usize];
        let percent = self.conditions[ix as usize].claims_percent();
        MachineSpec {
            memory_gb: chip.memory_gb,
            bandwidth_gbs: chip.bandwidth_gbs,
            decode_mtps: claimed(benchmark.decode_mtps, percent),
            prefill_mtps: claimed(benchmark.prefill_mtps, percent),
            can_seal: true,
            private_only: false,
        }
    }

    /// The models that a machine offers.
    pub(super) fn models(&self, ix: u32) -> Vec<ModelIx> {
        match self.host(ix) {
            Some(host) => host.models.clone(),
            None => vec![ONLY_MODEL],
        }
    }
}

fn thermal(condition: &Condition) -> Thermal {
    (condition.warmth.as_ref()).map_or(Thermal::Nominal, Warmth::thermal)
}

const fn claimed(mtps: u32, percent: u32) -> u32 {
    match percent {
        100 => mtps,
        _ => (mtps / 100).saturating_mul(percent),
    }
}

fn slot_report(machine: &Machine, claims_percent: u32) -> SlotReport {
    let capacity = machine.capacity();
    let state = if capacity.running == 0 {
        SlotState::Idle
    } else {
        SlotState::Running
    };
    SlotReport {
        model: ONLY_MODEL,
        state,
        running: capacity.running,
        waiting: capacity.waiting,
        concurrency_max: capacity.concurrency_max,
        budget_used: capacity.budget_used,
        budget_max: capacity.budget_max,
        budget_queued: capacity.budget_queued,
        decode_mtps: claimed(machine.decode_mtps(), claims_percent),
        prefill_mtps: claimed(machine.prefill_mtps(), claims_percent),
        load_ms: 0,
        wedged: false,
    }
}

pub(super) const fn machine_id(ix: u32) -> MachineId {
    MachineId(ix as u128 + 1)
}
