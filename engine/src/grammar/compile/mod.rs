//! Grammars by llguidance: a request's demands become one context-free grammar with the JSON schemas
//! in it, and each step asks which tokens of the vocabulary may go on from where the answer stands.
//!
//! Schemas come from strangers. What is built of one is bounded by the limits below, on a thread
//! with a stack of its own; nothing of a schema is ever shown.

mod answer;
mod cache;
mod calls;
mod family;
mod lark;
mod schema;
#[cfg(test)]
mod tests;
mod walk;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};

pub use family::Family;

use self::cache::Cache;
use self::lark::{Lark, schema_name};
use self::walk::{Thoughts, Walk};
use super::{Constraint, Grammars};
use crate::chat::ChatRequest;
use crate::failure::{Failure, Reason};
use crate::kv::Scope;
use crate::text::CallFormat;

/// What a grammar may cost. Fuel is spent on the automata of strings and patterns, items on the
/// structure; by llguidance's own figures the first is 50 a microsecond when a grammar is compiled
/// and 14 in a step, the second 20 a microsecond.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 500_000,
        step_lexer_fuel: 50_000,
        step_max_items: 20_000,
        // A state takes one or two kilobytes, so these are 16 MB at most.
        max_lexer_states: 8_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: true,
        // Verbose errors would quote the schema, which is a part of the prompt.
        verbose_errors: false,
    }
}

/// Blanks within JSON: enough for any way of indenting, and an end to them.
const BLANKS: &str = r"(\n{1,2}[ \t]{0,64}|[ \t])";
/// Recursion follows the nesting of a schema.
const STACK_BYTES: usize = 16 << 20;
/// Bytes of a token; what is longer is never allowed.
const WORD_BYTES_MAX: usize = 255;

type Words = dyn Fn() -> Option<Vec<Vec<u8>>> + Send + Sync;

/// Compiles the grammars of one model.
pub struct Compiler {
    family: Family,
    ends: Vec<u32>,
    words: Box<Words>,
    /// Made when it is first asked for: most models never are. Absent where the vocabulary is
    /// spelled in a way that is not known here.
    factory: OnceLock<Option<Factory>>,
    cache: Mutex<Cache>,
}

struct Factory {
    parsers: ParserFactory,
    /// All tokens but the ends: what a thought may hold.
    thought: Arc<SimpleVob>,
}

/// Prints no schema.
impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Compiler({:?})", self.family)
    }
}

impl Compiler {
    /// `ends` are the tokens that end an answer; `words` gives the bytes of every token by its
    /// number, empty for those that are no text.
    #[must_use]
    pub fn new(
        family: Family,
        ends: Vec<u32>,
        words: impl Fn() -> Option<Vec<Vec<u8>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            family,
            ends,
            words: Box::new(words),
            factory: OnceLock::new(),
            cache: Mutex::new(Cache::default()),
        }
    }

    fn factory(&self) -> Result<&Factory, Failure> {
        let made = self.factory.get_or_init(|| {
            let words = (self.words)()?;
            // The library panics over vocabularies that break what its trie assumes; such a model
            // is served without forms.
            let made = catch_unwind(AssertUnwindSafe(|| factory(words, &self.ends)));
            made.ok().flatten()
        });
        made.as_ref().ok_or_else(|| {
            let text = "this model's vocabulary cannot be held to a form; ask without \
                        response_format, strict tools and tool_choice";
            Failure::new(Reason::ClientError, text)
        })
    }

    /// A fresh way through the grammar, which is compiled unless it lately was for the same scope.
    fn walk(
        &self,
        request: &ChatRequest,
        scope: Option<&Scope>,
        lark: &Lark,
    ) -> Result<(Matcher, SimpleVob), Failure> {
        let factory = self.factory()?;
        let key = scope.map(|scope| lark.key(scope));
        let cached = key.and_then(|key| self.cache().get(&key));
        if let Some(found) = cached {
            return Ok(found);
        }
        let field = answer::field(request);
        let compiled = thread::scope(|scope| {
            let builder = thread::Builder::new().stack_size(STACK_BYTES);
            let thread = builder.spawn_scoped(scope, || compile(&factory.parsers, lark));
            thread.map(ScopedJoinHandle::join)
        });
        let (matcher, mask) = match compiled {
            Ok(Ok(Ok(compiled))) => compiled,
            Ok(Ok(Err(message))) => return Err(schema::refusal(field, &message)),
            Ok(Err(_)) => return Err(schema::refusal(field, "")),
            Err(_) => {
                let text = "this machine has no thread left to compile a grammar on";
                return Err(Failure::new(Reason::ProviderError, text));
            }
        };
        let fresh = matcher.deep_clone();
        if let Some(key) = key {
            self.cache().put(key, lark.bytes(), matcher, mask.clone());
        }
        Ok((fresh, mask))
    }

    /// A panic elsewhere leaves it whole: each change is one call.
    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn thoughts(&self, request: &ChatRequest) -> Thoughts {
        if !request.is_chat() {
            return Thoughts::None;
        }
        if self.family.format() == CallFormat::Harmony {
            return Thoughts::InGrammar;
        }
        let opening = match request.template.thinking {
            Some(false) => None,
            None | Some(true) => self.family.thought_opening(),
        };
        if self.family.dialect().reasoning.is_none() {
            return Thoughts::None;
        }
        let call = if request.tools.may_be_called() {
            self.family.call_opening()
        } else {
            None
        };
        Thoughts::Apart { opening, call }
    }
}

impl Grammars for Compiler {
    fn compile(
        &self,
        request: &ChatRequest,
        scope: Option<&Scope>,
    ) -> Result<Box<dyn Constraint>, Failure> {
        let lark = answer::write(request, &self.family)?;
        let (matcher, mask) = self.walk(request, scope, &lark)?;
        let thought = Arc::clone(&self.factory()?.thought);
        let thoughts = self.thoughts(request);
        Ok(Box::new(Walk::new(matcher, mask, thought, thoughts)))
    }
}

fn factory(mut words: Vec<Vec<u8>>, ends: &[u32]) -> Option<Factory> {
    for word in &mut words {
        // The trie takes words that begin with this byte for special tokens. It stands in no UTF-8
        // text, so a word that holds it is left out.
        if word.len() > WORD_BYTES_MAX || word.contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
            word.clear();
        }
    }
    let count = u32::try_from(words.len()).ok()?;
    for (id, word) in (0..count).zip(&mut words) {
        if word.is_empty() || ends.contains(&id) {
            *word = [
                &[TokTrie::SPECIAL_TOKEN_MARKER],
                format!("<{id}>").as_bytes(),
            ]
            .concat();
        }
    }
    let ends: Vec<u32> = ends.iter().copied().filter(|id| *id < count).collect();
    let trie = TokTrie::from(&TokRxInfo::new(count, *ends.first()?), &words).with_eos_tokens(&ends);
    let mut thought = trie.alloc_token_set();
    thought.set_all(true);
    for &end in &ends {
        thought.disallow_token(end);
    }
    let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
    let mut parsers = ParserFactory::new_simple(&env).ok()?;
    parsers.quiet();
    *parsers.limits_mut() = limits();
    Some(Factory {
        parsers,
        thought: Arc::new(thought),
    })
}

/// The grammar at its beginning, and what may come first.
fn compile(parsers: &ParserFactory, lark: &Lark) -> Result<(Matcher, SimpleVob), String> {
    let mut grammars = vec![GrammarWithLexer {
        lark_grammar: Some(lark.rules.clone()),
        ..GrammarWithLexer::default()
    }];
    let options = JsonCompileOptions {
        whitespace_pattern: Some(BLANKS.to_owned()),
        ..JsonCompileOptions::default()
    };
    for (ix, schema) in lark.schemas.iter().enumerate() {
        let mut schema = schema.clone();
        options.apply_to(&mut schema);
        grammars.push(GrammarWithLexer {
            name: Some(schema_name(ix)),
            json_schema: Some(schema),
            ..GrammarWithLexer::default()
        });
    }
    let grammar = TopLevelGrammar {
        grammars,
        max_tokens: None,
    };
    let mut matcher = Matcher::new(parsers.create_parser(grammar));
    // Where nothing can come at all, the first mask says so.
    let mask = matcher.compute_mask_or_eos();
    let mask = mask.map_err(|error| error.to_string())?;
    begins(parsers, &matcher, &mask)?;
    Ok((matcher, mask))
}

/// That something may come after the blanks, which come before every answer.
fn begins(parsers: &ParserFactory, matcher: &Matcher, mask: &SimpleVob) -> Result<(), String> {
    let trie = parsers.tok_env().tok_trie();
    let is_blank = |id: u32| trie.token(id).iter().all(u8::is_ascii_whitespace);
    let mut probe = matcher.deep_clone();
    let mut mask = mask.clone();
    for _ in 0..answer::BREAK_MAX {
        let Some(blank) = mask.iter().all(is_blank).then(|| mask.iter().next()) else {
            return Ok(());
        };
        let next = blank.map_or(Ok(()), |blank| probe.consume_token(blank));
        let next = next.and_then(|()| probe.compute_mask_or_eos());
        mask = next.map_err(|error| error.to_string())?;
    }
    Ok(())
}
