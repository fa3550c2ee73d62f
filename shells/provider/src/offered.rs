//! A model that this process serves: where it comes from, what it would take, and whether it may.

use std::path::PathBuf;

use cereus_core::memory::KvRate;
use cereus_core::slots::{BuildSpec, Keep, Offer};
use cereus_core::wire::Text;
use cereus_core::wire::messages::ModelEntry;

use crate::weights::{Fingerprint, FoundModel, KnownHashes, fingerprint, open_model};
use crate::{Backend, ModelError, ModelSource};

/// What the echo's tokens take, and how long it can remember: as its backend says.
const ECHO_KV: KvRate = KvRate {
    bytes_per_token: 1,
    context_tokens: 131_072,
};

/// See the module.
#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) source: ModelSource,
    /// Nothing for the echo, which has no files.
    pub(crate) files: Option<Files>,
}

/// A model folder as it was when the process began.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) found: FoundModel,
    pub(crate) fingerprint: Fingerprint,
    /// Known from an earlier load.
    pub(crate) hash: Option<String>,
}

impl Offered {
    /// Looks at the model's files without reading its weights.
    pub(crate) fn open(source: ModelSource, known: &KnownHashes) -> Result<Self, ModelError> {
        let files = match &source.backend {
            Backend::Echo { .. } => None,
            Backend::Model(folder) => Some(Files::open(folder.clone(), &source.id, known)?),
        };
        Ok(Self { source, files })
    }

    pub(crate) fn id(&self) -> &str {
        &self.source.id
    }

    /// Why it is fenced off, if it is.
    pub(crate) fn fault(&self) -> Option<&str> {
        self.files.as_ref()?.found.template.fault()
    }

    pub(crate) fn hash(&self) -> Option<&str> {
        self.files.as_ref()?.hash.as_deref()
    }

    pub(crate) fn spec(&self) -> BuildSpec {
        let (weights_bytes, kv) = match (&self.source.backend, &self.files) {
            (Backend::Echo { weights_bytes, .. }, _) => (*weights_bytes, Some(ECHO_KV)),
            (Backend::Model(_), files) => {
                let found = files.as_ref().map(|files| &files.found);
                let weights_bytes = found.map_or(0, FoundModel::weights_bytes);
                (weights_bytes, found.map(FoundModel::kv_rate))
            }
        };
        BuildSpec {
            weights_bytes,
            kv,
            keep: Keep::WhileUsed,
            offer: if self.fault().is_some() {
                Offer::Fenced
            } else {
                Offer::Open
            },
        }
    }

    /// What `register` says of it.
    pub(crate) fn entry(&self) -> ModelEntry<'_> {
        match &self.files {
            Some(files) => files.found.entry(files.hash.as_deref()),
            None => ModelEntry {
                id: Text::from(self.id()),
                template_render_ok: Some(true),
                ..ModelEntry::default()
            },
        }
    }
}

impl Files {
    fn open(folder: PathBuf, id: &str, known: &KnownHashes) -> Result<Self, ModelError> {
        let found = open_model(&folder, id)?;
        if let Some(why) = found.unsupported {
            return Err(ModelError::Unsupported { folder, why });
        }
        let fingerprint = fingerprint(&folder)?;
        let hash = known.find(&folder)?;
        Ok(Self {
            found,
            fingerprint,
            hash,
        })
    }
}
