//! `heartbeat`: how a machine is doing ("Heartbeat" in `docs/protocol.md`).

use serde::Serialize;

use crate::wire::text::{Text, is_zero, tolerant};

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    #[serde(tag = "type", rename = "heartbeat")]
    pub struct Heartbeat<'a> {
        /// `idle`, `serving`, later `draining`.
        pub status: Text<'a>,
        /// Written as `null` when nothing generates.
        pub active_model: Option<Text<'a>>,
        pub stats: Stats,
        #[serde(skip_serializing_if = "is_zero")]
        pub warm_models: Vec<Text<'a>>,
        pub system_metrics: SystemMetrics<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub backend_capacity: Option<Capacity<'a>>,
        #[serde(skip_serializing_if = "is_zero")]
        pub apns_device_token: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub apns_environment: Text<'a>,
    }
}

tolerant! {
    /// Cumulative since the provider's process began.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
    pub struct Stats {
        pub requests_served: i64,
        pub tokens_generated: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub cancellations_received: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub cancellations_before_output: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub cancellations_partial_complete: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub generation_errors_after_output: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub chunk_encryption_errors: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub stream_closed_without_terminal: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub cancel_during_model_load: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub usage_gaps: i64,
    }
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct SystemMetrics<'a> {
        /// 0 to 1.
        pub memory_pressure: f64,
        /// 0 to 1.
        pub cpu_usage: f64,
        /// `nominal`, `fair`, `serious` or `critical`.
        pub thermal_state: Text<'a>,
    }
}

tolerant! {
    /// `backend_capacity`: the only truth about slots when it is there.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct Capacity<'a> {
        /// One entry for each model that is loaded or tracked. `[]` means none.
        pub slots: Vec<Slot<'a>>,
        pub gpu_memory_active_gb: f64,
        pub gpu_memory_peak_gb: f64,
        pub gpu_memory_cache_gb: f64,
        pub total_memory_gb: f64,
        /// Absent: unknown. 0: nothing can be loaded.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub free_for_load_gb: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub load_usable_gb: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub load_headroom_gb: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        pub load_transition_active: Option<bool>,
        /// Counts from 1 on each connection; 0 = not numbered.
        #[serde(skip_serializing_if = "is_zero")]
        pub capacity_seq: u64,
    }
}

/// One model on one machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Slot<'a> {
    pub model: Text<'a>,
    pub state: Text<'a>,
    pub num_running: i64,
    pub num_waiting: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub max_concurrency: i64,
    pub active_tokens: i64,
    pub max_tokens_potential: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_decode_tps: f64,
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_prefill_tps: f64,
    #[serde(skip_serializing_if = "is_zero")]
    pub active_token_budget_used: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub active_token_budget_max: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub queued_token_budget: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub kv_bytes_per_token: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub model_load_time_ms: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub steps_executed: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub admits: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub first_tokens_emitted: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub seconds_since_last_step: f64,
    #[serde(skip_serializing_if = "is_zero")]
    pub seconds_since_last_first_token: f64,
    #[serde(skip_serializing_if = "is_zero")]
    pub wedge_suspected: bool,
    #[serde(skip_serializing_if = "is_zero")]
    pub eval_in_flight_ms: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub idle_clear_in_flight_ms: i64,
    /// `paged` or `contiguous`; absent: unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kv_backend: Option<Text<'a>>,
    /// Written, and never read: no decision needs it, and others give it other shapes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix_cache: Option<PrefixCache>,
}

/// How much of the prompts had been computed before, since the model was loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PrefixCache {
    pub prompt_tokens: i64,
    /// Of them, found and not computed again.
    pub cached_tokens: i64,
}

tolerant!('a, Slot<'a>, {
    "model" => model,
    "state" => state,
    "num_running" => num_running,
    "num_waiting" => num_waiting,
    "max_concurrency" => max_concurrency,
    "active_tokens" => active_tokens,
    "max_tokens_potential" => max_tokens_potential,
    "observed_decode_tps" => observed_decode_tps,
    "observed_prefill_tps" => observed_prefill_tps,
    "active_token_budget_used" => active_token_budget_used,
    "active_token_budget_max" => active_token_budget_max,
    "queued_token_budget" => queued_token_budget,
    "kv_bytes_per_token" => kv_bytes_per_token,
    "model_load_time_ms" => model_load_time_ms,
    "steps_executed" => steps_executed,
    "admits" => admits,
    "first_tokens_emitted" => first_tokens_emitted,
    "seconds_since_last_step" => seconds_since_last_step,
    "seconds_since_last_first_token" => seconds_since_last_first_token,
    "wedge_suspected" => wedge_suspected,
    "eval_in_flight_ms" => eval_in_flight_ms,
    "idle_clear_in_flight_ms" => idle_clear_in_flight_ms,
    "kv_backend" => kv_backend,
});
