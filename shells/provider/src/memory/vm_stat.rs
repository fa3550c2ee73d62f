//! Reads what macOS's `sysctl` and `vm_stat` print.

use cereus_core::slots::Strain;

use super::{MemoryReading, PHYSICAL_BYTES_UNKNOWN, percent_ppm};

pub(super) fn reading(memsize: &str, swapusage: &str, vm_stat: &str) -> MemoryReading {
    let physical_bytes = memsize.trim().parse().unwrap_or(PHYSICAL_BYTES_UNKNOWN);
    let page_bytes = page_bytes(vm_stat).unwrap_or(16_384);
    let pages = |name: &str| {
        let line = vm_stat.lines().find_map(|line| line.strip_prefix(name));
        let count = line.and_then(|text| text.trim().trim_end_matches('.').parse::<u64>().ok());
        count.unwrap_or(0).saturating_mul(page_bytes)
    };
    let available = pages("Pages free:").saturating_add(pages("Pages inactive:"));
    MemoryReading {
        physical_bytes,
        available_bytes: available.min(physical_bytes),
        strain: Strain {
            swap_used_bytes: swap_used_bytes(swapusage).unwrap_or(0),
            // macOS has no figure for how long programs stood still for want of memory.
            stalled_ppm: None,
        },
    }
}

/// `Mach Virtual Memory Statistics: (page size of 16384 bytes)`
fn page_bytes(vm_stat: &str) -> Option<u64> {
    let (_, rest) = vm_stat.lines().next()?.split_once("page size of ")?;
    rest.split(' ').next()?.parse().ok()
}

/// `total = 2048.00M  used = 1012.25M  free = 1035.75M  (encrypted)`
fn swap_used_bytes(swapusage: &str) -> Option<u64> {
    let (_, rest) = swapusage.split_once("used = ")?;
    let mib = rest.split('M').next()?;
    // The number has two decimals, as a percentage has, so the reader of percentages reads it: in
    // hundredths of a MiB.
    let hundredths = u64::from(percent_ppm(mib)?) / 100;
    Some((hundredths << 20) / 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_macos_prints_is_read() {
        let vm_stat = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n\
            Pages free:                               10.\n\
            Pages active:                           9999.\n\
            Pages inactive:                           20.\n";
        let swap = "total = 2048.00M  used = 1012.25M  free = 1035.75M  (encrypted)\n";
        let expected = MemoryReading {
            physical_bytes: 17_179_869_184,
            available_bytes: 30 * 16_384,
            strain: Strain {
                swap_used_bytes: 1_061_421_056,
                stalled_ppm: None,
            },
        };
        assert_eq!(reading("17179869184\n", swap, vm_stat), expected);
        assert_eq!(reading("", "", "").physical_bytes, PHYSICAL_BYTES_UNKNOWN);
    }
}
