//! What has to happen so that a catalogue sells something else.

use std::borrow::Cow;

use super::{Catalog, CatalogError, ModelSpec};
use crate::event::Event;

impl Catalog {
    /// The events after which exactly `specs` are sold: first what is retired, then what is listed,
    /// then what is priced. A model that changed in more than its price is retired and listed again, at
    /// its old place. Nothing: the same is sold already.
    ///
    /// # Errors
    /// `specs` are no catalogue, or there is no room for them beside what was sold before.
    pub fn changes_to(&self, specs: Vec<ModelSpec>) -> Result<Vec<Event<'static>>, CatalogError> {
        let wanted = Self::new(specs)?;
        let is_new = |spec: &ModelSpec| self.place(&spec.id).is_err();
        let new_count = wanted.models.iter().filter(|spec| is_new(spec)).count();
        let count = self.models.len() + new_count;
        if count > Self::MODELS_MAX {
            return Err(CatalogError::TooMany(count));
        }
        let (mut retired, mut listed, mut priced) = (Vec::new(), Vec::new(), Vec::new());
        for (model, old) in self.iter() {
            let new = wanted.find(&old.id).and_then(|ix| wanted.spec(ix));
            match new {
                Some(new) if new == old => {}
                Some(new) if new.is_but_for_price(old) => {
                    let price = new.price;
                    priced.push(Event::ModelPriced { model, price });
                }
                Some(_) | None => retired.push(Event::ModelRetired { model }),
            }
        }
        for new in wanted.models {
            let old = self.find(&new.id).and_then(|model| self.spec(model));
            if old.is_none_or(|old| !new.is_but_for_price(old)) {
                let spec = Cow::Owned(new);
                listed.push(Event::ModelListed { spec });
            }
        }
        retired.append(&mut listed);
        retired.append(&mut priced);
        Ok(retired)
    }
}

impl ModelSpec {
    /// Whether it is the other in everything that is not its price.
    fn is_but_for_price(&self, other: &Self) -> bool {
        let Self {
            id,
            price: _,
            context_tokens,
            output_tokens_default,
            weights_bytes,
        } = self;
        *id == other.id
            && *context_tokens == other.context_tokens
            && *output_tokens_default == other.output_tokens_default
            && *weights_bytes == other.weights_bytes
    }
}

#[cfg(test)]
mod tests;
