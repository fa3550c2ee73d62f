//! Which marks of a rendered prompt become control tokens: those that the template wrote.
//!
//! A user may type `<|im_end|>`; it stays text. Prompts without such text, which are nearly all, go
//! through the tokenizer as they are. In the others the added tokens are cut out here, by the
//! tokenizer's own rules, except where one would take in a part that came from outside.

use std::collections::BTreeSet;
use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use tokenizers::normalizer::Range as Place;
use tokenizers::{
    AddedToken, Model as _, NormalizedString, Normalizer as _, OffsetType, PreTokenizedString,
    PreTokenizer as _, Token,
};

use super::jinja::text::{Origin, Text};

pub(super) struct Marks {
    exact: Option<Finder>,
    /// Those that are looked for after the text was normalised.
    normalised: Option<Finder>,
}

struct Finder {
    automaton: AhoCorasick,
    /// In the automaton's order.
    marks: Vec<Mark>,
}

struct Mark {
    id: u32,
    token: AddedToken,
    /// Whether the template alone may write it. Other added tokens, such as runs of blanks, are
    /// nothing but frequent text.
    is_reserved: bool,
}

/// A piece of text with the place of its mark, if it is one.
type Piece = (Option<usize>, Range<usize>);

/// Where each part of a prompt came from.
struct Origins(Vec<(Range<usize>, Origin)>);

impl Origins {
    /// Whether the template wrote what lies in `range`. A setting may fill in a word of it, as in
    /// `'<|' ~ mode ~ '|>'`: so much is the template's own doing.
    fn are_template(&self, text: &str, range: &Range<usize>) -> bool {
        let first = self.0.partition_point(|(part, _)| part.end <= range.start);
        let parts = self.0[first..].iter();
        let mut within = parts.take_while(|(part, _)| part.start < range.end);
        let is_word = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
        within.all(|(part, origin)| match origin {
            Origin::Template => true,
            Origin::Content => false,
            Origin::Setting => {
                let is_inside = range.start < part.start && part.end < range.end;
                is_inside && text[part.clone()].chars().all(is_word)
            }
        })
    }

    fn are_all_template(&self) -> bool {
        self.0.iter().all(|(_, origin)| *origin == Origin::Template)
    }
}

impl Finder {
    fn new(patterns: Vec<(String, Mark)>) -> Option<Self> {
        if patterns.is_empty() {
            return None;
        }
        let (patterns, marks): (Vec<String>, Vec<Mark>) = patterns.into_iter().unzip();
        let mut builder = AhoCorasick::builder();
        let automaton = builder
            .match_kind(MatchKind::LeftmostLongest)
            .build(patterns);
        let automaton = automaton.ok()?;
        Some(Self { automaton, marks })
    }

    /// Cuts `text` into marks and what lies between, as the tokenizer does. A mark that `may_be`
    /// refuses is looked through, so that it hides none that begins inside it.
    fn cut(&self, text: &str, may_be: impl Fn(&Mark, &Range<usize>) -> bool) -> Vec<Piece> {
        let mut pieces = vec![];
        let mut done = 0;
        let mut from = 0;
        while let Some(found) = self.automaton.find(Input::new(text).range(from..)) {
            let place = found.pattern().as_usize();
            let mark = &self.marks[place];
            let range = found.range();
            if !may_be(mark, &range) {
                from = range.start + text[range.start..].chars().next().map_or(1, char::len_utf8);
                continue;
            }
            from = range.end;
            if mark.token.single_word && !stands_alone(text, &range) {
                continue;
            }
            let (mut start, mut end) = (range.start, range.end);
            if mark.token.lstrip {
                start = text[..start].trim_end().len().max(done);
            }
            if mark.token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                pieces.push((None, done..start));
            }
            pieces.push((Some(place), start..end));
            // Blanks that went with a mark are still searched, as the tokenizer does.
            done = end;
        }
        if done < text.len() {
            pieces.push((None, done..text.len()));
        }
        pieces
    }

    fn reserved(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter().filter(|mark| mark.is_reserved)
    }
}

fn stands_alone(text: &str, range: &Range<usize>) -> bool {
    let is_word = |it: char| it.is_alphanumeric() || it == '_';
    !text[..range.start].ends_with(is_word) && !text[range.end..].starts_with(is_word)
}

impl Marks {
    /// `shown` are added tokens that are no special ones and yet mean something where they stand.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, shown: impl Fn(&str) -> bool) -> Self {
        let (mut exact, mut normalised) = (vec![], vec![]);
        let mut known = BTreeSet::new();
        for (id, token) in tokenizer.get_added_tokens_decoder() {
            let mark = Mark {
                id,
                is_reserved: token.special || shown(&token.content),
                token,
            };
            let mut text = mark.token.content.clone();
            if mark.token.normalized
                && let Some(normalizer) = tokenizer.get_normalizer()
            {
                let mut changed = NormalizedString::from(text.as_str());
                if normalizer.normalize(&mut changed).is_ok() {
                    text = changed.get().to_owned();
                }
            }
            if text.is_empty() || !known.insert((mark.token.normalized, text.clone())) {
                continue;
            }
            let list = if mark.token.normalized {
                &mut normalised
            } else {
                &mut exact
            };
            list.push((text, mark));
        }
        Self {
            exact: Finder::new(exact),
            normalised: Finder::new(normalised),
        }
    }

    /// The tokens of a prompt. `None` where the tokenizer fails on it.
    pub(super) fn encode(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        prompt: &Text,
    ) -> Option<Vec<u32>> {
        let text = prompt.as_str();
        let origins = Origins(prompt.parts().collect());
        let ids = if self.is_plain(text, &origins) {
            tokenizer.encode_fast(text, false).ok()?
        } else {
            self.encode_with_care(tokenizer, text, &origins)?
        };
        Some(ids.get_ids().to_vec())
    }

    /// Whether the tokenizer finds no mark in the text that the template did not write.
    fn is_plain(&self, text: &str, origins: &Origins) -> bool {
        if origins.are_all_template() {
            return true;
        }
        let is_forged = |finder: &Finder| {
            let all = finder.cut(text, |_, _| true);
            let mut marks = all
                .iter()
                .filter_map(|(place, range)| place.map(|it| (it, range)));
            marks.any(|(place, range)| {
                let mark = &finder.marks[place];
                // Blanks beside a mark may go with it, whoever wrote them.
                let found = text[range.clone()].trim();
                let start = range.start + text[range.clone()].find(found).unwrap_or(0);
                let own = start..start + found.len();
                mark.is_reserved && !origins.are_template(text, &own)
            })
        };
        // What normalising makes of a text cannot be told beforehand.
        let has_normalised = self.normalised.as_ref();
        let has_normalised = has_normalised.is_some_and(|it| it.reserved().next().is_some());
        !has_normalised && !self.exact.as_ref().is_some_and(is_forged)
    }

    fn encode_with_care(
        &self,
        tokenizer: &tokenizers::Tokenizer,
        text: &str,
        origins: &Origins,
    ) -> Option<tokenizers::Encoding> {
        let mut pieces = PreTokenizedString::from(text);
        let cut =
            pieces.split(|_, piece| Ok(self.split(self.exact.as_ref(), piece, text, origins)));
        cut.ok()?;
        let cut = pieces.split(|_, mut piece| {
            if let Some(normalizer) = tokenizer.get_normalizer() {
                normalizer.normalize(&mut piece)?;
            }
            Ok(self.split(self.normalised.as_ref(), piece, text, origins))
        });
        cut.ok()?;
        if let Some(pre_tokenizer) = tokenizer.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).ok()?;
        }
        let model = tokenizer.get_model();
        let made = pieces.tokenize(|piece| self.tokens(piece.get(), &|text| model.tokenize(text)));
        made.ok()?;
        pieces.into_encoding(None, 0, OffsetType::None).ok()
    }

    /// One piece at the marks in it. Its places are counted in the whole text as it came.
    fn split(
        &self,
        finder: Option<&Finder>,
        piece: NormalizedString,
        whole: &str,
        origins: &Origins,
    ) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
        let Some(finder) = finder else {
            return vec![(piece, None)];
        };
        let shift = piece.offsets_original().0;
        let cuts = finder.cut(piece.get(), |mark, range| {
            if !mark.is_reserved {
                return true;
            }
            let original = piece.convert_offsets(Place::Normalized(range.clone()));
            original
                .is_some_and(|it| origins.are_template(whole, &(it.start + shift..it.end + shift)))
        });
        let one = |(place, range): Piece| {
            let slice = piece.slice(Place::Normalized(range))?;
            let token = place.map(|place| {
                let (id, text) = (finder.marks[place].id, slice.get().to_owned());
                let len = text.len();
                vec![Token::new(id, text, (0, len))]
            });
            Some((slice, token))
        };
        cuts.into_iter().filter_map(one).collect()
    }

    /// The tokens of text. Some vocabularies hold their marks as words: one that would be found
    /// whole is cut until it is not.
    fn tokens(
        &self,
        text: &str,
        tokenize: &dyn Fn(&str) -> tokenizers::Result<Vec<Token>>,
    ) -> tokenizers::Result<Vec<Token>> {
        let tokens = tokenize(text)?;
        let finders = [&self.exact, &self.normalised].into_iter().flatten();
        let mut reserved = finders.flat_map(Finder::reserved);
        let is_found = reserved.any(|mark| {
            tokens.iter().any(|token| token.id == mark.id) && text.contains(&mark.token.content)
        });
        if !is_found {
            return Ok(tokens);
        }
        let middle = text.chars().count() / 2;
        let Some((middle, _)) = text.char_indices().nth(middle).filter(|(at, _)| *at > 0) else {
            // A mark of a single character has no other spelling.
            return Ok(vec![]);
        };
        let mut left = self.tokens(&text[..middle], tokenize)?;
        left.extend(self.tokens(&text[middle..], tokenize)?);
        Ok(left)
    }
}

#[cfg(test)]
mod tests;
