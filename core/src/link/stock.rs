//! The models that a provider has: those that are sold here are offered, of the others a note is kept
//! for the day on which they are sold.

use crate::config::Catalog;
use crate::ids::ModelIx;
use crate::wire::REPORTED_SLOTS_MAX;
use crate::wire::messages::ModelEntry;

/// Models that are not sold, of which a note is kept for each provider.
const UNSOLD_MAX: usize = 64;
/// Bytes of the name of one of them.
const UNSOLD_NAME_BYTES_MAX: usize = 256;
/// Of these, as an operator is told them: the first, and so much of each name.
const SHOWN_MAX: usize = 8;
const SHOWN_CHARS_MAX: usize = 96;

/// The models of one provider, in the order of its list.
#[derive(Clone, Debug, Hash)]
pub(super) struct Stock {
    /// Those that it can serve and that are or may be sold, each once.
    names: Vec<Box<str>>,
    sold: Vec<ModelIx>,
    /// The first of those that are not sold, also of those that it cannot serve.
    shown: Vec<String>,
    /// Those that found no place among the names.
    unnoted: u64,
}

impl Stock {
    pub(super) fn new(entries: &[ModelEntry<'_>], catalog: &Catalog) -> Self {
        let mut stock = Self {
            names: Vec::new(),
            sold: Vec::new(),
            shown: shown(entries.iter().map(|entry| &*entry.id), catalog),
            unnoted: 0,
        };
        // `false` says that the template crashes: this model is not offered on this provider. An absent
        // value is no opinion.
        let served = entries
            .iter()
            .filter(|entry| entry.template_render_ok != Some(false));
        let mut unsold = 0;
        for entry in served {
            let name: &str = &entry.id;
            let has_place = match catalog.find(name) {
                Some(model) if stock.sold.contains(&model) => continue,
                Some(_) => stock.sold.len() < REPORTED_SLOTS_MAX,
                None if stock.names.iter().any(|noted| **noted == *name) => continue,
                None => unsold < UNSOLD_MAX && name.len() <= UNSOLD_NAME_BYTES_MAX,
            };
            if !has_place {
                stock.unnoted += 1;
                continue;
            }
            match catalog.find(name) {
                Some(model) => stock.sold.push(model),
                None => unsold += 1,
            }
            stock.names.push(name.into());
        }
        stock
    }

    /// What is sold by another catalogue. `false`: nothing else than before.
    pub(super) fn sort(&mut self, catalog: &Catalog) -> bool {
        let names = || self.names.iter().map(|name| &**name);
        let sold = names().filter_map(|name| catalog.find(name));
        let sold: Vec<ModelIx> = sold.take(REPORTED_SLOTS_MAX).collect();
        let is_other = sold != self.sold;
        self.shown = shown(names(), catalog);
        self.sold = sold;
        is_other
    }

    /// What it can serve of what is sold, each once.
    pub(super) fn sold(&self) -> &[ModelIx] {
        &self.sold
    }

    /// The first of the models that it has and nobody sells here.
    pub(super) fn unsold(&self) -> &[String] {
        &self.shown
    }

    /// How many models nobody will hear of, should they be sold, before the provider names them again.
    pub(super) const fn unnoted(&self) -> u64 {
        self.unnoted
    }
}

/// Names that strangers chose: cut, and without what a terminal would obey.
fn shown<'a>(names: impl Iterator<Item = &'a str>, catalog: &Catalog) -> Vec<String> {
    let unsold = names.filter(|name| catalog.find(name).is_none());
    let shown = unsold.map(|name| {
        let plain = name.chars().filter(|c| !c.is_control());
        plain.take(SHOWN_CHARS_MAX).collect()
    });
    shown.take(SHOWN_MAX).collect()
}
