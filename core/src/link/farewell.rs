//! What the last frame of a connection says.

use super::IDENTITY_CONTESTED;
use crate::event::GoneCause;

/// Close code and reason for each cause. Providers decide by them whether and when to come back.
pub(super) const fn farewell(cause: GoneCause) -> (u16, &'static str) {
    match cause {
        GoneCause::Closed => (1000, ""),
        GoneCause::Contested => (1008, IDENTITY_CONTESTED),
        GoneCause::Lost => (1001, "connection lost"),
        GoneCause::Replaced => (1000, "replaced by a newer connection"),
        GoneCause::Silent => (1008, "no heartbeat"),
        GoneCause::Violation => (1008, "protocol violation"),
        GoneCause::WriteStalled => (1011, "write stalled"),
    }
}
