//! What has gone wrong in networks like this one, each as a law that keeps it from going wrong here.
//! `docs/pitfalls.md` says which test is about what, and where its guard stands.

mod choice;
mod lives;
mod loads;
mod promises;
mod refusals;
mod reports;
mod resort;
mod speed;
mod waiting;

use super::*;
use crate::time::Span;

const OTHER: ModelIx = ModelIx(1);

fn conn_of(effects: &[Effect]) -> Option<u64> {
    dispatched(effects).map(|(_, conn)| conn.0)
}

/// A machine that has passed its challenge and served before, and has reported nothing yet.
fn join(world: &mut World, conn: u64, spec: MachineSpec, models: &[ModelIx]) {
    join_as(world, conn, spec, models, OWNER, Trust::SelfSigned);
}

fn join_as(
    world: &mut World,
    conn: u64,
    spec: MachineSpec,
    models: &[ModelIx],
    owner: AccountId,
    trust: Trust,
) {
    let id = ConnId(conn);
    world.step(Event::ProviderJoined {
        conn: id,
        machine: MachineId(u128::from(conn)),
        owner,
        trust,
        spec,
        models: Cow::Borrowed(models),
    });
    world.step(Event::ProviderVerified { conn: id });
    let at = world.core.known(id).expect("it has just joined");
    world.core.fleet.goes_on(at);
    world.core.fleet.refresh(at, &world.core.config);
}

/// An unnumbered report, so that it counts whenever it comes.
fn tell(world: &mut World, conn: u64, slots: &[SlotReport]) -> Vec<Effect> {
    let report = MachineReport {
        has_capacity: true,
        free_for_load_bytes: world.free_for_load_bytes,
        ..MachineReport::default()
    };
    tell_all(world, conn, report, slots)
}

fn tell_all(
    world: &mut World,
    conn: u64,
    report: MachineReport,
    slots: &[SlotReport],
) -> Vec<Effect> {
    world.step(Event::ProviderReported {
        conn: ConnId(conn),
        report,
        slots: Cow::Borrowed(slots),
    })
}

fn fail(
    world: &mut World,
    (attempt, conn): (AttemptKey, ConnId),
    fault: AttemptFault,
) -> Vec<Effect> {
    world.step(Event::AttemptFailed {
        conn,
        attempt,
        fault,
    })
}

/// An answer of so many tokens, at once.
fn serve(world: &mut World, sent: (AttemptKey, ConnId), tokens: u32) {
    let (attempt, conn) = sent;
    world.step(Event::AttemptStarted { conn, attempt });
    world.step(completed(sent, tokens));
    world.persist();
}

fn leave(world: &mut World, id: u128) -> Vec<Effect> {
    world.step(Event::ConsumerLeft {
        request: RequestId(id),
    })
}

fn pass(world: &mut World, span: Span) {
    let until = world.now + span;
    while let Some((at, _)) = world.core.next_wake().filter(|(at, _)| *at <= until) {
        world.now = world.now.max(at);
        world.step(Event::Woke);
    }
    world.now = world.now.max(until);
}

/// Requests that are sent out before one waits; they all leave again.
fn taken_at_once(world: &mut World, ids: u128, model: ModelIx) -> usize {
    let mut count = 0;
    loop {
        let id = ids + count as u128;
        let asked = Ask {
            model,
            ..ask(id, ACCOUNT)
        };
        let is_sent = conn_of(&world.step(Event::Arrived(asked))).is_some();
        if !is_sent {
            break;
        }
        count += 1;
    }
    for id in 0..=count as u128 {
        leave(world, ids + id);
    }
    count
}

/// Room for any prompt, and money for it.
fn spacious(mut change: impl FnMut(&mut Limits)) -> World {
    let mut config = config();
    let mut catalog: Vec<ModelSpec> = Vec::new();
    for (_, spec) in config.catalog.iter() {
        catalog.push(ModelSpec {
            context_tokens: 1_000_000,
            ..spec.clone()
        });
    }
    config.catalog = Catalog::new(catalog).expect("as many as before");
    change(&mut config.limits);
    let mut world = World::of(config);
    world.step(Event::AccountOpened {
        account: RICH,
        balance: MicroUsd(1_000_000_000),
    });
    world
}

const RICH: AccountId = AccountId(50);

fn long_ask(id: u128, prompt_tokens: u32, output_tokens_max: u32) -> Ask {
    Ask {
        prompt_tokens,
        prompt_tokens_bound: prompt_tokens,
        output_tokens_max,
        ..ask(id, RICH)
    }
}
