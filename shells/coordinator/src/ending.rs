//! How requests end, as the log names it.

use cereus_core::denial::Denial;
use cereus_core::ids::AccountId;

/// Of a request that was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Its answer broke off: the consumer has half of one, and pays nothing.
    Broken,
    Finished,
    /// Its consumer went away. It pays for what was shown.
    Left,
    /// It got an error and no answer.
    Refused,
}

/// What the log says of a request besides how it ended. No word of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) account: AccountId,
    /// As its account named it.
    pub(crate) model: String,
    /// By our own estimate: no machine's count is known where none completed.
    pub(crate) prompt_tokens: u32,
}

impl Outcome {
    /// Of a request that was denied, after its reply had begun or before.
    pub(crate) const fn of(denial: Denial, has_begun: bool) -> Self {
        match (denial, has_begun) {
            (Denial::Cancelled, _) => Self::Left,
            (_, true) => Self::Broken,
            (_, false) => Self::Refused,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Finished => "finished",
            Self::Left => "left",
            Self::Refused => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_named_for_what_it_is() {
        for (denial, has_begun, name) in [
            (Denial::Cancelled, false, "left"),
            (Denial::Cancelled, true, "left"),
            (Denial::ProviderFailed, true, "broken"),
            (Denial::Timeout, true, "broken"),
            (Denial::ProviderFailed, false, "refused"),
            (Denial::Broke, false, "refused"),
        ] {
            assert_eq!(Outcome::of(denial, has_begun).name(), name, "{denial:?}");
        }
    }
}
