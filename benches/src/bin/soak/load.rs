//! What the clients ask: drawn from the seed, by client and number of the request.

use cereus_benches::words::Words;
use cereus_core::draw::{Purpose, Seed};
use cereus_engine::kv::Scope;
use serde_json::json;

const PROMPT_TOKENS_MAX: u32 = 1_500;
const OUTPUT_TOKENS_MAX: u32 = 160;
/// Prompt and answer of the longest request that is meant to be answered.
pub(crate) const LONGEST_TOKENS: u32 = PROMPT_TOKENS_MAX + OUTPUT_TOKENS_MAX;
/// Fits into the full grant and not into half of it.
const LARGE_PROMPT_TOKENS: u32 = 3_500;
/// More than the models' context.
const HUGE_PROMPT_TOKENS: u32 = 4_200;
/// From, and up to, so many tokens; each range as often as the others.
const PROMPT_RANGES: [(u32, u32); 4] = [
    (16, 64),
    (64, 256),
    (256, 700),
    (700, PROMPT_TOKENS_MAX + 1),
];
/// Nobody, and three tenants.
const TENANTS: u64 = 4;
/// Beginnings that prompts have in common.
const PREFIXES: u64 = 2;
/// Requests that come again and again, so that their answers can be compared.
pub(crate) const REPEATED: usize = 12;
/// Texts below are of prefixes and repeated requests.
const FIRST_OWN_TEXT: u64 = 1 << 10;
/// No client asks more often.
const TEXTS_OF_CLIENT: u64 = 1 << 20;

/// What the request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Too long for the model.
    Huge,
    /// Too long for half of the grant.
    Large,
    Ordinary,
    Repeated(usize),
}

/// One request and what is known of it beforehand.
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    pub(crate) scope: Option<Scope>,
    pub(crate) prompt_tokens: u32,
    pub(crate) output_tokens: u32,
    /// It is taken back after so many pieces of its answer.
    pub(crate) cancel_after: Option<u32>,
}

/// See the module.
pub(crate) struct Load {
    words: Words,
    seed: Seed,
}

/// What a draw decides.
#[derive(Clone, Copy)]
#[repr(u32)]
enum Choice {
    Cancel,
    CancelAfter,
    IsGreedy,
    Kind,
    OutputTokens,
    Prefix,
    PrefixTokens,
    PromptTokens,
    Range,
    Repeated,
    Tenant,
}

/// The draws of one request.
struct Draws {
    seed: Seed,
    request: u64,
}

impl Draws {
    fn below(&self, choice: Choice, bound: u64) -> u64 {
        let request = u128::from(self.request);
        let choice = choice as u128;
        self.seed
            .draw_below(Purpose::Simulation, request, choice, bound)
    }

    /// From `from` to below `to`.
    fn between(&self, choice: Choice, from: u32, to: u32) -> u32 {
        let more = self.below(choice, u64::from(to - from));
        from + u32::try_from(more).expect("below the difference of two u32")
    }

    fn one_in(&self, choice: Choice, count: u64) -> bool {
        self.below(choice, count) == 0
    }
}

impl Load {
    pub(crate) const fn new(words: Words, seed: Seed) -> Self {
        Self { words, seed }
    }

    /// The request that a client makes at a time, counted from zero.
    pub(crate) fn ask(&self, client: u64, number: u64) -> Ask {
        assert!(number < TEXTS_OF_CLIENT, "a soak ends before that");
        let request = client * TEXTS_OF_CLIENT + number;
        let draws = Draws {
            seed: self.seed,
            request,
        };
        let own_text = FIRST_OWN_TEXT + request;
        let mut ask = match draws.below(Choice::Kind, 120) {
            0 => self.too_long(Kind::Huge, HUGE_PROMPT_TOKENS, own_text),
            1..=2 => self.too_long(Kind::Large, LARGE_PROMPT_TOKENS, own_text),
            3..=22 => {
                let which = draws.below(Choice::Repeated, REPEATED as u64);
                self.repeated(usize::try_from(which).expect("one of a few"))
            }
            _ => self.ordinary(&draws, own_text),
        };
        ask.scope = tenant(draws.below(Choice::Tenant, TENANTS));
        if draws.one_in(Choice::Cancel, 8) {
            let after = draws.between(Choice::CancelAfter, 0, OUTPUT_TOKENS_MAX / 2);
            // Many are taken back before they have begun.
            ask.cancel_after = Some(after.saturating_sub(20));
        }
        ask
    }

    /// One of many that come at once: short, so that the next load soon is the usual one.
    pub(crate) fn of_burst(&self, number: u64) -> Ask {
        let text = self.words.text(FIRST_OWN_TEXT - 1 - number % 64, 32);
        asked(Kind::Ordinary, &text, 32, 8, None)
    }

    /// A prompt that with its answer has so many tokens.
    pub(crate) fn of_length(&self, tokens: u32, output_tokens: u32) -> Ask {
        let prompt_tokens = tokens - output_tokens;
        let text = self.words.text(FIRST_OWN_TEXT - 100, prompt_tokens);
        asked(Kind::Ordinary, &text, prompt_tokens, output_tokens, None)
    }

    fn too_long(&self, kind: Kind, prompt_tokens: u32, own_text: u64) -> Ask {
        let text = self.words.text(own_text, prompt_tokens);
        asked(kind, &text, prompt_tokens, 16, None)
    }

    /// Greedy or not, its answer is the same each time, whoever asks.
    fn repeated(&self, which: usize) -> Ask {
        let number = which as u64;
        let more_tokens = 24 + 90 * u32::try_from(which).expect("one of a few");
        let prefix = self.words.text(number % PREFIXES, 128);
        let own = self.words.text(PREFIXES + number, more_tokens);
        let sampling_seed = (which % 2 == 1).then_some(number);
        let text = format!("{prefix} {own}");
        let kind = Kind::Repeated(which);
        asked(kind, &text, 128 + more_tokens, 48, sampling_seed)
    }

    fn ordinary(&self, draws: &Draws, own_text: u64) -> Ask {
        let (from, to) =
            PROMPT_RANGES[usize::try_from(draws.below(Choice::Range, 4)).expect("one of four")];
        let prompt_tokens = draws.between(Choice::PromptTokens, from, to);
        let output_tokens = draws.between(Choice::OutputTokens, 1, OUTPUT_TOKENS_MAX + 1);
        let prefix = draws.below(Choice::Prefix, 2 * PREFIXES);
        let text = if prefix < PREFIXES {
            let prefix_tokens =
                draws.between(Choice::PrefixTokens, prompt_tokens / 2, prompt_tokens);
            let own = self.words.text(own_text, prompt_tokens - prefix_tokens);
            format!("{} {own}", self.words.text(prefix, prefix_tokens))
        } else {
            self.words.text(own_text, prompt_tokens)
        };
        let is_greedy = draws.one_in(Choice::IsGreedy, 2);
        let sampling_seed = (!is_greedy).then_some(own_text);
        asked(
            Kind::Ordinary,
            &text,
            prompt_tokens,
            output_tokens,
            sampling_seed,
        )
    }
}

fn tenant(number: u64) -> Option<Scope> {
    (number > 0).then(|| Scope::new(&number.to_le_bytes()).expect("a salt of eight bytes"))
}

/// Greedy, or drawn with a seed.
fn asked(
    kind: Kind,
    text: &str,
    prompt_tokens: u32,
    output_tokens: u32,
    sampling_seed: Option<u64>,
) -> Ask {
    let body = match sampling_seed {
        None => json!({
            "prompt": text, "temperature": 0, "max_tokens": output_tokens, "ignore_eos": true,
        }),
        Some(seed) => json!({
            "prompt": text, "temperature": 0.8, "top_p": 0.95, "seed": seed,
            "max_tokens": output_tokens, "ignore_eos": true,
        }),
    };
    Ask {
        kind,
        body: body.to_string().into_bytes(),
        scope: None,
        prompt_tokens,
        output_tokens,
        cancel_after: None,
    }
}
