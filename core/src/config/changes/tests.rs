//! From one catalogue to the next, by what the coordinator is told.

use proptest::prelude::*;

use super::*;
use crate::config::{Config, Limits};
use crate::coordinator::Coordinator;
use crate::draw::Seed;
use crate::effect::Effects;
use crate::event::Trust;
use crate::ids::ModelIx;
use crate::money::{MicroUsd, Price};
use crate::time::Tick;

fn spec(id: &str) -> ModelSpec {
    ModelSpec {
        id: id.to_owned(),
        price: Price::DEFAULT,
        context_tokens: 4_096,
        output_tokens_default: 256,
        weights_bytes: 1,
    }
}

fn specs(ids: &[&str]) -> Vec<ModelSpec> {
    ids.iter().map(|id| spec(id)).collect()
}

fn dear() -> Price {
    Price {
        input_per_mtok: MicroUsd(7_000_000),
        output_per_mtok: MicroUsd(9_000_000),
    }
}

fn coordinator(catalog: Catalog) -> Coordinator {
    Coordinator::new(Config {
        epoch: crate::ids::Epoch(0),
        seed: Seed::from_number(3),
        catalog,
        limits: Limits::reference(),
        fee_percent: 10,
        trust_min: Trust::None,
    })
}

fn step_all(core: &mut Coordinator, events: &[Event<'_>]) {
    for event in events {
        let stepped = core.step(Tick::ZERO, event, &mut Effects::default());
        assert_eq!(stepped, Ok(()), "{event:?}");
    }
}

/// In a word each: what happens, and to whom.
fn words(catalog: &Catalog, events: &[Event<'_>]) -> Vec<String> {
    let name = |model: &ModelIx| catalog.spec(*model).unwrap().id.clone();
    let words = events.iter().map(|event| match event {
        Event::ModelListed { spec } => format!("listed {}", spec.id),
        Event::ModelPriced { model, .. } => format!("priced {}", name(model)),
        Event::ModelRetired { model } => format!("retired {}", name(model)),
        other => panic!("a catalogue never says {other:?}"),
    });
    words.collect()
}

#[test]
fn what_goes_is_retired_before_what_comes_is_listed_and_prices_are_last() {
    let catalog = Catalog::new(specs(&["cheap", "gone", "long", "same"])).unwrap();
    let mut wanted = specs(&["same", "new", "long", "cheap"]);
    wanted[2].context_tokens = 8_192;
    wanted[2].price = dear();
    wanted[3].price = dear();
    let events = catalog.changes_to(wanted).unwrap();
    let expected = [
        "retired gone",
        "retired long",
        "listed long",
        "listed new",
        "priced cheap",
    ];
    assert_eq!(words(&catalog, &events), expected);
}

#[test]
fn the_same_again_changes_nothing() {
    let catalog = Catalog::new(specs(&["a", "b"])).unwrap();
    assert_eq!(catalog.changes_to(specs(&["b", "a"])), Ok(vec![]));
}

#[test]
fn what_is_no_catalogue_changes_nothing_and_says_why() {
    let mut catalog = Catalog::new(specs(&["a"])).unwrap();
    assert_eq!(catalog.changes_to(vec![]), Err(CatalogError::Empty));
    let twice = catalog.changes_to(specs(&["b", "b"]));
    assert_eq!(twice, Err(CatalogError::Duplicate("b".to_owned())));
    // Models that were sold before keep their places, so that they count.
    for number in 1..Catalog::MODELS_MAX {
        let model = catalog.list(spec(&format!("old-{number}"))).unwrap();
        catalog.retire(model);
    }
    let full = catalog.changes_to(specs(&["a", "b"]));
    let too_many = Catalog::MODELS_MAX + 1;
    assert_eq!(full, Err(CatalogError::TooMany(too_many)));
    assert!(catalog.changes_to(specs(&["a", "old-7"])).is_ok());
}

/// Some of a few models, each in one of a few forms.
fn wares() -> impl Strategy<Value = Vec<ModelSpec>> {
    let forms = prop::collection::vec(0u8..6, 6);
    let wares = forms.prop_map(|forms| {
        let mut wares = Vec::new();
        for (place, form) in forms.into_iter().enumerate() {
            let mut spec = spec(&format!("model-{place}"));
            match form {
                0 | 1 => continue,
                2 => spec.price = dear(),
                3 => spec.context_tokens = 8_192,
                4 => spec.weights_bytes = 9,
                _ => {}
            }
            wares.push(spec);
        }
        wares
    });
    wares.prop_filter("no catalogue is empty", |wares| !wares.is_empty())
}

proptest! {
    #[test]
    fn after_the_changes_exactly_the_new_is_sold_and_no_place_has_moved(
        first in wares(),
        later in prop::collection::vec(wares(), 1..6),
    ) {
        let mut core = coordinator(Catalog::new(first).unwrap());
        for wanted in later {
            let before = core.catalog().clone();
            let events = before.changes_to(wanted.clone()).unwrap();
            step_all(&mut core, &events);
            let after = core.catalog();
            let sold: Vec<ModelSpec> = after.iter().map(|(_, spec)| spec.clone()).collect();
            prop_assert_eq!(sold, wanted.clone(), "both by id");
            for place in 0..before.count() {
                let model = ModelIx(u16::try_from(place).unwrap());
                prop_assert_eq!(&before.spec(model).unwrap().id, &after.spec(model).unwrap().id);
            }
            prop_assert_eq!(after.changes_to(wanted), Ok(vec![]));
            prop_assert_eq!(after.epoch() > before.epoch(), !events.is_empty());
        }
    }
}
