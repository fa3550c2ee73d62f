//! Money has bounds where it enters, and an account may owe after a reversal only.

use super::*;
use crate::money::{BALANCE_MAX, BOOKS_MAX, DEPOSIT_MAX};

#[test]
fn money_beyond_the_bounds_is_refused_and_changes_nothing() {
    let mut world = World::new();
    let before = world.core.digest();
    let mut out = Effects::default();
    for amount in [
        MicroUsd::ZERO,
        MicroUsd(DEPOSIT_MAX.0 + 1),
        MicroUsd(-DEPOSIT_MAX.0 - 1),
        MicroUsd(i64::MAX),
        MicroUsd(i64::MIN),
    ] {
        let event = Event::AccountCredited {
            account: ACCOUNT,
            amount,
            reference: None,
        };
        let refused = world.core.step(world.now, &event, &mut out);
        assert_eq!(refused, Err(Misuse::MoneyOutOfBounds), "{amount:?}");
        let event = Event::HoldRecovered {
            account: ACCOUNT,
            request: RequestId(9),
            amount: MicroUsd(amount.0.saturating_neg().saturating_sub(BALANCE_MAX.0)),
        };
        let refused = world.core.step(world.now, &event, &mut out);
        assert_eq!(refused, Err(Misuse::MoneyOutOfBounds), "{amount:?}");
    }
    assert_eq!(world.core.digest(), before);
    assert!(out.list.is_empty());
}

#[test]
fn no_number_of_largest_deposits_lifts_an_account_over_its_bound() {
    let mut world = World::new();
    let event = Event::AccountCredited {
        account: OWNER,
        amount: DEPOSIT_MAX,
        reference: None,
    };
    for _ in 0..BALANCE_MAX.0 / DEPOSIT_MAX.0 {
        world.step(event.clone());
    }
    let refused = world.core.step(world.now, &event, &mut Effects::default());
    assert_eq!(refused, Err(Misuse::MoneyOutOfBounds));
    let balance = world.core.books().account(OWNER).unwrap().available;
    assert_eq!(balance, BALANCE_MAX);
}

#[test]
fn an_account_with_an_impossible_balance_is_not_opened_and_the_operator_hears_of_it() {
    for balance in [BALANCE_MAX.0 + 1, i64::MAX, i64::MIN] {
        let mut world = World::new();
        let effects = world.step(Event::AccountOpened {
            account: AccountId(7),
            balance: MicroUsd(balance),
        });
        let alarm = Effect::Alarm {
            alarm: Alarm::BalanceOutOfBounds,
            count: 1,
        };
        assert_eq!(effects, [alarm]);
        assert!(!world.core.books().is_open(AccountId(7)));
    }
}

#[test]
fn the_books_as_a_whole_have_a_bound_too() {
    let mut world = World::new();
    let room = BOOKS_MAX.0 / BALANCE_MAX.0;
    let open = |id| Event::AccountOpened {
        account: AccountId(id),
        balance: BALANCE_MAX,
    };
    for id in 0..room.unsigned_abs() {
        assert_eq!(world.step(open(100 + id)), []);
    }
    assert_eq!(world.step(open(99)).len(), 1, "one alarm");
    assert!(!world.core.books().is_open(AccountId(99)));
}

#[test]
fn a_reversed_deposit_is_taken_back_though_it_was_spent() {
    let mut world = World::new();
    let effects = world.step(Event::AccountCredited {
        account: ACCOUNT,
        amount: MicroUsd(-1_500_000),
        reference: None,
    });
    assert!(matches!(effects[..], [Effect::Post { .. }]));
    let balance = world.core.books().account(ACCOUNT).unwrap().available;
    assert_eq!(balance, MicroUsd(-500_000));
    world.provider(1, 1, 4);
    let effects = world.step(Event::Arrived(ask(1, ACCOUNT)));
    let [Effect::Refuse { denial, .. }] = effects[..] else {
        panic!("who owes buys nothing: {effects:?}");
    };
    assert_eq!(denial.status(), 402);
}
