//! macOS: asks `sysctl` and `vm_stat`. Not run yet on any Mac: only what reads their answers is
//! tested. Not sysinfo: what that calls available counts purgeable pages and the compressor too.

use std::process::{Command, Stdio};

use super::vm_stat::reading;
use super::{MemoryProbe, MemoryReading};

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(
    not(target_os = "macos"),
    expect(dead_code, reason = "built for its tests")
)]
pub struct MacMemory;

impl MemoryProbe for MacMemory {
    fn read(&self) -> MemoryReading {
        let physical = printed("/usr/sbin/sysctl", &["-n", "hw.memsize"]);
        let swap = printed("/usr/sbin/sysctl", &["-n", "vm.swapusage"]);
        reading(&physical, &swap, &printed("/usr/bin/vm_stat", &[]))
    }
}

fn printed(program: &str, words: &[&str]) -> String {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output();
    output.map_or_else(
        |_| String::new(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}
