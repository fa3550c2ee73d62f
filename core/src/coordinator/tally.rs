//! Who counts tokens: the coordinator does. A machine's claim is held to what was seen.
//!
//! Where the shell has the model's own tokenizer, its count is the charge. Elsewhere the bytes of
//! text are divided by the bytes that a token of this model has on average, and a claim may lie
//! within a stated band above that. What lies beyond is cut to the band. The averages are learnt as a
//! median over owners, so that a minority of liars cannot move them, and within bounds, so that a
//! majority cannot move them far.
//!
//! An average is no proof: digits, emoji or a rare script take several times the tokens of prose, and
//! any consumer can ask for them. So a claim that no tokenizer can explain is the machine's fault at
//! once, and one that is merely unlikely only if half of its consumers see the like
//! (`fleet::habits`).

use serde::{Deserialize, Serialize};

use crate::event::{Ask, Ending, Shown, Usage};
use crate::ids::AccountId;
use crate::relay::END_TOKENS;

/// A claim may be this much above our count, in percent of it.
pub const BAND_PERCENT: u64 = 150;
/// And this many tokens above that, for the rounding of small counts.
pub const BAND_TOKENS: u64 = 2;
/// Tokens without a text that are paid at most: that more were made is possible, and nobody can see it.
const MARKS_PAID_MAX: u32 = 64;
/// A claim of this many times what can be is no matter of templates.
const GROSS_FACTOR: u64 = 2;

/// Thousandths of a byte for each token that are assumed until enough owners have shown otherwise.
/// Below what tokenizers of today show for prose, so that other text fits the band as well.
const TEXT_PRIOR: u32 = 3_000;
/// Tokens that a chat template adds to a short conversation, assumed and at most.
const TEMPLATE_PRIOR: u32 = 24;
const TEMPLATE_MAX: u32 = 256;
/// Owners whose word is remembered.
const OWNERS_MAX: usize = 15;
/// An owner's newest claim weighs one eighth of its word, and the first ones are weighed against what
/// was assumed: a consumer whose text is unusual moves it little, and so does a liar before it is
/// known for one.
const WORD_SHIFT: u32 = 3;
/// Owners without whom nothing is learnt.
const OWNERS_MIN: usize = 3;
/// Text that is long enough to tell the bytes of a token.
const LONG_TEXT_BYTES: u32 = 400;
/// Text that is short enough to tell the tokens of the template.
const SHORT_TEXT_BYTES: u32 = 160;

/// What was learnt of one model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Tally {
    prompt_text: Gauge,
    template: Gauge,
    answer_text: Gauge,
}

/// What a machine says of its answer, beside what we saw of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) usage: Usage,
    pub(super) shown: Shown,
    pub(super) ending: Ending,
}

impl Claim {
    /// Its machine said all that it had to say, and that was something.
    pub(super) fn is_whole(&self) -> bool {
        self.ending == Ending::Said && self.shown.pieces > 0
    }

    /// A stop string that the consumer gave may have kept all of it from being shown.
    pub(super) fn may_be_held_back(&self) -> bool {
        self.shown.marks > END_TOKENS
    }
}

/// What a claim came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// What is charged.
    pub(super) usage: Usage,
    pub(super) excess: Excess,
    /// So far beyond the band that an operator should look: text of a token for each byte is not, and
    /// answers in a form often are that.
    pub(super) is_alarming: bool,
}

/// How a claim stands to what was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Excess {
    /// Within the band.
    None,
    /// Beyond the band, and yet there is text of which it would be true.
    Unlikely,
    /// True of no text.
    Impossible,
}

impl Tally {
    pub(super) fn new() -> Self {
        let text = Gauge::new(TEXT_PRIOR, TEXT_PRIOR / 4, TEXT_PRIOR * 4);
        Self {
            prompt_text: text.clone(),
            template: Gauge::new(TEMPLATE_PRIOR, 0, TEMPLATE_MAX),
            answer_text: text,
        }
    }

    /// Holds a claim to what was asked and shown. Nobody pays for more than the bytes can hold, than
    /// was asked for, or than the band above our own count (INV-06).
    pub(super) fn judge(&self, ask: &Ask, claim: Claim) -> Judged {
        let Claim {
            usage: claim,
            shown,
            ending,
        } = claim;
        let own = self.own_count(ask, shown);
        let bounds = bounds(ask, shown);
        let band = banded(own);
        if let Some(counted) = shown.counted {
            return Judged {
                usage: least(own, bounds),
                excess: excess(claim, band, counted).max(excess_of_ending(ending)),
                is_alarming: is_alarming(claim, band),
            };
        }
        let with_marks = |marks| Usage {
            completion_tokens: band.completion_tokens.saturating_add(marks),
            ..band
        };
        let likely = least(with_marks(shown.marks), bounds);
        let paid = least(with_marks(shown.marks.min(MARKS_PAID_MAX)), bounds);
        let usage = match ending {
            Ending::Said => least(claim, paid),
            Ending::Cut => least(own, bounds),
        };
        Judged {
            usage,
            excess: excess(claim, likely, bounds).max(excess_of_ending(ending)),
            is_alarming: is_alarming(claim, likely),
        }
    }

    /// What was relayed, by our own count: for an answer whose machine says nothing of it. Machines
    /// send a token or more in a piece, so the consumer is not charged for more tokens than pieces.
    pub(super) fn relayed(&self, ask: &Ask, shown: Shown) -> Usage {
        let pieces = Usage {
            prompt_tokens: u32::MAX,
            completion_tokens: shown.pieces,
        };
        least(
            least(self.own_count(ask, shown), pieces),
            bounds(ask, shown),
        )
    }

    /// Takes a claim as evidence of how this model counts. One beyond all tokenizers is none: those
    /// who make such claims may be the first that are heard.
    pub(super) fn learn(&mut self, owner: AccountId, ask: &Ask, claim: Claim) {
        let (claim, shown) = (claim.usage, claim.shown);
        let prompt_bytes = ask.prompt_text_bytes();
        if prompt_bytes >= LONG_TEXT_BYTES {
            let text = claim.prompt_tokens.saturating_sub(self.template.value);
            self.prompt_text.push_ratio(owner, prompt_bytes, text);
        } else if prompt_bytes <= SHORT_TEXT_BYTES && claim.prompt_tokens > 0 {
            let text = self.prompt_text.tokens(prompt_bytes);
            let template = claim.prompt_tokens.saturating_sub(text);
            self.template.push(owner, template);
        }
        if shown.text_bytes >= LONG_TEXT_BYTES {
            let claimed = claim.completion_tokens;
            self.answer_text
                .push_ratio(owner, shown.text_bytes, claimed);
        }
    }

    fn own_count(&self, ask: &Ask, shown: Shown) -> Usage {
        shown.counted.unwrap_or_else(|| Usage {
            prompt_tokens: self
                .prompt_text
                .tokens(ask.prompt_text_bytes())
                .saturating_add(self.template.value),
            completion_tokens: self.answer_text.tokens(shown.text_bytes),
        })
    }
}

/// What holds for any tokenizer.
fn bounds(ask: &Ask, shown: Shown) -> Usage {
    Usage {
        prompt_tokens: ask.prompt_tokens_bound.max(ask.prompt_tokens),
        completion_tokens: shown.tokens_max().min(ask.output_tokens_max),
    }
}

/// An old word with its share of a new one, to the nearest.
fn mixed(old: u32, new: u32) -> u32 {
    let share = 1 << WORD_SHIFT;
    let sum = u64::from(old) * (share - 1) + u64::from(new) + share / 2;
    u32::try_from(sum / share).expect("between the two")
}

fn band(own: u32) -> u32 {
    let band = u64::from(own) * BAND_PERCENT / 100 + BAND_TOKENS;
    u32::try_from(band).unwrap_or(u32::MAX)
}

fn banded(own: Usage) -> Usage {
    Usage {
        prompt_tokens: band(own.prompt_tokens),
        completion_tokens: band(own.completion_tokens),
    }
}

fn least(a: Usage, b: Usage) -> Usage {
    Usage {
        prompt_tokens: a.prompt_tokens.min(b.prompt_tokens),
        completion_tokens: a.completion_tokens.min(b.completion_tokens),
    }
}

/// `possible` is the most that can be true. Templates and marks that are not text have the room of
/// its band, twice.
fn excess(claim: Usage, likely: Usage, possible: Usage) -> Excess {
    let of = |claim: u32, likely: u32, possible: u32| {
        if claim <= likely {
            Excess::None
        } else if u64::from(claim) <= u64::from(band(possible)) * GROSS_FACTOR {
            Excess::Unlikely
        } else {
            Excess::Impossible
        }
    };
    let prompt = of(
        claim.prompt_tokens,
        likely.prompt_tokens,
        possible.prompt_tokens,
    );
    let completion = of(
        claim.completion_tokens,
        likely.completion_tokens,
        possible.completion_tokens,
    );
    prompt.max(completion)
}

/// Twice what is likely.
fn is_alarming(claim: Usage, likely: Usage) -> bool {
    let is_far = |claim: u32, likely: u32| claim > likely.saturating_mul(2);
    is_far(claim.prompt_tokens, likely.prompt_tokens)
        || is_far(claim.completion_tokens, likely.completion_tokens)
}

/// A machine that does not heed its bound has not miscounted.
const fn excess_of_ending(ending: Ending) -> Excess {
    match ending {
        Ending::Cut => Excess::Impossible,
        Ending::Said => Excess::None,
    }
}

/// One number, as the owners of machines show it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Gauge {
    value: u32,
    prior: u32,
    least: u32,
    most: u32,
    /// The word of each owner, the longest silent first.
    words: Vec<Word>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Word {
    owner: AccountId,
    value: u32,
}

impl Gauge {
    const fn new(prior: u32, least: u32, most: u32) -> Self {
        Self {
            value: prior,
            prior,
            least,
            most,
            words: Vec::new(),
        }
    }

    /// Tokens in so many bytes, where the value is thousandths of a byte for each.
    fn tokens(&self, bytes: u32) -> u32 {
        let tokens = (u64::from(bytes) * 1_000).div_ceil(u64::from(self.value.max(1)));
        u32::try_from(tokens).unwrap_or(u32::MAX)
    }

    fn push_ratio(&mut self, owner: AccountId, bytes: u32, tokens: u32) {
        if tokens > 0 {
            let ratio = u64::from(bytes) * 1_000 / u64::from(tokens);
            self.push(owner, u32::try_from(ratio).unwrap_or(u32::MAX));
        }
    }

    fn push(&mut self, owner: AccountId, value: u32) {
        let value = value.clamp(self.least, self.most);
        let mut old = self.prior;
        if let Some(ix) = self.words.iter().position(|word| word.owner == owner) {
            old = self.words.remove(ix).value;
        } else if self.words.len() == OWNERS_MAX {
            self.words.remove(0);
        }
        let value = mixed(old, value);
        self.words.push(Word { owner, value });
        if self.words.len() < OWNERS_MIN {
            return;
        }
        let mut values = [0; OWNERS_MAX];
        for (place, word) in values.iter_mut().zip(&self.words) {
            *place = word.value;
        }
        let values = &mut values[..self.words.len()];
        values.sort_unstable();
        self.value = values[values.len() / 2];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Delivery;
    use crate::ids::{ModelIx, RequestId};

    fn ask(prompt_bytes: u32) -> Ask {
        Ask {
            prompt_tokens: prompt_bytes / Ask::BYTES_PER_TOKEN,
            prompt_tokens_bound: prompt_bytes + 64,
            output_tokens_max: 2_000,
            delivery: Delivery::Streamed,
            ..Ask::new(RequestId(1), AccountId(1), ModelIx(0))
        }
    }

    fn shown(text_bytes: u32) -> Shown {
        Shown {
            pieces: text_bytes / 4,
            text_bytes,
            marks: 1,
            counted: None,
        }
    }

    fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
        Usage {
            prompt_tokens,
            completion_tokens,
        }
    }

    fn judge(tally: &Tally, ask: &Ask, claim: Usage, shown: Shown) -> Judged {
        let claim = Claim {
            usage: claim,
            shown,
            ending: Ending::Said,
        };
        tally.judge(ask, claim)
    }

    fn learn(tally: &mut Tally, owner: u64, ask: &Ask, claim: Usage, shown: Shown) {
        let claim = Claim {
            usage: claim,
            shown,
            ending: Ending::Said,
        };
        tally.learn(AccountId(owner), ask, claim);
    }

    /// Prose: four and a half bytes a token, seven tokens of template.
    fn honest(ask: &Ask, shown: Shown) -> Usage {
        let tokens = |bytes: u32| bytes * 2 / 9;
        usage(
            tokens(ask.prompt_text_bytes()) + 7,
            tokens(shown.text_bytes),
        )
    }

    fn taught(liars: u64, honest_owners: u64) -> Tally {
        let mut tally = Tally::new();
        for round in 0..80 {
            for owner in 0..liars + honest_owners {
                for (prompt, answer) in [(100, 900), (2_000, 500)] {
                    let (ask, shown) = (ask(prompt), shown(answer + round));
                    let mut claim = honest(&ask, shown);
                    if owner < liars {
                        claim.prompt_tokens *= 20;
                        claim.completion_tokens *= 20;
                    }
                    learn(&mut tally, owner, &ask, claim, shown);
                }
            }
        }
        tally
    }

    #[test]
    fn an_honest_claim_of_prose_code_or_another_script_is_paid_as_claimed() {
        let tally = Tally::new();
        // Thousandths of a byte a token: prose, code, JSON, Chinese.
        for ratio in [4_600, 3_400, 2_500, 2_800] {
            for bytes in [8, 60, 700, 3_000] {
                let claim = usage(bytes * 1_000 / ratio + 12, bytes * 1_000 / ratio);
                let judged = judge(&tally, &ask(bytes), claim, shown(bytes));
                assert_eq!(judged.usage, claim, "{bytes} bytes of {ratio}");
                assert_eq!(judged.excess, Excess::None);
            }
        }
    }

    #[test]
    fn a_claim_beyond_the_band_is_cut_to_it_and_told_apart_by_its_size() {
        let tally = Tally::new();
        let (ask, shown) = (ask(900), shown(900));
        // Our own count is 300 tokens of answer and 324 of prompt.
        let cut = judge(&tally, &ask, usage(100, 500), shown);
        assert_eq!(cut.usage, usage(100, 453));
        assert_eq!(cut.excess, Excess::Unlikely);
        let cut = judge(&tally, &ask, usage(4_000, 100), shown);
        assert_eq!(cut.usage, usage(488, 100));
        assert_eq!(
            cut.excess,
            Excess::Impossible,
            "a prompt counts as an answer does"
        );
    }

    #[test]
    fn what_may_have_left_no_text_is_no_fault_and_is_paid_up_to_a_bound() {
        let silent = Shown {
            marks: 2_000,
            ..shown(30)
        };
        let judged = judge(&Tally::new(), &ask(40), usage(20, 1_900), silent);
        assert_eq!(judged.excess, Excess::None);
        assert_eq!(judged.usage.completion_tokens, 15 + 2 + MARKS_PAID_MAX);
    }

    #[test]
    fn a_true_claim_of_digits_is_cut_where_prose_was_learnt_and_is_not_called_impossible() {
        let tally = taught(0, 6);
        let (ask, shown) = (ask(900), shown(900));
        let judged = judge(&tally, &ask, usage(907, 900), shown);
        assert_eq!(judged.excess, Excess::Unlikely);
        assert!(judged.usage.completion_tokens <= 303);
    }

    #[test]
    fn one_consumer_of_five_whose_text_is_unusual_moves_the_average_by_less_than_a_quarter() {
        let mut tally = Tally::new();
        for round in 0..40 {
            for owner in 0..5 {
                let (ask, shown) = (ask(2_000), shown(2_000));
                let is_unusual = (round + owner) % 5 == 0;
                let claim = match is_unusual {
                    true => usage(2_000, 2_000),
                    false => honest(&ask, shown),
                };
                learn(&mut tally, owner, &ask, claim, shown);
            }
        }
        let learnt = tally.answer_text.value;
        assert!((3_400..=4_500).contains(&learnt), "{learnt}");
    }

    #[test]
    fn an_answer_is_never_charged_beyond_what_was_asked_for() {
        let tally = Tally::new();
        let ask = Ask {
            output_tokens_max: 5,
            ..ask(40)
        };
        let judged = judge(&tally, &ask, usage(10, 900), shown(3_000));
        assert_eq!(judged.usage.completion_tokens, 5);
        let cut = tally.judge(
            &ask,
            Claim {
                usage: Usage::default(),
                shown: shown(25),
                ending: Ending::Cut,
            },
        );
        assert_eq!(
            cut.usage.completion_tokens, 5,
            "an overrun is charged its bound"
        );
        assert_eq!(cut.excess, Excess::Impossible);
    }

    #[test]
    fn a_count_by_the_models_own_tokenizer_is_the_charge_whatever_is_claimed() {
        let tally = Tally::new();
        let counted = Shown {
            counted: Some(usage(9, 2)),
            ..shown(11)
        };
        let judged = judge(&tally, &ask(20), usage(96, 10), counted);
        assert_eq!(judged.usage, usage(9, 2));
        assert_eq!(judged.excess, Excess::Impossible);
        let judged = judge(&tally, &ask(20), usage(8, 2), counted);
        assert_eq!(judged.excess, Excess::None);
    }

    #[test]
    fn honest_owners_narrow_the_band_and_a_minority_of_liars_does_not_widen_it() {
        let claim = usage(96, 10);
        let (ask, shown) = (ask(24), shown(9));
        let untaught = judge(&Tally::new(), &ask, claim, shown);
        let by_honest = judge(&taught(0, 6), &ask, claim, shown);
        let beside_liars = judge(&taught(2, 4), &ask, claim, shown);
        assert!(by_honest.usage.prompt_tokens < untaught.usage.prompt_tokens);
        assert!(by_honest.usage.prompt_tokens <= 2 * (24 * 2 / 9 + 7));
        // They pay for what was learnt of the template beside words that had not settled yet.
        let more = beside_liars.usage.prompt_tokens - by_honest.usage.prompt_tokens;
        assert!(more <= TEMPLATE_PRIOR / 2, "{more}");
    }

    #[test]
    fn one_owner_with_many_machines_teaches_nothing() {
        let mut tally = Tally::new();
        for _ in 0..100 {
            let (ask, shown) = (ask(2_000), shown(2_000));
            learn(&mut tally, 1, &ask, usage(9_000, 9_000), shown);
        }
        assert_eq!(tally.answer_text.value, TEXT_PRIOR);
    }

    #[test]
    fn a_claim_beyond_all_tokenizers_is_impossible_whoever_makes_it() {
        let (ask, shown) = (ask(2_000), shown(900));
        let judged = judge(&Tally::new(), &ask, usage(500, 900 * 20), shown);
        assert_eq!(judged.excess, Excess::Impossible, "it teaches nothing");
    }

    #[test]
    fn no_majority_moves_the_average_without_bound() {
        let mut tally = Tally::new();
        for turn in 0..1_000 {
            let (ask, shown) = (ask(2_000), shown(2_000));
            let owner = if turn < 40 { turn } else { turn % 15 };
            learn(&mut tally, owner, &ask, usage(90_000, 90_000), shown);
        }
        let learnt = tally.answer_text.value;
        assert!(
            (TEXT_PRIOR / 4..TEXT_PRIOR / 4 + 8).contains(&learnt),
            "{learnt}"
        );
        assert!(tally.answer_text.words.len() <= OWNERS_MAX, "INV-12");
    }
}
