//! `cereus benchmark` as a person runs it.

use std::process::{Command, Output};

use serde_json::Value;

fn benchmark(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cereus"))
        .arg("benchmark")
        .args(args)
        .output()
        .unwrap()
}

fn report(args: &[&str]) -> Value {
    let output = benchmark(args);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[cfg(feature = "mlx")]
#[test]
fn each_size_of_batch_is_measured_on_the_tiny_model() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../engine/models/tiny");
    let sizes = [
        "--rows",
        "3,1",
        "--prompt",
        "20",
        "--new",
        "24",
        "--iterations",
        "1",
    ];
    let report = report(&[&[folder, "--json"], &sizes[..]].concat());
    assert_eq!(report["model"], "tiny");
    assert_eq!(report["unmeasured"], serde_json::json!([]));
    let cells = report["cells"].as_array().unwrap();
    let rows: Vec<_> = cells
        .iter()
        .map(|cell| cell["rows"].as_u64().unwrap())
        .collect();
    assert_eq!(rows, [1, 3]);
    for cell in cells {
        assert_eq!(cell["prompt_tokens"], 20.0, "{cell}");
        for name in [
            "prefill_tokens_per_second",
            "first_token_ms",
            "decode_tokens_per_second",
        ] {
            assert!(cell[name].as_f64().unwrap() > 0.0, "{name} in {cell}");
        }
    }
    assert_eq!(cells[0]["decode_linearity"], 1.0);
    assert!(report["kv_bytes_per_token"].as_u64().unwrap() > 0);
}

#[test]
fn what_does_not_fit_is_said_and_not_left_out() {
    let sizes = [
        "--echo",
        "--rows",
        "1",
        "--prompt",
        "200000",
        "--new",
        "2",
        "--iterations",
        "1",
    ];
    let output = benchmark(&sizes);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("the model takes 131072"), "{said}");
}
