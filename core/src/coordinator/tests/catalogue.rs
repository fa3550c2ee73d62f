//! Models come, change their price and go while requests run.

use super::*;
use crate::config::Limits;

fn listed(id: &str) -> Event<'static> {
    let spec = ModelSpec {
        id: id.into(),
        ..config().catalog.spec(MODEL).unwrap().clone()
    };
    Event::ModelListed {
        spec: Cow::Owned(spec),
    }
}

fn dear() -> Price {
    Price {
        input_per_mtok: MicroUsd(10_000_000_000),
        output_per_mtok: MicroUsd(10_000_000_000),
    }
}

#[test]
fn a_model_that_is_listed_is_sold_from_then_on_and_keeps_its_place_for_ever() {
    let mut world = World::new();
    let epoch = world.core.catalog().epoch();
    world.step(listed("0-first-by-name"));
    let model = world.core.catalog().find("0-first-by-name").unwrap();
    assert_eq!(model, ModelIx(2), "others keep their places");
    assert!(world.core.catalog().epoch() > epoch);
    world.provider(1, 11, 4);
    world.step(Event::ProviderRestocked {
        conn: ConnId(1),
        models: Cow::Owned(vec![MODEL, model]),
    });
    let asked = Ask {
        model,
        ..ask(1, ACCOUNT)
    };
    assert!(dispatched(&world.step(Event::Arrived(asked))).is_some());
    world.step(Event::ModelRetired { model });
    assert_eq!(world.core.catalog().find("0-first-by-name"), None);
    world.step(listed("0-first-by-name"));
    assert_eq!(world.core.catalog().find("0-first-by-name"), Some(model));
}

#[test]
fn a_retired_model_is_refused_also_to_those_who_wait_and_finishes_what_runs() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    world.ask(2);
    let effects = world.step(Event::ModelRetired { model: MODEL });
    assert_eq!(refused(&effects), Some(Denial::UnknownModel));
    assert_eq!(refused(&world.ask(3)), Some(Denial::UnknownModel));
    world.step(Event::AttemptStarted { conn, attempt });
    world.step(completed((attempt, conn), 10));
    assert!(matches!(world.persist()[..], [Effect::Finish { .. }]));
}

#[test]
fn a_request_costs_what_it_was_promised_at_admission() {
    let mut world = World::new();
    world.provider(1, 11, 4);
    let (attempt, conn) = dispatched(&world.ask(1)).unwrap();
    let model = MODEL;
    let price = dear();
    world.step(Event::ModelPriced { model, price });
    assert_eq!(refused(&world.ask(2)), Some(Denial::Broke), "the new price");
    world.step(Event::AttemptStarted { conn, attempt });
    world.step(completed((attempt, conn), 10));
    world.persist();
    let receipt = world.out.receipts[0];
    assert_eq!(receipt.price, Price::DEFAULT);
    assert_eq!(receipt.charged, Price::DEFAULT.cost(100, 10));
}

#[test]
fn limits_change_while_requests_wait() {
    let mut world = World::new();
    world.provider(1, 11, 1);
    for id in 1..=5 {
        world.ask(id);
    }
    let limits = Limits {
        queue_depth_max: 2,
        ..config().limits
    };
    let effects = world.step(Event::LimitsChanged {
        limits: Cow::Borrowed(&limits),
    });
    let shed = effects.iter().filter_map(|effect| match effect {
        Effect::Refuse { request, .. } => Some(request.0),
        _ => None,
    });
    assert_eq!(shed.collect::<Vec<_>>(), [5, 4], "the newest first");
    let none = Limits {
        requests_max: 1,
        ..limits
    };
    let event = Event::LimitsChanged {
        limits: Cow::Borrowed(&none),
    };
    let step = world.core.step(world.now, &event, &mut world.out);
    assert_eq!(step, Err(Misuse::LimitBelowUse));
}
