//! Traces as the binary takes them.

use std::io::Write as _;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;

const TRACE: &str = "TIMESTAMP,ContextTokens,GeneratedTokens\n\
                     2023-11-16 18:15:46,374,44\n2023-11-16 18:15:47,396,0\n";

fn report(name: &str, bytes: &[u8]) -> String {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_cereus-sim"))
        .args(["run", "--machines", "2", "--json"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_compressed_trace_is_the_trace() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(TRACE.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let plain = report("plain.csv", TRACE.as_bytes());
    assert_eq!(report("packed.csv.gz", &packed), plain);
    assert!(plain.contains("\"empty\":1"), "{plain}");
}
