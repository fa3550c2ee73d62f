//! What a plain completion goes on from.

use serde_json::value::RawValue;

use super::super::json::Quoted;
use super::super::members::position;
use super::super::refusal::{Fault, Place, Refusal};
use super::CHOICES_MAX;
use super::raw::{Raw, bounded_list};

/// Token numbers of one prompt.
const TOKENS_MAX: usize = 1 << 20;
/// Bytes of text that a token stands for where only its number is known.
const BYTES_PER_TOKEN: u64 = 4;
const TAKES: &str = "a string, a list of token numbers, or a list of either";

#[derive(Clone, PartialEq, Eq)]
pub enum Prompt<'a> {
    Text(Quoted<'a>),
    Tokens(Vec<u32>),
}

/// Prints no content.
impl core::fmt::Debug for Prompt<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Tokens(tokens) => write!(f, "{} tokens", tokens.len()),
        }
    }
}

impl Prompt<'_> {
    #[must_use]
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }
}

/// Bytes of text, and the most tokens that there can be.
pub(super) fn sizes(prompts: &[Prompt<'_>]) -> (u64, u64) {
    let size = |prompt: &Prompt<'_>| match prompt {
        Prompt::Text(text) => (text.size(), text.size()),
        Prompt::Tokens(tokens) => {
            let count = tokens.len() as u64;
            (count * BYTES_PER_TOKEN, count)
        }
    };
    let sizes = prompts.iter().map(size);
    sizes.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1))
}

impl<'a> Raw<'_, 'a> {
    pub(super) fn prompts(&self) -> Result<Vec<Prompt<'a>>, Refusal> {
        let place = Place::field("prompt");
        let text = self
            .text("prompt")
            .ok_or(Refusal::field(place, Fault::Missing))?;
        let wrong = Refusal::field(place, Fault::Takes { what: TAKES });
        let whole: &RawValue = serde_json::from_str(text).map_err(|_| wrong)?;
        if !text.starts_with('[') {
            return Ok(vec![one(whole, place)?]);
        }
        // A list of numbers is one prompt; any other holds several.
        if text[1..]
            .trim_start()
            .starts_with(|char: char| char.is_ascii_digit() || char == '-')
        {
            return Ok(vec![one(whole, place)?]);
        }
        let list = bounded_list::<{ CHOICES_MAX as usize }>(text, place)?;
        if list.is_empty() {
            return Err(Refusal::field(place, Fault::Empty));
        }
        let prompts = list.iter().enumerate();
        prompts
            .map(|(ix, item)| one(item, place.item(position(ix))))
            .collect()
    }
}

fn one(raw: &RawValue, place: Place) -> Result<Prompt<'_>, Refusal> {
    if let Some(text) = Quoted::of(raw) {
        return Ok(Prompt::Text(text));
    }
    let wrong = Refusal::field(place, Fault::Takes { what: TAKES });
    let tokens: Vec<u32> = serde_json::from_str(raw.get()).map_err(|_| wrong)?;
    if tokens.is_empty() {
        return Err(Refusal::field(place, Fault::Empty));
    }
    if tokens.len() > TOKENS_MAX {
        let count_max = TOKENS_MAX;
        return Err(Refusal::field(place, Fault::TooMany { count_max }));
    }
    Ok(Prompt::Tokens(tokens))
}
