use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::jinja::text::Writer;
use super::*;

/// Pieces of prompts: marks, halves of marks, words and blanks.
const PIECES: [&str; 16] = [
    "<|end|>",
    "<|user|>",
    "<think>",
    "<|",
    "|>",
    "end",
    "<|e",
    "nd|>",
    "user",
    "a",
    "Grüße 🐕",
    "  ",
    "\n\n",
    "\t",
    "<|END|>",
    "▁<|end|>",
];

fn added(id: u32, content: &str, more: &Value) -> Value {
    let mut token = json!({"id": id, "content": content, "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    for (key, value) in more.as_object().unwrap() {
        token[key] = value.clone();
    }
    token
}

/// A vocabulary of the bytes, one of pieces with a blank in front, one of whole words, and one that
/// lowers its text first. Each holds its marks as words as well.
fn tokenizers() -> Vec<tokenizers::Tokenizer> {
    let marks = |more: Value| {
        json!([
            added(0, "<|end|>", &more),
            added(1, "<|user|>", &json!({})),
            added(2, "<think>", &json!({"special": false})),
            added(3, "\n\n", &json!({"special": false})),
        ])
    };
    let base = ["<|end|>", "<|user|>", "<think>", "\n\n", "<unk>"].map(str::to_owned);
    let vocabulary = |words: Vec<String>| {
        let all = base.iter().cloned().chain(words).enumerate();
        let entries = all.map(|(id, word)| (word, json!(id)));
        Value::Object(entries.collect())
    };
    let letters: Vec<String> = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet()
        .into_iter()
        .map(String::from)
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
        "use_regex": true});
    let bpe = |vocab: Value, unk: Value| {
        json!({"type": "BPE", "dropout": null, "unk_token": unk, "fuse_unk": false,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "byte_fallback": false, "ignore_merges": true, "vocab": vocab, "merges": []})
    };
    let bytes = json!({"version": "1.0", "added_tokens": marks(json!({"rstrip": true})),
        "pre_tokenizer": byte_level, "model": bpe(vocabulary(letters), Value::Null)});
    let plain: Vec<String> = PIECES.concat().chars().map(String::from).collect();
    let chars: BTreeSet<String> = plain.into_iter().chain(["▁".to_owned()]).collect();
    let pieces = json!({"version": "1.0", "added_tokens": marks(json!({"lstrip": true})),
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
            "split": false},
        "model": bpe(vocabulary(chars.iter().cloned().collect()), json!("<unk>"))});
    let words = json!({"version": "1.0", "added_tokens": marks(json!({"single_word": true})),
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "unk_token": "<unk>",
            "vocab": vocabulary(vec!["a".to_owned(), "user".to_owned()])}});
    let lowered = json!({"version": "1.0", "added_tokens": marks(json!({"normalized": true})),
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": byte_level,
        "model": bpe(vocabulary(chars.into_iter().collect()), json!("<unk>"))});
    [bytes, pieces, words, lowered]
        .iter()
        .map(|json| tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap())
        .collect()
}

fn marks_of(tokenizer: &tokenizers::Tokenizer) -> Marks {
    Marks::of(tokenizer, |token| token == "<think>")
}

fn prompt(parts: &[(&str, Origin)]) -> Text {
    let mut out = Writer::default();
    for (text, origin) in parts {
        out.push(text, *origin);
    }
    out.finish()
}

fn reserved(ids: &[u32]) -> Vec<u32> {
    ids.iter().copied().filter(|id| *id < 3).collect()
}

/// Parts of the template's and of others, in turn.
fn parts() -> impl Strategy<Value = Vec<(String, bool)>> {
    let piece = prop::sample::select(&PIECES[..]);
    let text = prop::collection::vec(piece, 0..5).prop_map(|it| it.concat());
    prop::collection::vec((text, any::<bool>()), 0..6)
}

proptest! {
    /// The careful way is the tokenizer's own where everything comes from the template.
    #[test]
    fn what_the_template_wrote_is_cut_as_the_tokenizer_cuts_it(parts in parts()) {
        let text: String = parts.into_iter().map(|(text, _)| text).collect();
        for tokenizer in tokenizers() {
            let origins = Origins(vec![(0..text.len(), Origin::Template)]);
            let marks = marks_of(&tokenizer);
            let careful = marks.encode_with_care(&tokenizer, &text, &origins).unwrap();
            let own = tokenizer.encode_fast(text.as_str(), false).unwrap();
            prop_assert_eq!(careful.get_ids(), own.get_ids(), "{}", text);
        }
    }

    /// ENG-23: text of a user without a mark is cut as if nobody looked.
    #[test]
    fn text_without_marks_is_cut_as_the_tokenizer_cuts_it(words in "[ a-z\n.,üß🐕]{0,12}", more in "[ a-z\n<>|]{0,6}") {
        for tokenizer in tokenizers() {
            let parts = [("<|user|>\n", Origin::Template), (words.as_str(), Origin::Content),
                ("<|end|>\n<think>", Origin::Template), (more.as_str(), Origin::Setting)];
            let made = prompt(&parts);
            let marks = marks_of(&tokenizer);
            let own = tokenizer.encode_fast(made.as_str(), false).unwrap();
            let ids = marks.encode(&tokenizer, &made).unwrap();
            prop_assert_eq!(&ids, own.get_ids());
            let origins = Origins(made.parts().collect());
            let careful = marks.encode_with_care(&tokenizer, made.as_str(), &origins).unwrap();
            prop_assert_eq!(careful.get_ids(), own.get_ids());
        }
    }

    /// ENG-23: no mark comes of a text that another than the template had a part in, and none of the
    /// template's is lost for what stands beside it.
    #[test]
    fn marks_are_those_of_the_template_alone(contents in prop::collection::vec(
        prop::collection::vec(prop::sample::select(&PIECES[..]), 0..6), 1..4)) {
        for (kind, tokenizer) in tokenizers().into_iter().enumerate() {
            let mut parts = vec![];
            let mut wanted = vec![];
            let contents: Vec<String> = contents.iter().map(|it| it.concat()).collect();
            for content in &contents {
                parts.extend([(" <|user|> ", Origin::Template), (content, Origin::Content),
                    (" <|end|> ", Origin::Template)]);
                wanted.extend([1, 0]);
            }
            let ids = marks_of(&tokenizer).encode(&tokenizer, &prompt(&parts)).unwrap();
            prop_assert_eq!(reserved(&ids), wanted, "vocabulary {}: {:?}", kind, contents);
        }
    }
}

#[test]
fn a_mark_that_hides_behind_a_users_text_is_found() {
    let json = json!({"version": "1.0", "added_tokens": [
            added(0, "<|end|>", &json!({})), added(1, "x<|end|>", &json!({}))],
        "model": {"type": "WordLevel", "unk_token": "<unk>",
            "vocab": {"<|end|>": 0, "x<|end|>": 1, "<unk>": 2}}});
    let tokenizer = tokenizers::Tokenizer::from_bytes(json.to_string()).unwrap();
    let parts = [("x", Origin::Content), ("<|end|>", Origin::Template)];
    let ids = marks_of(&tokenizer).encode(&tokenizer, &prompt(&parts));
    assert_eq!(ids.unwrap(), [2, 0]);
}

#[test]
fn a_setting_may_fill_a_word_into_a_mark_and_nothing_else_may() {
    let tokenizer = &tokenizers()[0];
    let marks = marks_of(tokenizer);
    let first = |left: &str, word: &str, right: &str, origin: Origin| {
        let parts = [
            (left, Origin::Template),
            (word, origin),
            (right, Origin::Template),
        ];
        marks.encode(tokenizer, &prompt(&parts)).unwrap()[0]
    };
    assert_eq!(first("<|", "user", "|>", Origin::Setting), 1);
    assert_ne!(first("<|", "user", "|>", Origin::Content), 1);
    // Not its brackets, and not the whole.
    assert_ne!(first("<", "|user|", ">", Origin::Setting), 1);
    assert_ne!(first("", "<|user|>", "", Origin::Setting), 1);
    assert_ne!(first("<|user|", ">", "", Origin::Setting), 1);
}
