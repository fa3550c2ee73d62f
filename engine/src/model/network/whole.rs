//! `Past` for training: each row is computed whole and nothing of it is remembered.

use mlx_rs::Array;
use mlx_rs::error::Exception;

use super::delta::{DeltaInput, GatedDelta};
use super::past::{Attention, KeyValue, Past};

/// The given tokens only, each seeing itself and those before it.
#[derive(Debug, Default)]
pub(super) struct Whole {
    /// By store: what a layer left for those that share it.
    held: Vec<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    keys: Array,
    values: Array,
}

impl Whole {
    pub(super) fn new(store_count: usize) -> Self {
        Self {
            held: vec![None; store_count],
        }
    }
}

impl Past for Whole {
    fn attend(
        &mut self,
        layer: &Attention,
        query: &Array,
        key_value: Option<KeyValue<'_>>,
    ) -> Result<Array, Exception> {
        let turned = |heads: Array| {
            let heads = heads.swap_axes(1, 2)?;
            layer
                .rope
                .as_ref()
                .map_or(Ok(heads.clone()), |rope| rope.at_start(&heads))
        };
        if let Some(raw) = key_value {
            self.held[layer.store] = Some(Held {
                keys: turned(layer.keys(raw.key)?)?,
                values: layer.values(raw.value)?.swap_axes(1, 2)?,
            });
        }
        let held = self.held[layer.store]
            .as_ref()
            .expect("a layer that shares a store comes after the one that fills it");
        let seen = layer.over(&turned(layer.queries(query)?)?, &held.keys, &held.values)?;
        seen.swap_axes(1, 2)?
            .reshape(&[query.dim(0), query.dim(1), -1])
    }

    fn recur(&mut self, layer: &GatedDelta, input: &DeltaInput) -> Result<Array, Exception> {
        Ok(layer.run(input, None)?.output)
    }
}
