//! How the engine is doing: for people, for programs and for Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use cereus_engine::runtime::CapacitySnapshot;
use cereus_http::{Reply, json};
use serde_json::{Map, Value, json};

use crate::app::App;

/// A figure of the engine.
struct Figure {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: f64,
}

enum Kind {
    Counter,
    Gauge,
}

pub(super) async fn health(State(app): State<Arc<App>>) -> Reply {
    let capacity = app.capacity();
    let (status, text) = if capacity.has_crashed {
        (StatusCode::SERVICE_UNAVAILABLE, "crashed")
    } else if app.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ok")
    };
    let body = json!({"status": text, "model": app.model_id, "version": env!("CARGO_PKG_VERSION")});
    json(status, body.to_string())
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Reply {
    let capacity = app.capacity();
    let mut body: Map<String, Value> = figures(&capacity)
        .into_iter()
        .map(|figure| (figure.name.to_owned(), figure.value.into()))
        .collect();
    body.insert("model".to_owned(), app.model_id.as_str().into());
    body.insert("state".to_owned(), capacity.state().into());
    json(StatusCode::OK, Value::from(body).to_string())
}

pub(super) async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Reply {
    let mut page = String::new();
    for figure in figures(&app.capacity()) {
        let Figure {
            name, help, value, ..
        } = figure;
        let (kind, suffix) = match figure.kind {
            Kind::Counter => ("counter", "_total"),
            Kind::Gauge => ("gauge", ""),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(page, "# HELP cereus_{name} {help}");
        let _ = writeln!(page, "# TYPE cereus_{name} {kind}");
        let _ = writeln!(page, "cereus_{name}{suffix} {value}");
    }
    page.push_str("# EOF\n");
    cereus_http::metrics(&headers, page)
}

fn figures(capacity: &CapacitySnapshot) -> Vec<Figure> {
    use Kind::{Counter, Gauge};
    let figure = |name, kind, help, value| Figure {
        name,
        kind,
        help,
        value,
    };
    let count = |count: u64| count as f64;
    let rate = |rate: Option<f64>| rate.unwrap_or(0.0);
    vec![
        figure(
            "requests_running",
            Gauge,
            "Requests being answered.",
            capacity.num_running.into(),
        ),
        figure(
            "requests_waiting",
            Gauge,
            "Requests that wait.",
            capacity.num_waiting.into(),
        ),
        figure(
            "rows",
            Gauge,
            "Requests answered together.",
            capacity.max_concurrency.into(),
        ),
        figure(
            "tokens_active",
            Gauge,
            "Tokens of running requests.",
            count(capacity.active_tokens),
        ),
        figure(
            "kv_tokens_used",
            Gauge,
            "Tokens of the cache that are reserved.",
            count(capacity.active_token_budget_used),
        ),
        figure(
            "kv_tokens",
            Gauge,
            "Tokens that the cache holds.",
            count(capacity.active_token_budget_max),
        ),
        figure(
            "request_tokens",
            Gauge,
            "Tokens of prompt and answer that one request may have: an answer that reaches them \
             ends with length.",
            capacity.row_tokens_max.into(),
        ),
        figure(
            "context_tokens",
            Gauge,
            "The same by the model alone, were there memory enough.",
            capacity.context_tokens.into(),
        ),
        figure(
            "preemptions",
            Counter,
            "Times that a request made room for others and was computed again.",
            count(capacity.preemptions),
        ),
        figure(
            "prefill_tokens_per_second",
            Gauge,
            "Prompt tokens a second of one request, lately.",
            rate(capacity.observed_prefill_tps),
        ),
        figure(
            "decode_tokens_per_second",
            Gauge,
            "Answer tokens a second of one request, lately.",
            rate(capacity.observed_decode_tps),
        ),
        figure(
            "load_milliseconds",
            Gauge,
            "Time to load.",
            count(capacity.model_load_time_ms),
        ),
        figure(
            "disk_blocks_read",
            Counter,
            "Blocks of prompts that were read from disk.",
            count(capacity.disk.read),
        ),
        figure(
            "disk_files_written",
            Counter,
            "Files of blocks that were written.",
            count(capacity.disk.written),
        ),
        figure(
            "disk_runs_dropped",
            Counter,
            "Runs of blocks that were not written for want of room or time.",
            count(capacity.disk.dropped),
        ),
        figure(
            "memory_active_bytes",
            Gauge,
            "Memory in use.",
            count(capacity.memory.active_bytes),
        ),
        figure(
            "memory_peak_bytes",
            Gauge,
            "Most memory in use.",
            count(capacity.memory.peak_bytes),
        ),
        figure(
            "memory_cache_bytes",
            Gauge,
            "Memory kept.",
            count(capacity.memory.cache_bytes),
        ),
        figure(
            "steps",
            Counter,
            "Steps of the engine.",
            count(capacity.steps_executed),
        ),
        figure(
            "admissions",
            Counter,
            "Requests begun.",
            count(capacity.admits),
        ),
        figure(
            "first_tokens",
            Counter,
            "First tokens.",
            count(capacity.first_tokens_emitted),
        ),
    ]
}
