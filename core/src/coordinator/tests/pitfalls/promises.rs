//! Every way out: what it is called, and that it costs nothing.

use super::*;

/// How a request ends that nobody answers.
struct Scene {
    name: &'static str,
    /// HTTP's word for it, and whether it says when to come back.
    status: u16,
    says_when: bool,
    play: fn(&mut World) -> Vec<Effect>,
}

fn large(id: u128, output_tokens_max: u32) -> Event<'static> {
    Event::Arrived(Ask {
        output_tokens_max,
        ..ask(id, ACCOUNT)
    })
}

/// The last effects of as many wakes as it takes until something is refused.
fn until_refused(world: &mut World) -> Vec<Effect> {
    loop {
        let effects = world.wake();
        if refused(&effects).is_some() {
            return effects;
        }
    }
}

const SCENES: [Scene; 16] = [
    Scene {
        name: "nobody is here",
        status: 429,
        says_when: true,
        play: |world| world.ask(1),
    },
    Scene {
        name: "everybody is closed",
        status: 429,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 4);
            world.step(Event::ProviderUnverified { conn: ConnId(1) });
            world.ask(1)
        },
    },
    Scene {
        name: "more than the context",
        status: 400,
        says_when: false,
        play: |world| {
            world.provider(1, 11, 4);
            world.step(large(1, 9_000))
        },
    },
    Scene {
        name: "more than any machine holds",
        status: 429,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 4);
            tell(world, 1, &[slot(4, 1_000)]);
            world.step(large(1, 3_000))
        },
    },
    Scene {
        name: "what no machine has",
        status: 429,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 4);
            world.step(Event::Arrived(Ask {
                trust_min: Trust::Hardware,
                ..ask(1, ACCOUNT)
            }))
        },
    },
    Scene {
        name: "no machine of one's own",
        status: 429,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 4);
            world.step(Event::Arrived(Ask {
                machines: crate::event::Machines::Own,
                ..ask(1, ACCOUNT)
            }))
        },
    },
    Scene {
        name: "a full queue",
        status: 429,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 1);
            (2..7).for_each(|id| drop(world.ask(id)));
            let effects = world.ask(1);
            (2..7).for_each(|id| drop(leave(world, id)));
            effects
        },
    },
    Scene {
        name: "waited too long",
        status: 429,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 1);
            tell(
                world,
                1,
                &[SlotReport {
                    running: 1,
                    ..slot(1, 0)
                }],
            );
            world.ask(1);
            until_refused(world)
        },
    },
    Scene {
        name: "every machine refused",
        status: 429,
        says_when: true,
        play: |world| {
            (1..=4).for_each(|conn| world.provider(conn, u128::from(conn), 4));
            let mut effects = world.ask(1);
            while let Some(sent) = dispatched(&effects) {
                effects = fail(world, sent, AttemptFault::Busy);
            }
            match refused(&effects) {
                Some(_) => effects,
                None => until_refused(world),
            }
        },
    },
    Scene {
        name: "every machine failed",
        status: 502,
        says_when: false,
        play: |world| {
            (1..=3).for_each(|conn| world.provider(conn, u128::from(conn), 4));
            let mut effects = world.ask(1);
            while let Some(sent) = dispatched(&effects) {
                effects = fail(world, sent, AttemptFault::Internal);
            }
            effects
        },
    },
    Scene {
        name: "nobody answered in time",
        status: 504,
        says_when: false,
        play: |world| {
            world.provider(1, 11, 4);
            let hurried = Ask {
                content_within: Some(Span::secs(2)),
                ..ask(1, ACCOUNT)
            };
            world.step(Event::Arrived(hurried));
            until_refused(world)
        },
    },
    Scene {
        name: "the machine says that the request is wrong",
        status: 422,
        says_when: false,
        play: |world| {
            world.provider(1, 11, 4);
            let sent = dispatched(&world.ask(1)).unwrap();
            fail(world, sent, AttemptFault::Client(422))
        },
    },
    Scene {
        name: "the consumer left the queue",
        status: 499,
        says_when: false,
        play: |world| {
            world.provider(1, 11, 1);
            world.ask(2);
            world.ask(1);
            let effects = leave(world, 1);
            leave(world, 2);
            effects
        },
    },
    Scene {
        name: "the consumer left before content",
        status: 499,
        says_when: false,
        play: |world| {
            world.provider(1, 11, 1);
            world.ask(1);
            leave(world, 1)
        },
    },
    Scene {
        name: "no longer sold",
        status: 404,
        says_when: false,
        play: |world| {
            world.provider(1, 11, 1);
            world.ask(2);
            world.ask(1);
            let effects = world.step(Event::ModelRetired { model: MODEL });
            leave(world, 2);
            effects
        },
    },
    Scene {
        name: "a restart",
        status: 503,
        says_when: true,
        play: |world| {
            world.provider(1, 11, 1);
            world.ask(2);
            world.ask(1);
            let effects = world.step(Event::DrainBegan);
            leave(world, 2);
            effects
        },
    },
];

/// Want of room is 429 with a time to come back, never a 5xx, which those who resell the API count as a
/// failure; what is said of the request itself says no time.
#[test]
fn each_way_out_has_its_status() {
    for scene in SCENES {
        let mut world = World::new();
        let effects = (scene.play)(&mut world);
        let denial = refused(&effects).expect(scene.name);
        assert_eq!(denial.status(), scene.status, "{}", scene.name);
        let says_when = denial.retry_after_s().is_some();
        assert_eq!(says_when, scene.says_when, "{}", scene.name);
    }
}

#[test]
fn whoever_gets_no_answer_has_all_of_his_money() {
    for scene in SCENES {
        let mut world = World::new();
        (scene.play)(&mut world);
        world.persist();
        let account = world.core.books().account(ACCOUNT).unwrap();
        assert_eq!(account.available, MicroUsd(1_000_000), "{}", scene.name);
        assert_eq!(world.core.gauges().held, 0, "{}", scene.name);
        world.core.invariant_quiescent();
    }
}
