//! The swap guard: a machine that begins to swap takes nothing more and gives memory back, until it has been
//! calm for a while. Caps alone do not help here, because they do not see the owner's own programs grow.

use crate::time::{Span, Tick};

/// What the system says of its want of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Strain {
    /// Pages written out, in bytes.
    pub swap_used_bytes: u64,
    /// Share of the last ten seconds in which nothing could run for want of memory, in parts per
    /// million; `None` where the system does not say.
    pub stalled_ppm: Option<u32>,
}

/// Where the guard acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PressureLimits {
    /// Stalls from here on are pressure.
    pub stall_stop_ppm: u32,
    /// Only stalls below this are calm.
    pub stall_calm_ppm: u32,
    /// Growth of the swap within [`PressureLimits::window`] that is pressure.
    pub swap_growth_stop_bytes: u64,
    pub window: Span,
    /// How long it must be calm before anything is taken again.
    pub calm_wait: Span,
}

impl PressureLimits {
    /// A tenth of the time stalled is a machine that its owner feels; a hundredth is not.
    #[must_use]
    pub const fn reference() -> Self {
        Self {
            stall_stop_ppm: 100_000,
            stall_calm_ppm: 10_000,
            swap_growth_stop_bytes: 256 << 20,
            window: Span::secs(60),
            calm_wait: Span::secs(30),
        }
    }
}

/// Grants are halved when pressure begins, and again after each window of it, down to an eighth.
const HALVINGS_MAX: u8 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct PressureGuard {
    limits: PressureLimits,
    window: Option<Window>,
    pressed: Option<Pressed>,
}

/// Swap is compared with what it was when the window opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Window {
    opened_at: Tick,
    swap_used_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pressed {
    halvings: u8,
    halved_at: Tick,
    strained_at: Tick,
}

/// What a look at the strain changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Calmed,
    Pressed,
    Same,
}

impl PressureGuard {
    pub(super) const fn new(limits: PressureLimits) -> Self {
        Self {
            limits,
            window: None,
            pressed: None,
        }
    }

    pub(super) const fn is_pressed(&self) -> bool {
        self.pressed.is_some()
    }

    /// What is left of a grant.
    pub(super) fn granted(&self, bytes: u64) -> u64 {
        bytes >> self.pressed.map_or(0, |pressed| pressed.halvings)
    }

    pub(super) fn look(&mut self, now: Tick, strain: Strain) -> Turn {
        let grew = self.swap_growth(now, strain.swap_used_bytes);
        let stalled_ppm = strain.stalled_ppm.unwrap_or(0);
        let is_strained =
            stalled_ppm >= self.limits.stall_stop_ppm || grew >= self.limits.swap_growth_stop_bytes;
        let Some(pressed) = &mut self.pressed else {
            if is_strained {
                self.pressed = Some(Pressed {
                    halvings: 1,
                    halved_at: now,
                    strained_at: now,
                });
                return Turn::Pressed;
            }
            return Turn::Same;
        };
        if is_strained || stalled_ppm >= self.limits.stall_calm_ppm {
            pressed.strained_at = now;
        }
        if now.since(pressed.strained_at) >= self.limits.calm_wait {
            self.pressed = None;
            return Turn::Calmed;
        }
        let is_due = now.since(pressed.halved_at) >= self.limits.window;
        if is_strained && is_due && pressed.halvings < HALVINGS_MAX {
            pressed.halvings += 1;
            pressed.halved_at = now;
            return Turn::Pressed;
        }
        Turn::Same
    }

    /// Growth since the window opened; opens a new one when it is over, and after a growth that
    /// counted, so that the same growth counts once.
    fn swap_growth(&mut self, now: Tick, swap_used_bytes: u64) -> u64 {
        let fresh = Window {
            opened_at: now,
            swap_used_bytes,
        };
        let window = self.window.get_or_insert(fresh);
        let grew = swap_used_bytes.saturating_sub(window.swap_used_bytes);
        let is_over = now.since(window.opened_at) >= self.limits.window;
        let is_lower = swap_used_bytes < window.swap_used_bytes;
        if is_over || is_lower || grew >= self.limits.swap_growth_stop_bytes {
            *window = fresh;
        }
        grew
    }
}
