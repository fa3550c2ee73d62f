//! The numeric tests as other machines run them: with the arithmetic that OpenBLAS chooses for other
//! CPUs, and with the kernels held to narrower vectors. Everything is built already: only variables
//! differ, which the libraries read when a test begins.

use std::fs;
use std::process::Command;

use crate::demo::cargo_in_tree;
use crate::say;
use crate::stages::TENSORS;

/// One machine that this one can stand for.
struct Machine {
    name: &'static str,
    variable: &'static str,
    value: &'static str,
    /// What this CPU must have, as Linux calls it; all of them.
    flags: &'static [&'static str],
}

const CORE_TYPE: &str = "OPENBLAS_CORETYPE";
const MACHINES: [Machine; 4] = [
    Machine {
        name: "HASWELL",
        variable: CORE_TYPE,
        value: "HASWELL",
        flags: &["avx2", "fma"],
    },
    Machine {
        name: "SKYLAKEX",
        variable: CORE_TYPE,
        value: "SKYLAKEX",
        flags: &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"],
    },
    Machine {
        name: "ZEN",
        variable: CORE_TYPE,
        value: "ZEN",
        flags: &["avx2", "fma"],
    },
    // Read by the engine's kernels.
    Machine {
        name: "narrow vectors",
        variable: "CEREUS_VECTORS",
        value: "narrow",
        flags: &[],
    },
];

/// The test files of the engine whose results are numbers, and the filter of its unit tests that are.
const FILES: &[&str] = &["formats", "model", "paged", "schedules"];
const UNITS: &str = "kernels::";

/// The tests to run, each with what to say of it. Machines that this one cannot stand for are said to
/// be left out.
pub(crate) fn tests() -> Vec<(&'static str, Command)> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let flags = flags(&cpuinfo);
    let mut tests = vec![];
    for machine in &MACHINES {
        if let Some(missing) = machine.missing(&flags) {
            say::note(&format!(
                "{} is skipped: this CPU has no {missing}",
                machine.name
            ));
            continue;
        }
        let files = FILES.iter().flat_map(|file| ["--test", file]);
        let mut by_file = machine.cargo_test();
        by_file.args(files);
        let mut units = machine.cargo_test();
        units.args(["--lib", "--", UNITS]);
        tests.extend([by_file, units].map(|command| (machine.name, command)));
    }
    tests
}

impl Machine {
    fn missing(&self, flags: &[&str]) -> Option<&'static str> {
        let mut needed = self.flags.iter().copied();
        needed.find(|flag| !flags.contains(flag))
    }

    fn cargo_test(&self) -> Command {
        let mut command = cargo_in_tree("test");
        // The workspace's own features, or everything would be compiled again.
        command
            .args(["--workspace", "--no-fail-fast"])
            .args(TENSORS);
        command.env(self.variable, self.value);
        command
    }
}

/// What the first CPU has; nothing where the system does not tell in this way.
fn flags(cpuinfo: &str) -> Vec<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"));
    let listed = line.and_then(|line| line.split_once(':'));
    listed.map_or(vec![], |(_, flags)| flags.split_whitespace().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_stands_for_those_whose_every_flag_it_has() {
        let missing = |flags: &[&str]| MACHINES.each_ref().map(|it| it.missing(flags));
        let cpuinfo = "processor : 0\nflags\t\t: fpu fma avx2\n\nprocessor : 1\nflags\t\t: fpu\n";
        assert_eq!(
            missing(&flags(cpuinfo)),
            [None, Some("avx512f"), None, None]
        );
        let whole = "flags : avx2 fma avx512f avx512bw avx512cd avx512dq avx512vl";
        assert_eq!(missing(&flags(whole)), [None; 4]);
        // An Arm CPU has features, and another family of core types.
        let arm = flags("Features : fp asimd\n");
        assert_eq!(
            missing(&arm),
            [Some("avx2"), Some("avx512f"), Some("avx2"), None]
        );
    }
}
