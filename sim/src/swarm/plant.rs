//! Bugs that are put in on purpose, to prove that an oracle notices.

use cereus_core::coordinator::Mischief;

/// A bug put in on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A clock that is set back goes back.
    ClockGoesBack,
    /// What a machine has shown counts until somebody is woken to look at it.
    ClosesWhenWoken,
    /// A hold is settled twice.
    DoubleSettle,
    /// Now and then a piece of an answer is lost in the process.
    DroppedChunk,
    /// A start takes only what the last process had heard to be on the disk.
    ForgetsUnheard,
    /// A write that failed counts as done.
    IgnoresWriteErrors,
    /// A start goes on with the journal that the last process left, torn or not.
    JournalGoesOn,
    /// A refused request keeps its hold.
    LeakedHold,
    /// A cancel is decided and not sent.
    LostCancel,
    /// Who left pays without a receipt.
    LostReceipt,
    /// The end of an old connection is taken for that of the new one.
    OldConnection,
    /// The attempt whose connection runs last replaces a newer one.
    OlderAttempt,
    /// A provider takes a socket for alive that is dead.
    PongsFromNowhere,
    /// A start takes the lines behind a damaged one too.
    ReadsOverHoles,
    /// Now and then a piece of an answer goes to its relay twice.
    RepeatedChunk,
    /// A piece that does not open is left out.
    SkipsDamaged,
    /// A report that came out of order counts.
    StaleReport,
    /// Now and then two pieces of an answer change places.
    SwappedChunks,
    /// A start takes what is there of a torn line.
    TakesTornLines,
    /// Nobody hears of the end of a cancelled attempt.
    UnheardTerminal,
    /// A machine that passes its challenge stays closed until it reports again.
    UnopenedGate,
    /// A start leaves the damaged end of the log where it is.
    WritesBehindDamage,
}

impl Plant {
    pub const ALL: [Self; 22] = [
        Self::ClockGoesBack,
        Self::ClosesWhenWoken,
        Self::DoubleSettle,
        Self::DroppedChunk,
        Self::ForgetsUnheard,
        Self::IgnoresWriteErrors,
        Self::JournalGoesOn,
        Self::LeakedHold,
        Self::LostCancel,
        Self::LostReceipt,
        Self::OldConnection,
        Self::OlderAttempt,
        Self::PongsFromNowhere,
        Self::ReadsOverHoles,
        Self::RepeatedChunk,
        Self::SkipsDamaged,
        Self::StaleReport,
        Self::SwappedChunks,
        Self::TakesTornLines,
        Self::UnheardTerminal,
        Self::UnopenedGate,
        Self::WritesBehindDamage,
    ];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClockGoesBack => "clock-goes-back",
            Self::ClosesWhenWoken => "closes-when-woken",
            Self::DoubleSettle => "double-settle",
            Self::DroppedChunk => "dropped-chunk",
            Self::ForgetsUnheard => "forgets-unheard",
            Self::IgnoresWriteErrors => "ignores-write-errors",
            Self::JournalGoesOn => "journal-goes-on",
            Self::LeakedHold => "leaked-hold",
            Self::LostCancel => "lost-cancel",
            Self::LostReceipt => "lost-receipt",
            Self::OldConnection => "old-connection",
            Self::OlderAttempt => "older-attempt",
            Self::PongsFromNowhere => "pongs-from-nowhere",
            Self::ReadsOverHoles => "reads-over-holes",
            Self::RepeatedChunk => "repeated-chunk",
            Self::SkipsDamaged => "skips-damaged",
            Self::StaleReport => "stale-report",
            Self::SwappedChunks => "swapped-chunks",
            Self::TakesTornLines => "takes-torn-lines",
            Self::UnheardTerminal => "unheard-terminal",
            Self::UnopenedGate => "unopened-gate",
            Self::WritesBehindDamage => "writes-behind-damage",
        }
    }

    /// The bugs of the coordinator; the others are in what surrounds it.
    pub(super) const fn in_core(self) -> Option<Mischief> {
        match self {
            Self::ClosesWhenWoken => Some(Mischief::ClosesWhenWoken),
            Self::DoubleSettle => Some(Mischief::DoubleSettle),
            Self::LeakedHold => Some(Mischief::LeakedHold),
            Self::LostCancel => Some(Mischief::LostCancel),
            Self::LostReceipt => Some(Mischief::LostReceipt),
            Self::StaleReport => Some(Mischief::StaleReport),
            Self::UnopenedGate => Some(Mischief::UnopenedGate),
            Self::ClockGoesBack
            | Self::DroppedChunk
            | Self::ForgetsUnheard
            | Self::IgnoresWriteErrors
            | Self::JournalGoesOn
            | Self::OldConnection
            | Self::OlderAttempt
            | Self::PongsFromNowhere
            | Self::ReadsOverHoles
            | Self::RepeatedChunk
            | Self::SkipsDamaged
            | Self::SwappedChunks
            | Self::TakesTornLines
            | Self::UnheardTerminal
            | Self::WritesBehindDamage => None,
        }
    }
}
