//! Which vectors the kernels run with: the widest that the machine has, unless they are held to
//! narrower ones, so that one machine can test what others will run.

use std::sync::LazyLock;

use pulp::Arch;

/// Set to `narrow`, it holds the kernels to the vectors next below the widest. Read once.
const SWITCH: &str = "CEREUS_VECTORS";
const NARROW: &str = "narrow";

/// What to dispatch a kernel by.
pub(super) fn arch() -> Arch {
    static ARCH: LazyLock<Arch> = LazyLock::new(|| {
        if std::env::var_os(SWITCH).is_some_and(|value| value == NARROW) {
            narrow()
        } else {
            Arch::new()
        }
    });
    *ARCH
}

/// Eight numbers at once, where the machine has vectors of sixteen or of eight.
#[cfg(target_arch = "x86_64")]
fn narrow() -> Arch {
    pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3)
}

/// One number at once, as on a machine without vectors.
#[cfg(not(target_arch = "x86_64"))]
fn narrow() -> Arch {
    Arch::Scalar
}
