//! The backend of a real model: a folder's network and language, and each running row's cache.

use std::path::Path;

use super::backend::{Backend, Limits, Memory, RowWork, StepError};
use super::memory::process_memory;
use crate::chat::{ChatRequest, Defaults};
use crate::failure::Failure;
use crate::language::Language;
use crate::model::{Model, ModelError, Output, RowCache, RowStep};
use crate::sampling::{Chosen, Sampler};
use crate::scheduler::RowSlot;
use crate::text::{AnswerParser, Vocabulary};

/// See the module.
#[derive(Debug)]
pub struct MlxBackend {
    model: Model,
    language: Language,
    /// By slot; present while a row runs there.
    caches: Vec<Option<RowCache>>,
    sampler: Sampler,
}

impl MlxBackend {
    /// Loads a standard Hugging Face folder.
    ///
    /// # Errors
    /// A file is absent, damaged, or of another model.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let model = Model::load(folder)?;
        let language = Language::load(folder, model.config())?;
        Ok(Self {
            model,
            language,
            caches: vec![],
            sampler: Sampler::default(),
        })
    }

    /// Takes a row's cache out for a step; a row that begins gets a new one.
    fn take_cache(&mut self, work: &RowWork<'_>) -> RowCache {
        let slot = usize::from(work.slot.0);
        if slot >= self.caches.len() {
            self.caches.resize_with(slot + 1, || None);
        }
        let cache = match self.caches[slot].take() {
            Some(cache) if work.start > 0 => cache,
            Some(_) | None => RowCache::new(self.model.config()),
        };
        assert_eq!(
            cache.length().unsigned_abs(),
            work.start,
            "a row goes on where its cache ends"
        );
        cache
    }
}

impl Vocabulary for MlxBackend {
    fn decode(&self, tokens: &[u32]) -> String {
        self.language.decode(tokens)
    }
}

impl Backend for MlxBackend {
    fn limits(&self) -> Limits {
        let config = self.model.config();
        Limits {
            context_tokens: config.context_tokens_max.unsigned_abs(),
            kv_bytes_per_token: self.model.kv_bytes_per_token(),
        }
    }

    fn defaults(&self) -> Defaults {
        self.language.defaults()
    }

    fn prompt(&self, request: &ChatRequest) -> Result<Vec<u32>, Failure> {
        self.language.prompt(request)
    }

    fn parser(&self, request: &ChatRequest, prompt: &[u32]) -> AnswerParser {
        self.language.parser(request, prompt)
    }

    fn is_end(&self, token: u32) -> bool {
        self.language.is_end(token)
    }

    fn step(
        &mut self,
        work: &[RowWork<'_>],
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        let mut caches: Vec<RowCache> = work.iter().map(|row| self.take_cache(row)).collect();
        let mut rows: Vec<RowStep<'_>> = caches
            .iter_mut()
            .zip(work)
            .map(|(cache, row)| RowStep {
                cache,
                tokens: row.tokens,
                output: if row.sample.is_some() {
                    Output::Logits
                } else {
                    Output::Nothing
                },
            })
            .collect();
        let logits = self
            .model
            .step(&mut rows)
            .map_err(|cause| StepError(cause.to_string()))?;
        for (cache, row) in caches.into_iter().zip(work) {
            self.caches[usize::from(row.slot.0)] = Some(cache);
        }
        let Some(logits) = logits else { return Ok(()) };
        let vocab_size = usize::try_from(self.model.config().vocab_size)
            .expect("a checked config's sizes are positive");
        let values = logits
            .try_as_slice::<f32>()
            .map_err(|cause| StepError(format!("the logits cannot be read: {cause}")))?;
        let samples = work.iter().filter_map(|row| row.sample);
        for (sample, logits) in samples.zip(values.chunks_exact(vocab_size)) {
            out.push(self.sampler.choose(&sample, logits));
        }
        Ok(())
    }

    fn release(&mut self, slot: RowSlot) {
        if let Some(cache) = self.caches.get_mut(usize::from(slot.0)) {
            *cache = None;
        }
    }

    fn memory(&self) -> Memory {
        process_memory()
    }
}
