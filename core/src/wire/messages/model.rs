//! Models that a provider has, and news of their loading.

use serde::Serialize;

use crate::wire::text::{Text, is_zero, tolerant};

tolerant! {
    /// One entry of `models`.
    #[derive(Clone, Debug, Default, PartialEq, Serialize)]
    pub struct ModelEntry<'a> {
        pub id: Text<'a>,
        pub size_bytes: i64,
        pub model_type: Text<'a>,
        pub quantization: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub weight_hash: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub is_vision: bool,
        /// Absent: no opinion. `false` must reach the wire: it fences the model off.
        #[serde(skip_serializing_if = "Option::is_none")]
        pub template_render_ok: Option<bool>,
        pub estimated_memory_gb: f64,
        #[serde(skip_serializing_if = "is_zero")]
        pub parameters: i64,
    }
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "load_model_status")]
    pub struct LoadModelStatus<'a> {
        pub model_id: Text<'a>,
        /// `started`, `succeeded` or `failed`.
        pub status: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub error: Text<'a>,
    }
}

impl LoadModelStatus<'_> {
    /// The exact `error` that makes a failed load a transient refusal.
    pub const DRAINING: &'static str = "provider draining for update";
}

tolerant! {
    #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
    #[serde(tag = "type", rename = "prefetch_model_status")]
    pub struct PrefetchModelStatus<'a> {
        pub model_id: Text<'a>,
        /// `started`, `downloading`, `verified` or `failed`.
        pub status: Text<'a>,
        #[serde(skip_serializing_if = "is_zero")]
        pub bytes_done: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub bytes_total: i64,
        #[serde(skip_serializing_if = "is_zero")]
        pub error: Text<'a>,
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(tag = "type", rename = "models_update")]
pub struct ModelsUpdate<'a> {
    pub models: Vec<ModelEntry<'a>>,
}

tolerant!('a, ModelsUpdate<'a>, { "models" => models });
