//! When a row waits for its reader: pure.

/// What a row has said and nobody has read yet. Past a bound the row pauses, and once half of that is
/// read it goes on, so that a slow reader costs two turns for many events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flow {
    unread: u32,
    is_paused: bool,
}

impl Flow {
    /// Pieces that a consumer may leave unread before its row pauses, as in the published engine: as many
    /// as the coordinator holds for a consumer that is slow.
    pub const UNREAD_MAX: u32 = 256;

    /// The row said something. Whether it is to pause now.
    pub const fn said(&mut self, unread_max: u32) -> bool {
        self.unread = self.unread.saturating_add(1);
        let pauses = !self.is_paused && self.unread >= unread_max;
        self.is_paused |= pauses;
        pauses
    }

    /// So many were read. Whether the row is to go on now.
    pub const fn read(&mut self, events: u32, unread_max: u32) -> bool {
        self.unread = self.unread.saturating_sub(events);
        let goes_on = self.is_paused && self.unread <= unread_max / 2;
        self.is_paused &= !goes_on;
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_pauses_at_the_bound_and_goes_on_at_half_of_it() {
        let mut flow = Flow::default();
        assert!((1..256).all(|_| !flow.said(256)));
        assert!(flow.said(256));
        // What its last step said comes on top.
        assert!(!flow.said(256));
        assert!(!flow.read(128, 256));
        assert!(flow.read(1, 256));
        assert!(!flow.read(128, 256));
        assert!((1..256).all(|_| !flow.said(256)));
        assert!(flow.said(256));
    }

    #[test]
    fn reading_more_than_was_said_is_no_credit() {
        let mut flow = Flow::default();
        assert!(!flow.read(1_000, 2));
        assert!(!flow.said(2));
        assert!(flow.said(2));
        assert!(flow.read(u32::MAX, 2));
    }
}
