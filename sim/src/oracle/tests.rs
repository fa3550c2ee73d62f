//! The oracles themselves, on hand-made histories.

use cereus_core::effect::{Cause, LedgerAccount, Postings, Transfer, TransferKind};
use cereus_core::ids::{AccountId, Epoch, RequestId};
use cereus_core::money::MicroUsd;

use super::*;

const PAYER: AccountId = AccountId(1);
const PAYEE: AccountId = AccountId(2);
const REQUEST: RequestId = RequestId(7);

fn transfer(seq: u64, kind: TransferKind, postings: &[(LedgerAccount, i64)]) -> Transfer {
    let postings: Vec<_> = postings
        .iter()
        .map(|&(to, amount)| (to, MicroUsd(amount)))
        .collect();
    Transfer {
        seq,
        kind,
        cause: match kind {
            TransferKind::Deposit => Cause::Outside,
            TransferKind::Hold | TransferKind::Settle | TransferKind::Void => {
                Cause::Request(REQUEST)
            }
        },
        reference: None,
        postings: Postings::listed(&postings),
    }
}

fn deposit(seq: u64, amount: i64) -> Transfer {
    let postings = [
        (LedgerAccount::Clearing, -amount),
        (LedgerAccount::Consumer(PAYER), amount),
    ];
    transfer(seq, TransferKind::Deposit, &postings)
}

fn hold(seq: u64, amount: i64) -> Transfer {
    let postings = [
        (LedgerAccount::Consumer(PAYER), -amount),
        (LedgerAccount::Held(PAYER), amount),
    ];
    transfer(seq, TransferKind::Hold, &postings)
}

fn settle(seq: u64, held: i64, charged: i64) -> Transfer {
    let postings = [
        (LedgerAccount::Held(PAYER), -held),
        (LedgerAccount::Consumer(PAYER), held - charged),
        (LedgerAccount::Provider(PAYEE), charged),
    ];
    transfer(seq, TransferKind::Settle, &postings)
}

fn law(result: Result<(), Violation>) -> &'static str {
    result.expect_err("a law is broken").law
}

#[test]
fn a_hold_settles_once() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 100)).unwrap();
    money.post(&hold(2, 60)).unwrap();
    money.post(&settle(3, 60, 40)).unwrap();
    assert_eq!(law(money.post(&settle(4, 60, 40))), "INV-04");
}

#[test]
fn a_charge_stays_within_its_hold() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 100)).unwrap();
    money.post(&hold(2, 60)).unwrap();
    assert_eq!(law(money.post(&settle(3, 60, 61))), "INV-04");
}

#[test]
fn nobody_holds_what_he_has_not() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 50)).unwrap();
    assert_eq!(law(money.post(&hold(2, 60))), "INV-04");
}

#[test]
fn a_gap_in_the_numbers_is_seen() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 50)).unwrap();
    assert_eq!(law(money.post(&deposit(3, 50))), "INV-03");
}

#[test]
fn a_durable_charge_without_a_receipt_is_seen() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 100)).unwrap();
    money.post(&hold(2, 60)).unwrap();
    money.post(&settle(3, 60, 40)).unwrap();
    money.require_receipts().unwrap();
    money.persist(3).unwrap();
    assert_eq!(law(money.require_receipts()), "INV-29");
}

#[test]
fn a_crash_forgets_what_is_not_in_the_log() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 100)).unwrap();
    money.post(&hold(2, 60)).unwrap();
    money.post(&settle(3, 60, 40)).unwrap();
    money.persist(2).unwrap();
    assert!(money.is_hold_durable(REQUEST));
    assert_eq!(money.durable_charge(REQUEST), None);
    let log = [deposit(1, 100), hold(2, 60)];
    money.crash(Epoch(0), log.iter()).unwrap();
    assert!(money.is_hold_durable(REQUEST));
    assert_eq!(money.durable_charge(REQUEST), None);
    assert_eq!(law(money.quiescent()), "INV-04");
    // The next life numbers from 1 and settles nothing: it voids.
    let postings = [
        (LedgerAccount::Held(PAYER), -60),
        (LedgerAccount::Consumer(PAYER), 60),
    ];
    money
        .post(&transfer(1, TransferKind::Void, &postings))
        .unwrap();
    money.quiescent().unwrap();
}

#[test]
fn what_is_in_the_log_counts_though_nobody_heard_of_it() {
    let mut money = MoneyModel::new();
    money.post(&deposit(1, 100)).unwrap();
    money.post(&hold(2, 60)).unwrap();
    money.post(&settle(3, 60, 40)).unwrap();
    money.persist(2).unwrap();
    let log = [deposit(1, 100), hold(2, 60), settle(3, 60, 40)];
    money.crash(Epoch(0), log.iter()).unwrap();
    assert_eq!(money.durable_charge(REQUEST), Some(40));
    money.quiescent().unwrap();
}
