//! The backend of a real model: a folder's network and language, and the pages of its rows.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mlx_rs::Array;
use mlx_rs::error::Exception;
use sha2::{Digest as _, Sha256};

use super::backend::{Backend, FilledBlock, Limits, Memory, RowWork, StepError, StepWork};
use super::memory::process_memory;
use super::prepare::Prompts;
use crate::chat::Defaults;
use crate::grammar::Grammars;
use crate::kv::{KvLayout, Ledger, PageId};
use crate::language::Language;
use crate::model::{BlockBytes, Model, ModelError, Output, PagedCache, PagedStep, identity};
use crate::sampling::{Chosen, Sampler};
use crate::scheduler::RowSlot;
use crate::text::Vocabulary;

/// See the module.
#[derive(Debug)]
pub struct MlxBackend {
    model: Model,
    /// Shared with the threads that make prompts.
    language: Arc<Language>,
    cache: PagedCache,
    sampler: Sampler,
    /// Absent where the system does not tell enough of the files.
    blocks_id: Option<[u8; 32]>,
}

/// In a layout of full attention, the only kind whose blocks are exported, there is one.
const FULL_GROUP: usize = 0;

impl MlxBackend {
    /// Loads a standard Hugging Face folder.
    ///
    /// # Errors
    /// A file is absent, damaged, or of another model.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let model = Model::load(folder)?;
        let language = Arc::new(Language::load(folder, model.config())?);
        let cache = PagedCache::new(&model);
        Ok(Self {
            blocks_id: identity(folder).ok().map(|id| blocks_id(&id, &model)),
            model,
            language,
            cache,
            sampler: Sampler::default(),
        })
    }

    /// Sees that all pages exist that were handed out.
    fn fit(&mut self, kv: &Ledger) -> Result<(), Exception> {
        for group in 0..self.cache.groups().len() {
            let (extent, max) = (kv.pages_extent(group), kv.pages_max(group));
            self.cache.fit(group, extent, max)?;
        }
        Ok(())
    }

    /// Runs the rows over their pages; their logits, one after the other.
    fn run(&mut self, step: &StepWork<'_>) -> Result<Option<Array>, Exception> {
        let kv = step.kv;
        self.fit(kv)?;
        let groups = 0..self.cache.groups().len();
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

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.language.token_bytes(token)
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

    fn ends(&self) -> Vec<u32> {
        self.language.ends().collect()
    }

    fn defaults(&self) -> Defaults {
        self.language.defaults()
    }

    fn prompts(&self) -> Option<Arc<dyn Prompts>> {
        Some(Arc::clone(&self.language) as Arc<dyn Prompts>)
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

    fn blocks_id(&self) -> Option<[u8; 32]> {
        self.blocks_id
    }

    fn export(&mut self, pages: &[PageId]) -> Result<Vec<u8>, StepError> {
        self.cache.export(FULL_GROUP, pages).map_err(failed)
    }

    fn import(&mut self, kv: &Ledger, blocks: &[FilledBlock<'_>]) -> Result<(), StepError> {
        self.fit(kv).map_err(failed)?;
        let blocks = blocks.iter().map(|block| BlockBytes {
            pages: block.pages,
            bytes: block.bytes,
        });
        let blocks: Vec<BlockBytes<'_>> = blocks.collect();
        self.cache.import(FULL_GROUP, &blocks).map_err(failed)
    }

    fn release(&mut self, slot: RowSlot) {
        self.cache.release(slot.0);
    }

    fn memory(&self) -> Memory {
        process_memory()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(cause: Exception) -> StepError {
    StepError(cause.to_string())
}

/// Keys and values are the same to the last bit under the same weights, in the same layout and by the
/// same sums: whoever changes a kernel's order of sums counts up the label.
fn blocks_id(weights: &[u8; 32], model: &Model) -> [u8; 32] {
    let mut items = Sha256::new_with_prefix(b"cereus.mlx-blocks.v1");
    items.update(weights);
    items.update(format!("{:?}", model.layout()));
    items.update(env!("CARGO_PKG_VERSION"));
    items.finalize().into()
}
