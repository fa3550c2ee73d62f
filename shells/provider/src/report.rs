//! What the machine is (`register`) and how it is doing (`heartbeat`).

use std::fs;

use cereus_core::wire::Frame as _;
use cereus_core::wire::Text;
use cereus_core::wire::clock::utc_text;
use cereus_core::wire::messages::{
    Capacity, CpuCores, Hardware, Heartbeat, ModelEntry, PrivacyCapabilities, Register, Slot,
    SystemMetrics,
};
use cereus_core::wire::proof::{Blob, MachineKey};
use cereus_engine::runtime::CapacitySnapshot;

use crate::old_weights::Weights;

const GIB: f64 = (1u64 << 30) as f64;
/// The share of what the system has available that a model may take (`spec/wire` 4.2.2).
const LOADABLE_SHARE: f64 = 0.9;
/// Reported where the system says nothing of its memory.
const MEMORY_BYTES_UNKNOWN: u64 = 8 << 30;

/// The whole first frame of a session.
pub(crate) fn register_frame(
    key: &MachineKey,
    sealing_key: &str,
    model_id: &str,
    weights: &Weights,
    earn_key: &str,
    now_unix_s: u64,
) -> Vec<u8> {
    let system = System::read();
    let chip = system.chip.as_str();
    let timestamp = utc_text(now_unix_s);
    let public = key.attested().text();
    let version = env!("CARGO_PKG_VERSION");
    // A key file proves the same machine again and nothing of its system, and says so.
    let blob = key.sign_blob(&Blob {
        chip_name: Text::from(chip),
        encryption_public_key: Some(Text::from(sealing_key)),
        hardware_model: Text::from(std::env::consts::ARCH),
        os_version: Text::from("0.0.0"),
        public_key: Text::from(public.as_str()),
        rdma_disabled: true,
        timestamp: Text::from(timestamp.as_str()),
        ..Blob::default()
    });
    let register = Register {
        hardware: Hardware {
            machine_model: Text::from(std::env::consts::ARCH),
            chip_name: Text::from(chip),
            chip_family: Text::from("Unknown"),
            chip_tier: Text::from("Unknown"),
            memory_gb: i64::try_from(system.memory_total >> 30).unwrap_or(i64::MAX),
            memory_available_gb: gib(system.memory_available),
            cpu_cores: CpuCores {
                total: system.cores,
                performance: system.cores,
                efficiency: 0,
            },
            gpu_cores: 0,
            memory_bandwidth_gbs: 0.0,
        },
        models: vec![ModelEntry {
            id: Text::from(model_id),
            size_bytes: i64::try_from(weights.size).unwrap_or(i64::MAX),
            weight_hash: Text::from(weights.hash.as_str()),
            template_render_ok: Some(true),
            estimated_memory_gb: gib(weights.size),
            ..ModelEntry::default()
        }],
        backend: Text::from("cereus-mlx"),
        version: Text::from(version),
        public_key: Text::from(sealing_key),
        encrypted_response_chunks: true,
        attestation: Some(&blob),
        auth_token: Text::from(earn_key),
        privacy_capabilities: Some(PrivacyCapabilities {
            text_backend_inprocess: true,
            text_proxy_disabled: true,
            python_runtime_locked: true,
            dangerous_modules_blocked: true,
            ..PrivacyCapabilities::default()
        }),
        ..Register::default()
    };
    let mut frame = Vec::new();
    register.encode(&mut frame);
    frame
}

/// The agent fills in status, counters and the sequence number.
pub(crate) fn heartbeat<'a>(model_id: &'a str, capacity: &CapacitySnapshot) -> Heartbeat<'a> {
    let system = System::read();
    let is_busy = capacity.num_running > 0;
    let used = system.memory_total.saturating_sub(system.memory_available);
    Heartbeat {
        active_model: is_busy.then(|| Text::from(model_id)),
        warm_models: vec![Text::from(model_id)],
        system_metrics: SystemMetrics {
            memory_pressure: ratio(used, system.memory_total),
            cpu_usage: system.load,
            thermal_state: Text::from("nominal"),
        },
        backend_capacity: Some(Capacity {
            slots: vec![slot(model_id, capacity)],
            gpu_memory_active_gb: gib(capacity.memory.active_bytes),
            gpu_memory_peak_gb: gib(capacity.memory.peak_bytes),
            gpu_memory_cache_gb: gib(capacity.memory.cache_bytes),
            total_memory_gb: gib(system.memory_total),
            free_for_load_gb: Some(gib(system.memory_available) * LOADABLE_SHARE),
            ..Capacity::default()
        }),
        ..Heartbeat::default()
    }
}

fn slot<'a>(model_id: &'a str, capacity: &CapacitySnapshot) -> Slot<'a> {
    let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    Slot {
        model: Text::from(model_id),
        state: Text::from(capacity.state()),
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
        kv_bytes_per_token: count(capacity.kv_bytes_per_token),
        model_load_time_ms: count(capacity.model_load_time_ms),
        steps_executed: count(capacity.steps_executed),
        admits: count(capacity.admits),
        first_tokens_emitted: count(capacity.first_tokens_emitted),
        ..Slot::default()
    }
}

pub(crate) fn memory_total_bytes() -> u64 {
    System::read().memory_total
}

/// What the system says of itself, where it is Linux.
struct System {
    chip: String,
    cores: i64,
    /// 0 to 1.
    load: f64,
    memory_total: u64,
    memory_available: u64,
}

impl System {
    fn read() -> Self {
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let load: f64 = load
            .split(' ')
            .next()
            .and_then(|text| text.parse().ok())
            .unwrap_or_default();
        let memory_total = kib_of(&memory, "MemTotal:").unwrap_or(MEMORY_BYTES_UNKNOWN);
        Self {
            chip: line_of(&cpu, "model name").unwrap_or("Unknown").to_owned(),
            cores: i64::try_from(cores).unwrap_or(i64::MAX),
            load: (load / cores as f64).clamp(0.0, 1.0),
            memory_total,
            memory_available: kib_of(&memory, "MemAvailable:").unwrap_or(memory_total / 2),
        }
    }
}

/// Bytes of a line of `/proc/meminfo`.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

fn line_of<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
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
    use cereus_core::wire::ToCoordinator;

    use super::*;

    #[test]
    fn the_first_frame_says_who_signs_and_what_is_served() {
        let key = MachineKey::from_bytes([1; 32]).unwrap();
        let weights = Weights {
            hash: "ab".to_owned(),
            size: 3,
        };
        let frame = register_frame(&key, "KEY", "tiny", &weights, "", 0);
        let ToCoordinator::Register(register) = ToCoordinator::decode(&frame).unwrap() else {
            panic!("it is a register frame");
        };
        assert_eq!(register.models[0].id.as_str(), "tiny");
        assert_eq!(register.models[0].weight_hash.as_str(), "ab");
        assert!(register.encrypted_response_chunks);
        assert!(register.attestation.is_some());
        assert!(register.hardware.memory_gb > 0);
    }

    #[test]
    fn memory_is_read_from_its_lines() {
        let text = "MemTotal:       16 kB\nMemAvailable:    4 kB\n";
        assert_eq!(kib_of(text, "MemTotal:"), Some(16_384));
        assert_eq!(kib_of(text, "MemFree:"), None);
        assert_eq!(kib_of("MemTotal: x kB", "MemTotal:"), None);
    }
}
