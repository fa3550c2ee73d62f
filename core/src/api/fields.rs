//! The published list: what is done with each field of a body. The readers ask it, so that no field is
//! read that it does not name, and `docs/fields.md` is written from it.

use core::fmt::Write as _;

/// Which API a body is read by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Api {
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/completions`.
    Completions,
}

/// What is done with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It does what it says, or the request is refused.
    Honoured,
    /// It may say anything: the answer does not depend on it.
    Ignored,
    /// The request is refused, unless the field asks for nothing.
    Refused,
}

/// Where a field has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Both,
    Chat,
    Completions,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: &'static str,
    pub scope: Scope,
    pub verdict: Verdict,
    /// Values, as JSON, by which a refused field asks for nothing; `null` always does.
    pub neutral: &'static [&'static str],
    /// What the field takes, or what to send in its place.
    pub note: &'static str,
}

impl Scope {
    #[must_use]
    pub const fn has(self, api: Api) -> bool {
        match self {
            Self::Both => true,
            Self::Chat => matches!(api, Api::Chat),
            Self::Completions => matches!(api, Api::Completions),
        }
    }
}

const fn honoured(name: &'static str, scope: Scope, note: &'static str) -> Field {
    Field {
        name,
        scope,
        verdict: Verdict::Honoured,
        neutral: &[],
        note,
    }
}

const fn ignored(name: &'static str, note: &'static str) -> Field {
    Field {
        name,
        scope: Scope::Both,
        verdict: Verdict::Ignored,
        neutral: &[],
        note,
    }
}

const fn refused(
    name: &'static str,
    neutral: &'static [&'static str],
    note: &'static str,
) -> Field {
    Field {
        name,
        scope: Scope::Both,
        verdict: Verdict::Refused,
        neutral,
        note,
    }
}

/// Sorted by name.
pub const FIELDS: &[Field] = &[
    honoured(
        "add_generation_prompt",
        Scope::Chat,
        "true or false; false leaves out the opening of the answer's turn",
    ),
    refused("add_special_tokens", &[], "the tokenizer's own rule holds"),
    refused(
        "allowed_token_ids",
        &["[]"],
        "send `guided_regex` or `logit_bias`",
    ),
    refused("audio", &[], "answers are text"),
    refused("bad_words", &["[]"], "send `logit_bias`"),
    refused("best_of", &["1"], "send `n` and choose"),
    ignored("cache_prompt", "prompts are always cached"),
    ignored("cache_salt", "each account's prompts are kept apart anyway"),
    refused("chat_template", &[], "the model's own template holds"),
    honoured(
        "chat_template_kwargs",
        Scope::Chat,
        "an object; variables for the chat template",
    ),
    honoured(
        "continue_final_message",
        Scope::Chat,
        "true or false; true goes on with the last message, which must be the assistant's",
    ),
    refused("documents", &["[]"], "put them into a message"),
    refused("dry_multiplier", &["0"], "send `repetition_penalty`"),
    refused("dynatemp_range", &["0"], "send `temperature`"),
    refused("early_stopping", &["false"], "there is no beam search"),
    honoured(
        "echo",
        Scope::Completions,
        "true or false; true puts the prompt, which must be text, before the answer; not with \
         `logprobs`",
    ),
    honoured(
        "enable_thinking",
        Scope::Chat,
        "true or false; for the chat template",
    ),
    refused("format", &[], "send `response_format`"),
    honoured(
        "frequency_penalty",
        Scope::Both,
        "a number between -2 and 2",
    ),
    refused(
        "function_call",
        &["\"none\"", "\"auto\""],
        "send `tool_choice`",
    ),
    refused("functions", &["[]"], "send `tools`"),
    refused(
        "grammar",
        &["\"\""],
        "send `guided_regex`, `guided_choice` or a schema",
    ),
    honoured(
        "guided_choice",
        Scope::Both,
        "1 to 256 strings; the answer is one of them",
    ),
    ignored("guided_decoding_backend", "there is one"),
    refused(
        "guided_grammar",
        &["\"\""],
        "send `guided_regex`, `guided_choice` or a schema",
    ),
    honoured(
        "guided_json",
        Scope::Both,
        "a JSON schema, as an object or in a string; the answer fits it",
    ),
    honoured(
        "guided_regex",
        Scope::Both,
        "a regular expression of at most 2048 bytes; the answer matches it as a whole",
    ),
    refused(
        "guided_whitespace_pattern",
        &[],
        "blanks within JSON are bounded",
    ),
    honoured(
        "ignore_eos",
        Scope::Both,
        "true or false; true goes on to the bound, for measurements",
    ),
    refused(
        "include_stop_str_in_output",
        &["false"],
        "stop strings are left out",
    ),
    honoured("json_schema", Scope::Both, "as `guided_json`"),
    ignored("keep_alive", "models stay loaded"),
    refused("length_penalty", &["1"], "there is no beam search"),
    honoured(
        "logit_bias",
        Scope::Both,
        "an object of at most 1024 token numbers, each with a number between -100 and 100",
    ),
    refused("logits_processors", &["[]"], "send `logit_bias`"),
    honoured(
        "logprobs",
        Scope::Both,
        "chat: true or false; completions: how many of the likeliest tokens, 0 to 20",
    ),
    honoured(
        "max_completion_tokens",
        Scope::Both,
        "as `max_tokens`, and goes before it",
    ),
    honoured(
        "max_output_tokens",
        Scope::Both,
        "as `max_tokens`, which goes before it",
    ),
    honoured(
        "max_tokens",
        Scope::Both,
        "an integer of at least 1; absent and -1 are the same: the model's `output_tokens_default` at a \
         coordinator, what the context has room for at `cereus local`",
    ),
    honoured("messages", Scope::Chat, "1 to 16384 messages of text"),
    ignored("metadata", "it is the caller's own"),
    ignored("metadata_details", "it asks for nothing that there is"),
    honoured("min_p", Scope::Both, "a number between 0 and 1"),
    honoured(
        "min_tokens",
        Scope::Both,
        "an integer of at least 0 and at most the bound; the answer does not end before",
    ),
    refused("mirostat", &["0"], "send `temperature`, `top_p` or `min_p`"),
    refused("modalities", &["[\"text\"]"], "answers are text"),
    honoured(
        "model",
        Scope::Both,
        "a string of at most 256 bytes; `cereus local` may go without",
    ),
    ignored("models", "requests go to the one `model`"),
    honoured(
        "n",
        Scope::Both,
        "an integer between 1 and 128; a coordinator takes 1",
    ),
    refused("n_predict", &["-1"], "send `max_tokens`"),
    refused("no_repeat_ngram_size", &["0"], "send `repetition_penalty`"),
    refused("num_beams", &["1"], "there is no beam search"),
    ignored("num_ctx", "the context is the model's"),
    honoured(
        "parallel_tool_calls",
        Scope::Chat,
        "true or false; false ends the answer with one call",
    ),
    ignored("plugins", "there are none"),
    ignored("prediction", "it is a hint to be faster"),
    honoured("presence_penalty", Scope::Both, "a number between -2 and 2"),
    ignored("priority", "all requests of an account wait alike"),
    honoured(
        "prompt",
        Scope::Completions,
        "a string, a list of token numbers, or a list of either",
    ),
    ignored("prompt_cache_key", "prompts are found by their content"),
    ignored(
        "prompt_cache_retention",
        "prompts are kept as long as there is room",
    ),
    refused(
        "prompt_logprobs",
        &["false"],
        "log-probabilities are of the answer",
    ),
    ignored("provider", "machines are chosen by their load and speed"),
    honoured(
        "reasoning",
        Scope::Chat,
        "an object; its `effort` is `reasoning_effort` and its `enabled` is `enable_thinking`",
    ),
    honoured(
        "reasoning_effort",
        Scope::Chat,
        "one of none, minimal, low, medium, high, xhigh; for the chat template",
    ),
    refused("repeat_penalty", &["1"], "send `repetition_penalty`"),
    honoured(
        "repetition_context_size",
        Scope::Both,
        "an integer of at least 1; the newest tokens that `repetition_penalty` counts, or all",
    ),
    honoured(
        "repetition_penalty",
        Scope::Both,
        "a number between 0.01 and 2",
    ),
    ignored("request_id", "send the header X-Request-Id"),
    honoured(
        "response_format",
        Scope::Both,
        "an object of type text, json_object (with or without a `schema`) or json_schema",
    ),
    refused("return_token_ids", &["false"], "answers are text"),
    refused(
        "return_tokens_as_token_ids",
        &["false"],
        "tokens are shown as text and bytes",
    ),
    ignored("route", "machines are chosen by their load and speed"),
    ignored("routing", "machines are chosen by their load and speed"),
    ignored("safety_identifier", "it is the caller's own"),
    refused("samplers", &["[]"], "they have one order"),
    honoured("seed", Scope::Both, "an integer"),
    ignored("service_tier", "there is one"),
    refused(
        "skip_special_tokens",
        &["true"],
        "special tokens have no text",
    ),
    refused("smoothing_factor", &["0"], "send `temperature`"),
    ignored(
        "spaces_between_special_tokens",
        "special tokens have no text",
    ),
    honoured(
        "stop",
        Scope::Both,
        "a string, or up to 16 (4 where the answer must have a form) of 1 to 256 bytes each; they \
         count in the content",
    ),
    honoured(
        "stop_token_ids",
        Scope::Both,
        "up to 64 token numbers; each ends the answer",
    ),
    ignored("store", "nothing is stored"),
    honoured("stream", Scope::Both, "true or false"),
    honoured(
        "stream_options",
        Scope::Both,
        "an object; `include_usage` true ends the stream with the usage",
    ),
    honoured(
        "structured_outputs",
        Scope::Both,
        "an object with one of json, choice, regex, json_object",
    ),
    refused(
        "suffix",
        &["\"\""],
        "put it into the prompt as the model expects it",
    ),
    honoured("temperature", Scope::Both, "a number between 0 and 2"),
    refused("tfs_z", &["1"], "send `top_p` or `min_p`"),
    honoured(
        "tool_choice",
        Scope::Chat,
        "none, auto, required or {\"type\":\"function\",\"function\":{\"name\":..}}",
    ),
    honoured(
        "tools",
        Scope::Chat,
        "at most 128 functions, each {\"type\":\"function\",\"function\":{..}}",
    ),
    refused("top_a", &["0"], "send `top_p` or `min_p`"),
    honoured("top_k", Scope::Both, "an integer; 0 or -1 keep all"),
    honoured(
        "top_logprobs",
        Scope::Chat,
        "an integer between 0 and 20; needs `logprobs`",
    ),
    honoured("top_p", Scope::Both, "a number between 0 and 1"),
    ignored("transforms", "prompts are never shortened"),
    refused(
        "truncate_prompt_tokens",
        &["-1"],
        "prompts are never shortened",
    ),
    refused("typical_p", &["1"], "send `top_p` or `min_p`"),
    refused("use_beam_search", &["false"], "there is no beam search"),
    ignored("user", "it is the caller's own"),
    refused("verbosity", &["\"medium\""], "say it in a message"),
    refused("web_search_options", &[], "there is no search"),
    refused("xtc_probability", &["0"], "send `top_p` or `min_p`"),
    ignored(
        "xtc_threshold",
        "it says something only with `xtc_probability`",
    ),
];

/// The entry of a field, if it has one. Fields without one are ignored.
#[must_use]
pub fn field(name: &str) -> Option<&'static Field> {
    let place = FIELDS.binary_search_by(|field| field.name.cmp(name)).ok()?;
    FIELDS.get(place)
}

/// The list as a page for people.
#[must_use]
pub fn fields_page() -> String {
    let mut page = String::from(
        "# Fields of a request\n\n\
         What `cereus local` and a coordinator do with each field of `POST /v1/chat/completions`, and\n\
         `cereus local` with each of `POST /v1/completions`, which a coordinator does not serve.\n\
         **Honoured**: it does what it says, or the request is refused with 400 and the field's name.\n\
         **Refused**: 400, unless its value asks for nothing (`null`, and what stands in brackets).\n\
         **Ignored**: the answer does not depend on it. A field that is not in this list is ignored.\n\n\
         A coordinator's `usage` counts the tokens of what was shown, so that with `ignore_eos` it may\n\
         count fewer than were made.\n\n\
         A coordinator has no tokenizer. It holds a machine's claim to the bytes that it saw, within a band\n\
         that fits tokenizers of about two bytes a token and more. The bundled tiny model has one byte a\n\
         token, so that a coordinator counts and charges about half of its constrained answers' tokens.\n\n\
         Where `max_tokens` is absent or -1, a coordinator allows the model's `output_tokens_default`: 512\n\
         unless the catalogue says otherwise, and at most half of the model's context. `cereus local` allows\n\
         what the context has room for beside the prompt.\n\n\
         Written from `core/src/api/fields.rs` by `cargo run -p cereus-core --example fields > docs/fields.md`.\n\n\
         | field | where | verdict | |\n|---|---|---|---|\n",
    );
    for field in FIELDS {
        let scope = match field.scope {
            Scope::Both => "both",
            Scope::Chat => "chat",
            Scope::Completions => "completions",
        };
        let verdict = match field.verdict {
            Verdict::Honoured => "honoured",
            Verdict::Ignored => "ignored",
            Verdict::Refused => "refused",
        };
        let neutral = if field.neutral.is_empty() {
            String::new()
        } else {
            format!(" (`{}`)", field.neutral.join("`, `"))
        };
        let (name, note) = (field.name, field.note);
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {scope} | {verdict}{neutral} | {note} |");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_names_no_field_twice() {
        let names: Vec<&str> = FIELDS.iter().map(|field| field.name).collect();
        assert!(names.is_sorted_by(|one, two| one < two), "{names:?}");
    }

    #[test]
    fn the_page_says_what_the_list_says() {
        let page = include_str!("../../../docs/fields.md");
        assert_eq!(
            page,
            fields_page(),
            "write it anew: cargo run -p cereus-core --example fields > docs/fields.md"
        );
    }
}
