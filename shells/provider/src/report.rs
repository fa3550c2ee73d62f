//! What the machine is (`register`) and how it is doing (`heartbeat`).

use std::time::Duration;

use cereus_core::slots::{Eviction, Measured, SlotState, SlotView, Slots};
use cereus_core::time::Tick;
use cereus_core::wire::Frame as _;
use cereus_core::wire::Text;
use cereus_core::wire::clock::utc_text;
use cereus_core::wire::messages::{
    Capacity, CpuCores, Hardware, Heartbeat, ModelsUpdate, PrefixCache, PrivacyCapabilities,
    Register, Slot, SystemMetrics, Verbatim,
};
use cereus_core::wire::proof::{Blob, MachineKey};
use cereus_engine::runtime::process_memory;

use crate::engines::{Engines, Sight};
use crate::host::Host;
use crate::memory::MemoryReading;
use crate::offered::Offered;

const GIB: f64 = (1u64 << 30) as f64;

/// The whole first frame of a session.
pub(crate) fn register_frame(
    key: &MachineKey,
    host: &Host,
    sealing_key: &str,
    offered: &[Offered],
    memory: MemoryReading,
    earn_key: &str,
    now_unix_s: u64,
) -> Vec<u8> {
    let chip = host.chip.as_str();
    let timestamp = utc_text(now_unix_s);
    let public = key.attested().text();
    let version = env!("CARGO_PKG_VERSION");
    // A key file proves that this is the same machine as before, and nothing about its system: so
    // the blob claims no enclave and no secure boot.
    let blob = key.sign_blob(&Blob {
        chip_name: Text::from(chip),
        encryption_public_key: Some(Text::from(sealing_key)),
        hardware_model: Text::from(std::env::consts::ARCH),
        os_version: Text::from(host.os_version.as_str()),
        public_key: Text::from(public.as_str()),
        rdma_disabled: host.rdma_disabled == Some(true),
        sip_enabled: host.sip_enabled == Some(true),
        timestamp: Text::from(timestamp.as_str()),
        ..Blob::default()
    });
    let register = Register {
        hardware: Hardware {
            machine_model: Text::from(std::env::consts::ARCH),
            chip_name: Text::from(chip),
            chip_family: Text::from("Unknown"),
            chip_tier: Text::from("Unknown"),
            memory_gb: i64::try_from(memory.physical_bytes >> 30).unwrap_or(i64::MAX),
            memory_available_gb: gib(memory.available_bytes),
            cpu_cores: CpuCores {
                total: i64::from(host.cores),
                performance: i64::from(host.cores),
                efficiency: 0,
            },
            gpu_cores: 0,
            memory_bandwidth_gbs: 0.0,
        },
        models: offered.iter().map(Offered::entry).collect(),
        backend: Text::from("cereus-mlx"),
        version: Text::from(version),
        public_key: Text::from(sealing_key),
        encrypted_response_chunks: true,
        sealed_sessions: true,
        attestation: Some(Verbatim(&blob)),
        auth_token: Text::from(earn_key),
        // By construction the engine is in this process and nothing listens. What nobody looked up
        // is not promised: a coordinator may require it, and would be deceived.
        privacy_capabilities: Some(PrivacyCapabilities {
            text_backend_inprocess: true,
            text_proxy_disabled: true,
            sip_enabled: host.sip_enabled == Some(true),
            ..PrivacyCapabilities::default()
        }),
        ..Register::default()
    };
    let mut frame = Vec::new();
    register.encode(&mut frame);
    frame
}

/// All that is served, as it is known now: a coordinator may take it for the whole of it.
pub(crate) fn update_frame(offered: &[Offered]) -> Vec<u8> {
    let update = ModelsUpdate {
        models: offered.iter().map(Offered::entry).collect(),
    };
    let mut frame = Vec::new();
    update.encode(&mut frame);
    frame
}

/// What a heartbeat is made of.
pub(crate) struct State<'a> {
    pub(crate) host: &'a Host,
    pub(crate) slots: &'a Slots,
    pub(crate) engines: &'a Engines,
    pub(crate) measured: Measured,
}

/// `ids` are the models' names. The agent fills in status, counters and the sequence number.
pub(crate) fn heartbeat<'a>(now: Tick, ids: &'a [String], state: &State<'_>) -> Heartbeat<'a> {
    let State {
        host,
        slots,
        engines,
        measured,
    } = *state;
    let cap = &slots.config().cap;
    let physical = cap.physical_bytes();
    let used = physical.saturating_sub(measured.memory.available_bytes);
    let views: Vec<SlotView> = slots.views(now).collect();
    let id = |view: &SlotView| Text::from(ids[usize::from(view.build.0)].as_str());
    let running = views.iter().find(|view| view.state == SlotState::Running);
    let warm = views.iter().filter(|view| view.state.is_warm());
    let library = process_memory();
    let held = slots.occupancy(measured, Eviction::Allowed);
    Heartbeat {
        active_model: running.map(id),
        warm_models: warm.map(id).collect(),
        system_metrics: SystemMetrics {
            memory_pressure: ratio(used, physical),
            cpu_usage: host.load(),
            thermal_state: Text::from("nominal"),
        },
        backend_capacity: Some(Capacity {
            slots: views
                .iter()
                .map(|view| slot(id(view), view, engines.sight(view.build)))
                .collect(),
            gpu_memory_active_gb: gib(library.active_bytes),
            gpu_memory_peak_gb: gib(library.peak_bytes),
            gpu_memory_cache_gb: gib(library.cache_bytes),
            total_memory_gb: gib(physical),
            free_for_load_gb: Some(gib(slots.max_loadable_bytes())),
            load_usable_gb: Some(gib(cap.free_for_load_bytes(held))),
            load_headroom_gb: Some(gib(cap.load_headroom_bytes())),
            load_transition_active: Some(slots.is_in_transition()),
            capacity_seq: 0,
        }),
        ..Heartbeat::default()
    }
}

/// The state is what the slots make of the engine; the rest is what the engine counts, while there
/// is one.
fn slot<'a>(model: Text<'a>, view: &SlotView, sight: Option<Sight>) -> Slot<'a> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let plain = Slot {
        model,
        state: Text::from(view.state.as_str()),
        model_load_time_ms: count(view.load_time.as_millis_floor()),
        wedge_suspected: view.is_suspect,
        ..Slot::default()
    };
    let Some(sight) = sight else { return plain };
    let capacity = sight.capacity;
    let since_step = view.since_step.map(|span| Duration::from_micros(span.0));
    Slot {
        num_running: i64::from(capacity.num_running),
        num_waiting: i64::from(capacity.num_waiting),
        max_concurrency: i64::from(capacity.max_concurrency),
        active_tokens: count(capacity.active_tokens),
        max_tokens_potential: count(capacity.max_tokens_potential),
        observed_decode_tps: capacity.observed_decode_tps.unwrap_or(0.0),
        observed_prefill_tps: capacity.observed_prefill_tps.unwrap_or(0.0),
        active_token_budget_used: count(capacity.active_token_budget_used),
        active_token_budget_max: count(capacity.active_token_budget_max),
        queued_token_budget: count(capacity.queued_token_budget),
        kv_backend: sight.kv_backend.map(Text::from),
        prefix_cache: sight.kv_backend.is_some().then(|| PrefixCache {
            prompt_tokens: count(capacity.prompt_tokens),
            cached_tokens: count(capacity.cached_tokens),
        }),
        kv_bytes_per_token: count(capacity.kv_bytes_per_token),
        steps_executed: count(capacity.steps_executed),
        admits: count(capacity.admits),
        first_tokens_emitted: count(capacity.first_tokens_emitted),
        seconds_since_last_step: seconds(since_step),
        seconds_since_last_first_token: seconds(sight.since_first_token),
        ..plain
    }
}

/// Zero, which is not written, where it never happened.
fn seconds(since: Option<Duration>) -> f64 {
    since.map_or(0.0, |since| since.as_secs_f64())
}

pub(crate) fn gib(bytes: u64) -> f64 {
    bytes as f64 / GIB
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cereus_core::memory::{MemoryCap, MemoryPolicy};
    use cereus_core::slots::{
        BuildIx, JobId, PressureLimits, SlotsConfig, SlotsEffect, SlotsEvent, Strain,
    };
    use cereus_core::time::Span;
    use cereus_core::wire::ToCoordinator;

    use super::*;
    use crate::weights::KnownHashes;
    use crate::{Backend, ModelSource};

    fn echo(id: &str) -> Offered {
        let source = ModelSource {
            id: id.to_owned(),
            backend: Backend::Echo {
                words: 1,
                pause: Duration::ZERO,
                weights_bytes: 1 << 30,
            },
        };
        Offered::open(source, &KnownHashes::open(Path::new("nowhere"))).unwrap()
    }

    /// A machine of which nothing is known but its size.
    fn host() -> Host {
        Host {
            chip: "Chip".to_owned(),
            cores: 8,
            os_version: "26.0".to_owned(),
            sip_enabled: None,
            rdma_disabled: None,
        }
    }

    fn memory() -> MemoryReading {
        MemoryReading {
            physical_bytes: 64 << 30,
            available_bytes: 64 << 30,
            strain: Strain::default(),
        }
    }

    #[test]
    fn the_first_frame_says_who_signs_and_what_is_served() {
        let key = MachineKey::from_bytes([1; 32]).unwrap();
        let offered = [echo("tiny"), echo("big")];
        let frame = register_frame(&key, &host(), "KEY", &offered, memory(), "", 0);
        let ToCoordinator::Register(register) = ToCoordinator::decode(&frame).unwrap() else {
            panic!("it is a register frame");
        };
        let ids: Vec<&str> = register.models.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["tiny", "big"]);
        assert_eq!(register.models[0].template_render_ok, Some(true));
        assert!(register.encrypted_response_chunks);
        assert!(register.attestation.is_some());
        assert_eq!(register.hardware.memory_gb, 64);
    }

    #[test]
    fn nothing_is_promised_of_the_system_that_nobody_looked_up() {
        let key = MachineKey::from_bytes([1; 32]).unwrap();
        let of = |host: &Host| {
            let frame = register_frame(&key, host, "KEY", &[], memory(), "", 0);
            let ToCoordinator::Register(register) = ToCoordinator::decode(&frame).unwrap() else {
                panic!("it is a register frame");
            };
            let blob = register.attestation.unwrap().as_str().to_owned();
            (register.privacy_capabilities.unwrap(), blob)
        };
        let (promised, blob) = of(&host());
        assert!(!promised.sip_enabled && !promised.python_runtime_locked);
        assert!(!promised.dangerous_modules_blocked && !promised.core_dumps_disabled);
        assert!(blob.contains(r#""rdmaDisabled":false"#), "{blob}");
        assert!(blob.contains(r#""sipEnabled":false"#), "{blob}");
        let known = Host {
            sip_enabled: Some(true),
            rdma_disabled: Some(true),
            ..host()
        };
        let (promised, blob) = of(&known);
        assert!(promised.sip_enabled);
        assert!(blob.contains(r#""rdmaDisabled":true"#), "{blob}");
        assert!(blob.contains(r#""sipEnabled":true"#), "{blob}");
    }

    #[test]
    fn a_heartbeat_says_what_is_on_its_way_and_what_could_still_come() {
        let ids = ["tiny".to_owned(), "big".to_owned()];
        let config = SlotsConfig {
            cap: MemoryCap::new(64 << 30, MemoryPolicy::reference()),
            builds: vec![echo("tiny").spec(), echo("big").spec()],
            slots_max: 3,
            idle_wait: Span::ZERO,
            jobs_max: 4,
            pressure: PressureLimits::reference(),
        };
        let mut slots = Slots::new(Tick::ZERO, config);
        let reading = memory();
        let measured = Measured {
            memory: cereus_core::memory::MemoryFacts {
                available_bytes: reading.available_bytes,
                engine_used_bytes: 0,
            },
            ..Measured::default()
        };
        let mut out = Vec::new();
        let asked = SlotsEvent::Asked {
            job: JobId(1),
            build: BuildIx(1),
        };
        slots.step(Tick::ZERO, asked, &mut out);
        slots.step(Tick::ZERO, SlotsEvent::Measured(measured), &mut out);
        assert!(
            out.iter()
                .any(|it| matches!(it, SlotsEffect::BeginLoad { .. }))
        );
        let engines = Engines::default();
        let host = host();
        let state = State {
            host: &host,
            slots: &slots,
            engines: &engines,
            measured,
        };
        let beat = heartbeat(Tick::ZERO, &ids, &state);
        let capacity = beat.backend_capacity.unwrap();
        let told: Vec<(&str, &str)> = capacity
            .slots
            .iter()
            .map(|slot| (slot.model.as_str(), slot.state.as_str()))
            .collect();
        assert_eq!(told, [("big", "reloading")]);
        assert_eq!(capacity.load_transition_active, Some(true));
        // 64 - 6.4 above the cap, 1.2 on its way, 3 + 1 of headroom.
        let free = capacity.free_for_load_gb.unwrap();
        assert!((free - 52.4).abs() < 0.01, "{free}");
        assert!(beat.warm_models.is_empty() && beat.active_model.is_none());
    }
}
