//! What this machine is, read once at the start, and how busy it is.

use std::fs;
use std::path::Path;

use sysinfo::{CpuRefreshKind, RefreshKind, System};

/// RDMA devices of a Linux machine, one entry each.
const RDMA_DEVICES: &str = "/sys/class/infiniband";

/// See the module. Nothing here is claimed that was not looked up.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Host {
    pub(crate) chip: String,
    pub(crate) cores: u16,
    pub(crate) os_version: String,
    /// System Integrity Protection; `None` where there is no such thing or it does not say.
    pub(crate) sip_enabled: Option<bool>,
    /// Whether no other machine can read this one's memory over the network; `None`: unknown.
    pub(crate) rdma_disabled: Option<bool>,
}

impl Host {
    pub(crate) fn read() -> Self {
        let cpus = RefreshKind::nothing().with_cpu(CpuRefreshKind::nothing());
        let system = System::new_with_specifics(cpus);
        let chip = system.cpus().first().map(sysinfo::Cpu::brand);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            chip: chip
                .filter(|brand| !brand.is_empty())
                .unwrap_or("Unknown")
                .to_owned(),
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            os_version: System::os_version().unwrap_or_else(|| "0.0.0".to_owned()),
            sip_enabled: sip_enabled(),
            rdma_disabled: rdma_disabled(Path::new(RDMA_DEVICES)),
        }
    }

    /// The share of its cores that was busy in the last minute, 0 to 1.
    pub(crate) fn load(&self) -> f64 {
        (System::load_average().one / f64::from(self.cores.max(1))).clamp(0.0, 1.0)
    }
}

#[cfg(target_os = "macos")]
fn sip_enabled() -> Option<bool> {
    let said = std::process::Command::new("/usr/bin/csrutil")
        .arg("status")
        .output()
        .ok()?;
    sip_of(&String::from_utf8_lossy(&said.stdout))
}

#[cfg(not(target_os = "macos"))]
fn sip_enabled() -> Option<bool> {
    None
}

/// Reads what `csrutil status` prints. A custom configuration is neither on nor off.
#[cfg(any(target_os = "macos", test))]
fn sip_of(text: &str) -> Option<bool> {
    let (_, status) = text.lines().next()?.split_once("status:")?;
    match status.trim().trim_end_matches('.') {
        "enabled" => Some(true),
        "disabled" => Some(false),
        _ => None,
    }
}

/// Linux lists its RDMA devices; another system is not asked.
fn rdma_disabled(devices: &Path) -> Option<bool> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    match fs::read_dir(devices) {
        Ok(mut devices) => Some(devices.next().is_none()),
        Err(error) => (error.kind() == std::io::ErrorKind::NotFound).then_some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protection_is_what_the_system_says_and_unknown_otherwise() {
        let table = [
            ("System Integrity Protection status: enabled.\n", Some(true)),
            (
                "System Integrity Protection status: disabled.\n",
                Some(false),
            ),
            (
                "System Integrity Protection status: unknown (Custom Configuration).\n\nConfiguration:\n",
                None,
            ),
            ("csrutil: command not found", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(sip_of(text), expected, "{text}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_linux_machine_has_no_protection_to_claim_and_counts_its_rdma_devices() {
        assert_eq!(Host::read().sip_enabled, None);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(rdma_disabled(&folder.path().join("absent")), Some(true));
        assert_eq!(rdma_disabled(folder.path()), Some(true));
        fs::write(folder.path().join("mlx5_0"), "").unwrap();
        assert_eq!(rdma_disabled(folder.path()), Some(false));
    }

    #[test]
    fn the_load_is_a_share() {
        let host = Host::read();
        assert!(!host.chip.is_empty() && host.cores > 0);
        assert!((0.0..=1.0).contains(&host.load()));
    }
}
