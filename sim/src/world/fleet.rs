//! The machines of a `run`: their connections, reports and work.

use cereus_core::event::{MachineReport, MachineSpec, SlotReport, SlotState, Thermal};
use cereus_core::ids::{ConnId, MachineId, ModelIx};
use cereus_engine::kv::KvLayout;
use cereus_engine::scheduler::SchedulerConfig;

use super::config::RunConfig;
use super::knowledge::Benchmark;
use crate::machine::{Machine, Note, StepDue};
use crate::stream::Stream;

const MODEL: ModelIx = ModelIx(0);

/// A heartbeat under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Beat {
    pub(super) report: MachineReport,
    pub(super) slot: SlotReport,
}

/// What a heartbeat needs of a machine to which nothing has happened since the last: the fleet beats
/// hundreds of times as often as most of its machines are given work.
#[derive(Clone, Debug, Default)]
struct Post {
    reports: u64,
    beat: Option<Beat>,
    /// As it stands, unless something has happened to the machine since.
    slot: Option<SlotReport>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    machines: Vec<Machine>,
    posts: Vec<Post>,
    benchmarks: Vec<Benchmark>,
    pub(super) notes: Vec<Note>,
}

impl Fleet {
    pub(super) fn new(config: &RunConfig) -> Self {
        let machines = config.fleet().into_iter().map(|chip| {
            let limits = SchedulerConfig {
                rows_max: config.rows_max,
                ..SchedulerConfig::reference(config.context_tokens)
            };
            let layout = KvLayout::full_attention(chip.kv_size_per_token, chip.kv_size);
            let machine = Machine::new(chip, limits, layout, config.pace);
            machine.expect("limits are sane")
        });
        let machines: Vec<Machine> = machines.collect();
        let mut stream = Stream::new(config.seed, "benchmarks");
        let benchmarks = machines
            .iter()
            .map(|machine| Benchmark::of(&machine.chip, config.knowledge, &mut stream));
        Self {
            benchmarks: benchmarks.collect(),
            posts: vec![Post::default(); machines.len()],
            machines,
            notes: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.machines.len()
    }

    pub(super) fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.machines.iter()
    }

    pub(super) fn machine_mut(&mut self, ix: u32) -> &mut Machine {
        self.posts[ix as usize].slot = None;
        &mut self.machines[ix as usize]
    }

    /// The step event of a machine came; its notes are in [`Self::notes`].
    pub(super) fn step_done(&mut self, ix: u32, epoch: u32) -> Option<StepDue> {
        self.notes.clear();
        let Self {
            machines,
            posts,
            notes,
            benchmarks: _,
        } = self;
        posts[ix as usize].slot = None;
        machines[ix as usize].step_done(epoch, notes)
    }

    /// What a machine reports at this moment. It is kept until it arrives.
    pub(super) fn beat(&mut self, ix: u32) {
        let post = &mut self.posts[ix as usize];
        assert!(post.beat.is_none(), "one heartbeat is under way at a time");
        post.reports += 1;
        let machine = &self.machines[ix as usize];
        post.beat = Some(Beat {
            report: MachineReport {
                seq: post.reports,
                draining: false,
                thermal: Thermal::Nominal,
                memory_pressure_ppm: 0,
                has_capacity: true,
                free_for_load_bytes: Some(0),
            },
            slot: *post.slot.get_or_insert_with(|| slot_report(machine)),
        });
    }

    pub(super) fn take_beat(&mut self, ix: u32) -> Beat {
        let beat = self.posts[ix as usize].beat.take();
        beat.expect("a heartbeat arrives once")
    }

    pub(super) fn spec(&self, ix: u32) -> MachineSpec {
        let chip = self.machines[ix as usize].chip;
        let benchmark = self.benchmarks[ix as usize];
        MachineSpec {
            memory_gb: chip.memory_gb,
            bandwidth_gbs: chip.bandwidth_gbs,
            decode_mtps: benchmark.decode_mtps,
            prefill_mtps: benchmark.prefill_mtps,
            can_seal: true,
            private_only: false,
        }
    }
}

fn slot_report(machine: &Machine) -> SlotReport {
    let capacity = machine.capacity();
    let state = if capacity.running == 0 {
        SlotState::Idle
    } else {
        SlotState::Running
    };
    SlotReport {
        model: MODEL,
        state,
        running: capacity.running,
        waiting: capacity.waiting,
        concurrency_max: capacity.concurrency_max,
        budget_used: capacity.budget_used,
        budget_max: capacity.budget_max,
        budget_queued: capacity.budget_queued,
        decode_mtps: machine.decode_mtps(),
        prefill_mtps: machine.prefill_mtps(),
        load_ms: 0,
        wedged: false,
    }
}

/// Connections are numbered from 1; in a `run` each machine has one.
pub(super) const fn conn(ix: u32) -> ConnId {
    ConnId(ix as u64 + 1)
}

pub(super) fn of_conn(conn: ConnId) -> u32 {
    u32::try_from(conn.0 - 1).expect("connections are numbered by machine")
}

pub(super) const fn machine_id(ix: u32) -> MachineId {
    MachineId(ix as u128 + 1)
}
