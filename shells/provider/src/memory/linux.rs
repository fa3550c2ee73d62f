//! Linux: `/proc/meminfo`, the limits of the control groups that this process is in, and pressure
//! stall information.
//!
//! By hand, beside sysinfo in `host`: that looks at no control group but the top one, and takes what
//! was read from files for used up; it has no pressure, and no other root for tests.

use std::fs;
use std::path::{Path, PathBuf};

use cereus_core::slots::Strain;

use super::{MemoryProbe, MemoryReading, PHYSICAL_BYTES_UNKNOWN, percent_ppm};

/// See the module.
#[derive(Clone, Debug)]
pub struct LinuxMemory {
    /// `/`; another folder in tests.
    root: PathBuf,
}

/// What one control group allows and has, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    limit: u64,
    used: u64,
}

/// The files of one version of control groups.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// File pages that nobody used lately, in `memory.stat`.
    spare: &'static str,
}

const V1: Names = Names {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    spare: "total_inactive_file ",
};
const V2: Names = Names {
    limit: "memory.max",
    used: "memory.current",
    spare: "inactive_file ",
};

impl Default for LinuxMemory {
    fn default() -> Self {
        Self {
            root: PathBuf::from("/"),
        }
    }
}

impl MemoryProbe for LinuxMemory {
    fn read(&self) -> MemoryReading {
        let meminfo = self.text("proc/meminfo");
        let total = kib_of(&meminfo, "MemTotal:").unwrap_or(PHYSICAL_BYTES_UNKNOWN);
        let available = kib_of(&meminfo, "MemAvailable:").unwrap_or(total / 2);
        let swap_total = kib_of(&meminfo, "SwapTotal:").unwrap_or(0);
        let swap_free = kib_of(&meminfo, "SwapFree:").unwrap_or(0);
        let mut reading = MemoryReading {
            physical_bytes: total,
            available_bytes: available,
            strain: Strain {
                swap_used_bytes: swap_total.saturating_sub(swap_free),
                stalled_ppm: full_ppm(&self.text("proc/pressure/memory")),
            },
        };
        for folder in self.group_folders() {
            let Some(group) = group(&folder) else {
                continue;
            };
            reading.physical_bytes = reading.physical_bytes.min(group.limit);
            let left = group.limit.saturating_sub(group.used);
            reading.available_bytes = reading.available_bytes.min(left);
            let pressure = fs::read_to_string(folder.join("memory.pressure"));
            let own = pressure.ok().and_then(|text| full_ppm(&text));
            reading.strain.stalled_ppm = reading.strain.stalled_ppm.max(own);
        }
        reading
    }
}

impl LinuxMemory {
    fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// The groups that bound this process: its own and those around it, of both versions.
    fn group_folders(&self) -> Vec<PathBuf> {
        let mounted = self.root.join("sys/fs/cgroup");
        let mut folders = Vec::new();
        for line in self.text("proc/self/cgroup").lines() {
            let mut parts = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let top = match controllers {
                "" => mounted.clone(),
                _ if controllers.split(',').any(|it| it == "memory") => mounted.join("memory"),
                _ => continue,
            };
            // Inside a container the path may be that of the host, which does not exist here; then
            // only the top folder of the controller does.
            let path = Path::new(path.trim_start_matches('/'));
            folders.extend(path.ancestors().map(|part| top.join(part)));
        }
        folders
    }
}

/// `None` where there is no limit.
fn group(folder: &Path) -> Option<Group> {
    [V2, V1].iter().find_map(|names| {
        let number = |name: &str| -> Option<u64> {
            let text = fs::read_to_string(folder.join(name)).ok()?;
            text.trim().parse().ok()
        };
        let limit = number(names.limit)?;
        let used = number(names.used)?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let spare = stat.lines().find_map(|line| line.strip_prefix(names.spare));
        // What was read from files counts as used, and goes when something else needs the room.
        let spare: u64 = spare.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        Some(Group {
            limit,
            used: used.saturating_sub(spare),
        })
    })
}

/// Bytes of a line of `/proc/meminfo`.
fn kib_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The share of the last ten seconds in which every task waited for memory.
fn full_ppm(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let average = line
        .split(' ')
        .find_map(|word| word.strip_prefix("avg10="))?;
    percent_ppm(average)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> (TempDir, LinuxMemory) {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let root = folder.path().to_owned();
        (folder, LinuxMemory { root })
    }

    const MEMINFO: (&str, &str) = (
        "proc/meminfo",
        "MemTotal: 1000 kB\nMemAvailable: 600 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n",
    );

    #[test]
    fn a_machine_without_limits_is_read_from_its_lines() {
        let (_folder, probe) = machine(&[
            MEMINFO,
            (
                "proc/pressure/memory",
                "some avg10=9.00 avg60=0 avg300=0 total=0\nfull avg10=1.25 avg60=0 total=9\n",
            ),
            ("proc/self/cgroup", "0::/user/me\n"),
            ("sys/fs/cgroup/user/me/memory.max", "max\n"),
        ]);
        let expected = MemoryReading {
            physical_bytes: 1_024_000,
            available_bytes: 614_400,
            strain: Strain {
                swap_used_bytes: 30 * 1_024,
                stalled_ppm: Some(12_500),
            },
        };
        assert_eq!(probe.read(), expected);
    }

    #[test]
    fn the_tightest_group_around_the_process_bounds_it() {
        let (_folder, probe) = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/slice/unit\n"),
            ("sys/fs/cgroup/slice/memory.max", "500000\n"),
            ("sys/fs/cgroup/slice/memory.current", "450000\n"),
            (
                "sys/fs/cgroup/slice/memory.stat",
                "active_file 9\ninactive_file 100000\n",
            ),
            ("sys/fs/cgroup/slice/unit/memory.max", "700000\n"),
            ("sys/fs/cgroup/slice/unit/memory.current", "100\n"),
            (
                "sys/fs/cgroup/slice/unit/memory.pressure",
                "some avg10=0.00\nfull avg10=30.5 avg60=1\n",
            ),
        ]);
        let reading = probe.read();
        assert_eq!(reading.physical_bytes, 500_000);
        assert_eq!(reading.available_bytes, 150_000);
        assert_eq!(reading.strain.stalled_ppm, Some(305_000));
    }

    #[test]
    fn groups_of_the_first_version_bound_as_well() {
        let top = "sys/fs/cgroup/memory";
        let (_folder, probe) = machine(&[
            MEMINFO,
            (
                "proc/self/cgroup",
                "5:cpu:/x\n4:cpuset,memory:/not/in/here\n",
            ),
            (&format!("{top}/memory.limit_in_bytes"), "400000\n"),
            (&format!("{top}/memory.usage_in_bytes"), "300000\n"),
            (
                &format!("{top}/memory.stat"),
                "inactive_file 1\ntotal_inactive_file 50000\n",
            ),
        ]);
        assert_eq!(probe.read().physical_bytes, 400_000);
        assert_eq!(probe.read().available_bytes, 150_000);
    }

    #[test]
    fn a_limit_beyond_the_machine_is_none() {
        let top = "sys/fs/cgroup/memory";
        let (_folder, probe) = machine(&[
            MEMINFO,
            ("proc/self/cgroup", "4:memory:/\n"),
            (
                &format!("{top}/memory.limit_in_bytes"),
                "9223372036854771712\n",
            ),
            (&format!("{top}/memory.usage_in_bytes"), "300000\n"),
        ]);
        assert_eq!(probe.read().physical_bytes, 1_024_000);
        assert_eq!(probe.read().available_bytes, 614_400);
    }

    #[test]
    fn what_cannot_be_read_is_assumed_and_never_a_panic() {
        let (_folder, probe) = machine(&[
            ("proc/meminfo", "MemTotal: x kB\n"),
            ("proc/self/cgroup", "nonsense\n0::\n"),
            ("sys/fs/cgroup/memory.max", "-1"),
            ("proc/pressure/memory", "full avg10=x\n"),
        ]);
        let reading = probe.read();
        assert_eq!(reading.physical_bytes, PHYSICAL_BYTES_UNKNOWN);
        assert_eq!(reading.strain, Strain::default());
    }

    #[test]
    fn this_machine_has_memory() {
        let reading = LinuxMemory::default().read();
        assert!(reading.available_bytes > 0);
        assert!(reading.available_bytes <= reading.physical_bytes);
    }
}
