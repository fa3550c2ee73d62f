//! The backend of a real model: a folder's network and language, and the pages of its rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::backend::{Backend, Limits, Memory, RowWork, StepError, StepWork};
use super::memory::process_memory;
use crate::chat::{ChatRequest, Defaults};
use crate::failure::Failure;
use crate::grammar::Grammars;
use crate::kv::{KvLayout, PageId};
use crate::language::Language;
use crate::model::{Model, ModelError, Output, PagedCache, PagedStep};
use crate::sampling::{Chosen, Sampler};
use crate::scheduler::RowSlot;
use crate::text::{AnswerParser, Vocabulary};

/// See the module.
#[derive(Debug)]
pub struct MlxBackend {
    model: Model,
    language: Language,
    cache: PagedCache,
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
        let cache = PagedCache::new(&model);
        Ok(Self {
            model,
            language,
            cache,
            sampler: Sampler::default(),
        })
    }

    /// Runs the rows over their pages; their logits, one after the other.
    fn run(&mut self, step: &StepWork<'_>) -> Result<Option<Array>, Exception> {
        let kv = step.kv;
        let groups = 0..self.cache.groups().len();
        for group in groups.clone() {
            let (extent, max) = (kv.pages_extent(group), kv.pages_max(group));
            self.cache.fit(group, extent, max)?;
        }
        for copy in step.copies {
            self.cache
                .copy(usize::from(copy.group), copy.from, copy.to)?;
        }
        for restore in step.restores {
            self.cache.restore(restore.slot.0, restore.from);
        }
        let tables = |row: &RowWork<'_>| {
            groups
                .clone()
                .map(|group| kv.table(row.slot.0, group))
                .collect()
        };
        let tables: Vec<Vec<&[PageId]>> = step.rows.iter().map(tables).collect();
        let rows = step
            .rows
            .iter()
            .zip(&tables)
            .map(|(row, tables)| PagedStep {
                slot: row.slot.0,
                start: row.start,
                tokens: row.tokens,
                tables,
                output: if row.sample.is_some() {
                    Output::Logits
                } else {
                    Output::Nothing
                },
            });
        let rows: Vec<PagedStep<'_>> = rows.collect();
        let logits = self.model.step_paged(&mut self.cache, &rows)?;
        for save in step.saves {
            self.cache.save(save.slot.0, save.to);
        }
        Ok(logits)
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
            step_tokens_useful: self.model.step_tokens_useful(),
        }
    }

    fn step_time_max(&self) -> Duration {
        self.model.step_time_max()
    }

    fn layout(&self, grant_bytes: u64) -> KvLayout {
        self.model.kv_layout(grant_bytes)
    }

    fn contract(&self) -> Option<[u8; 32]> {
        Some(self.language.contract())
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

    fn grammars(&self) -> Option<Arc<dyn Grammars>> {
        Some(self.language.grammars())
    }

    fn is_end(&self, token: u32) -> bool {
        self.language.is_end(token)
    }

    fn step(
        &mut self,
        step: &StepWork<'_>,
        out: &mut Vec<Option<Chosen>>,
    ) -> Result<(), StepError> {
        let failed = |cause: Exception| StepError(cause.to_string());
        let Some(logits) = self.run(step).map_err(failed)? else {
            return Ok(());
        };
        let vocab_size = usize::try_from(self.model.config().vocab_size)
            .expect("a checked config's sizes are positive");
        let values = logits
            .try_as_slice::<f32>()
            .map_err(|cause| StepError(format!("the logits cannot be read: {cause}")))?;
        let samples = step.rows.iter().filter_map(|row| row.sample);
        for (sample, logits) in samples.zip(values.chunks_exact(vocab_size)) {
            out.push(self.sampler.choose(&sample, logits));
        }
        Ok(())
    }

    fn release(&mut self, slot: RowSlot) {
        self.cache.release(slot.0);
    }

    fn memory(&self) -> Memory {
        process_memory()
    }
}
