use std::sync::Arc;

use cereus_core::effect::{
    Cause, Item, LedgerAccount, Line, Lines, Postings, Receipt, Transfer, TransferKind,
};
use cereus_core::event::Usage;
use cereus_core::ids::{AccountId, MachineId, ModelIx, RequestId};
use cereus_core::money::{DEPOSIT_MAX, MicroUsd, Price};
use cereus_core::time::Tick;
use secrecy::ExposeSecret;

use super::super::{
    AuditExtent, DepositId, DepositState, Disagreement, Entry, FinishedRequest, KeyHash,
    RequestState, Store, StoreError,
};
use super::{FILE_NAME, SqliteStore};
use crate::ending::Outcome;
use crate::receipts::{self, Sealing};

fn transfer(kind: TransferKind, request: u128, legs: &[(LedgerAccount, i64)]) -> Transfer {
    let postings: Vec<_> = legs
        .iter()
        .map(|&(to, amount)| (to, MicroUsd(amount)))
        .collect();
    Transfer {
        seq: 1,
        kind,
        cause: match kind {
            TransferKind::Deposit => Cause::Outside,
            TransferKind::Hold | TransferKind::Settle | TransferKind::Void => {
                Cause::Request(RequestId(request))
            }
        },
        reference: None,
        postings: Postings::listed(&postings),
    }
}

fn entry(kind: TransferKind, request: u128, legs: &[(LedgerAccount, i64)]) -> Entry {
    Entry::Transfer(transfer(kind, request, legs))
}

fn hold(account: AccountId, request: u128, amount: i64) -> Entry {
    let legs = [
        (LedgerAccount::Consumer(account), -amount),
        (LedgerAccount::Held(account), amount),
    ];
    entry(TransferKind::Hold, request, &legs)
}

fn void(account: AccountId, request: u128, amount: i64) -> Entry {
    let legs = [
        (LedgerAccount::Consumer(account), amount),
        (LedgerAccount::Held(account), -amount),
    ];
    entry(TransferKind::Void, request, &legs)
}

fn credited(account: AccountId, amount: i64) -> Transfer {
    let legs = [
        (LedgerAccount::Clearing, -amount),
        (LedgerAccount::Consumer(account), amount),
    ];
    transfer(TransferKind::Deposit, 0, &legs)
}

fn deposit(account: AccountId, amount: i64) -> Entry {
    Entry::Transfer(credited(account, amount))
}

fn settle(account: AccountId, request: u128, held: i64, charged: i64) -> Entry {
    let legs = [
        (LedgerAccount::Held(account), -held),
        (LedgerAccount::Consumer(account), held - charged),
        (LedgerAccount::Platform, charged),
    ];
    entry(TransferKind::Settle, request, &legs)
}

/// The transfer that applies a deposit of the command line.
fn applied(account: AccountId, amount: i64, id: DepositId) -> Entry {
    Entry::Transfer(Transfer {
        reference: Some(id.number()),
        ..credited(account, amount)
    })
}

/// What an older build, or somebody's own SQL, let in.
fn poison(store: &SqliteStore, account: AccountId) -> DepositId {
    store
        .db
        .execute(
            "INSERT INTO deposits (account, amount, created_at) VALUES (?, ?, 0)",
            [super::row_id(account), i64::MAX],
        )
        .unwrap();
    DepositId(store.db.last_insert_rowid())
}

pub(crate) fn finished(account: AccountId, request: u128) -> FinishedRequest {
    let receipt = Receipt {
        request: RequestId(request),
        account,
        machine: MachineId(5),
        model: ModelIx(0),
        attempts: 1,
        usage: Usage {
            prompt_tokens: 20,
            completion_tokens: 3,
        },
        price: Price::DEFAULT,
        held: MicroUsd(300),
        charged: MicroUsd(120),
        lines: Lines::of(&[Line {
            item: Item::Completion,
            tokens: 3,
            amount: MicroUsd(120),
        }]),
        payout: MicroUsd(108),
        balance_before: MicroUsd(1_000),
        balance_after: MicroUsd(880),
        arrived_at: Tick(1),
        dispatched_at: Tick(2),
        accepted_at: Tick(3),
        started_at: Tick(4),
        completed_at: Tick(5),
    };
    FinishedRequest::new(
        receipt,
        "tiny".to_owned(),
        Sealing::default(),
        Outcome::Finished,
    )
}

fn audited(store: &mut SqliteStore) -> u64 {
    store.audit(AuditExtent::SinceLast).unwrap().transfer_count
}

#[test]
fn balances_survive_a_restart_and_agree_with_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store
        .commit(&[
            deposit(account, 1_000),
            hold(account, 7, 300),
            hold(account, 8, 200),
        ])
        .unwrap();
    store.commit(&[void(account, 8, 200)]).unwrap();
    drop(store);

    let mut store = SqliteStore::open(folder.path()).unwrap();
    let audit = store.audit(AuditExtent::SinceLast).unwrap();
    assert_eq!(audit.transfer_count, 4);
    assert_eq!(audit.open_hold_count, 1);
    assert_eq!(audit.held, MicroUsd(300));
    assert_eq!(
        store.everything().unwrap().accounts,
        [(account, MicroUsd(700))]
    );
    let open = store.open_holds().unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(
        (open[0].request, open[0].amount),
        (RequestId(7), MicroUsd(300))
    );
}

#[test]
fn a_request_ends_at_most_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store
        .commit(&[deposit(account, 1_000), hold(account, 7, 300)])
        .unwrap();
    store.commit(&[void(account, 7, 300)]).unwrap();

    assert!(store.commit(&[void(account, 7, 300)]).is_err());
    assert!(store.commit(&[settle(account, 7, 300, 300)]).is_err());
    assert!(store.commit(&[hold(account, 7, 300)]).is_err());
    assert_eq!(audited(&mut store), 3);
}

#[test]
fn a_transfer_may_have_more_postings_than_two_parties_and_a_platform() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let ada = store.ensure_account("ada").unwrap();
    let [machine, referrer] = ["machine", "referrer"].map(|it| store.ensure_account(it).unwrap());
    let legs = [
        (LedgerAccount::Held(ada), -300),
        (LedgerAccount::Consumer(ada), 200),
        (LedgerAccount::Platform, 10),
        (LedgerAccount::Provider(referrer), 5),
        (LedgerAccount::Provider(machine), 85),
    ];
    let settle = entry(TransferKind::Settle, 7, &legs);
    let entries = [deposit(ada, 1_000), hold(ada, 7, 300), settle];
    store.commit(&entries).unwrap();
    let audit = store.audit(AuditExtent::Everything).unwrap();
    assert_eq!(audit.platform, MicroUsd(10));
    let accounts = store.accounts().unwrap();
    let earned: Vec<i64> = accounts.iter().map(|row| row.earned.0).collect();
    assert_eq!(earned, [0, 85, 5]);
    assert_eq!(accounts[0].balance, MicroUsd(900));
}

#[test]
fn a_batch_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    assert!(
        store
            .commit(&[
                deposit(account, 5),
                hold(account, 7, 3),
                hold(account, 7, 3)
            ])
            .is_err()
    );
    assert_eq!(audited(&mut store), 0);
}

#[test]
fn a_deposit_is_applied_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store.deposit(account, MicroUsd(40)).unwrap();
    assert!(store.deposit(account, MicroUsd(0)).is_err());
    let waiting = store.everything().unwrap().deposits;
    assert_eq!(waiting.len(), 1);
    let applied = applied(account, 40, waiting[0].id);
    store.commit(std::slice::from_ref(&applied)).unwrap();
    assert_eq!(store.everything().unwrap().deposits, []);
    assert!(store.commit(&[applied]).is_err());
    assert_eq!(audited(&mut store), 1);
}

#[test]
fn a_credit_that_no_account_may_hold_is_refused_where_it_is_entered() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    for amount in [i64::MAX, DEPOSIT_MAX.0 + 1, 0, -1, i64::MIN] {
        assert!(
            store.deposit(account, MicroUsd(amount)).is_err(),
            "{amount}"
        );
    }
    store.deposit(account, DEPOSIT_MAX).unwrap();
}

#[test]
fn a_credit_that_the_books_did_not_take_is_set_aside_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    let (poison, good) = (
        poison(&store, account),
        store.deposit(account, MicroUsd(7)).unwrap(),
    );
    store
        .commit(&[Entry::Refused {
            deposit: poison,
            reason: "too much".to_owned(),
        }])
        .unwrap();
    let waiting = store.everything().unwrap().deposits;
    assert_eq!(waiting.iter().map(|it| it.id).collect::<Vec<_>>(), [good]);
    let rows = store.deposits(Some(account), 10).unwrap();
    assert_eq!(rows[1].state, DepositState::Refused("too much".to_owned()));
    let error = store.reverse_deposit(poison).unwrap_err().to_string();
    assert!(error.contains("never counted"), "{error}");
    assert!(store.commit(&[applied(account, i64::MAX, poison)]).is_err());
}

#[test]
fn a_credit_is_reversed_once_by_a_counter_entry() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    let made = store.deposit(account, MicroUsd(40)).unwrap();
    store.commit(&[applied(account, 40, made)]).unwrap();
    let after = store.everything().unwrap().up_to;

    let reversal = store.reverse_deposit(made).unwrap();
    assert_eq!(
        (reversal.amount, reversal.reverses),
        (MicroUsd(-40), Some(made))
    );
    let told = store.changes(after).unwrap();
    assert_eq!(
        (told.deposits[0].id, told.deposits[0].amount),
        (reversal.id, MicroUsd(-40))
    );
    store.commit(&[applied(account, -40, reversal.id)]).unwrap();
    assert_eq!(store.accounts().unwrap()[0].balance, MicroUsd::ZERO);

    for id in [made, reversal.id, DepositId(99)] {
        assert!(store.reverse_deposit(id).is_err(), "{id:?}");
    }
    assert_eq!(
        store.deposits(None, 10).unwrap()[1].reversed_by,
        Some(reversal.id)
    );
    assert_eq!(audited(&mut store), 2);
}

#[test]
fn what_changed_is_told_once_and_in_order_whoever_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    store.ensure_account("before").unwrap();
    let everything = store.everything().unwrap();
    assert_eq!(everything.accounts.len(), 1);
    assert!(store.changes(everything.up_to).unwrap().is_empty());

    let mut other = SqliteStore::open(folder.path()).unwrap();
    let key = other.create_key("ada").unwrap();
    let ada = other.account("ada").unwrap().unwrap();
    other.deposit(ada, MicroUsd(5)).unwrap();
    other.revoke_key(&key.id).unwrap();
    other
        .db
        .execute(
            "INSERT INTO accounts (name, created_at) VALUES ('by hand', 0)",
            [],
        )
        .unwrap();
    let told = store.changes(everything.up_to).unwrap();
    assert_eq!(
        told.accounts.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        [2, 3]
    );
    assert_eq!(told.deposits.len(), 1);
    assert!(told.keys.last().unwrap().is_revoked);
    assert!(store.changes(told.up_to).unwrap().is_empty());
    // A start trims the list and goes on counting.
    assert_eq!(store.everything().unwrap().up_to, told.up_to);
}

#[test]
fn a_receipt_outlives_the_process_and_shows_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    let finished = finished(account, 7);
    let shown = receipts::as_json(&finished);
    store
        .commit(&[
            deposit(account, 1_000),
            hold(account, 7, 300),
            settle(account, 7, 300, 120),
            Entry::Receipt(Arc::new(finished)),
            hold(account, 8, 50),
        ])
        .unwrap();
    drop(store);

    let store = SqliteStore::open(folder.path()).unwrap();
    let receipt = store.receipt(RequestId(7)).unwrap().unwrap();
    assert_eq!((receipt.account, receipt.body), (account, shown));
    assert_eq!(store.receipt(RequestId(8)).unwrap(), None);
    let requests = store.requests(Some(account), 10).unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        (requests[0].state, requests[0].held),
        (RequestState::Running, MicroUsd(50))
    );
    assert_eq!(requests[1].charged, MicroUsd(120));
    assert_eq!(requests[1].completion_tokens, Some(3));
    assert_eq!(store.requests(Some(AccountId(99)), 10).unwrap(), []);
}

#[test]
fn a_start_audits_what_was_written_since_the_last_and_a_whole_audit_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store
        .commit(&[deposit(account, 1_000), hold(account, 7, 300)])
        .unwrap();
    assert_eq!(audited(&mut store), 2);
    assert_eq!(audited(&mut store), 0, "nothing was written since");
    store.commit(&[void(account, 7, 300)]).unwrap();
    assert_eq!(audited(&mut store), 1);
    let whole = store.audit(AuditExtent::Everything).unwrap();
    assert_eq!(whole.transfer_count, 3);
    assert_eq!(audited(&mut store), 0);

    // A page that rotted since it was proved is found by the whole audit.
    store
        .db
        .execute(
            "UPDATE postings SET amount = amount + 1 WHERE transfer = 1",
            [],
        )
        .unwrap();
    assert_eq!(audited(&mut store), 0);
    assert!(matches!(
        store.audit(AuditExtent::Everything),
        Err(StoreError::Audit(
            Disagreement::Unbalanced { transfer: 1 } | Disagreement::Balance { .. }
        ))
    ));
}

#[test]
fn a_database_of_the_first_version_is_taken_over_with_its_money() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE_NAME);
    let old = rusqlite::Connection::open(&file).unwrap();
    old.execute_batch(include_str!("schema/1.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO accounts VALUES (4, 'ada', 1);
         INSERT INTO api_keys VALUES ('key_1', 4, zeroblob(32), 'sk-..', 1, 0);
         INSERT INTO transfers VALUES (1, 'deposit', NULL, 1);
         INSERT INTO postings VALUES (1, 'clearing', 0, -900), (1, 'consumer', 4, 900);
         INSERT INTO transfers VALUES (2, 'hold', x'00000000000000000000000000000007', 1);
         INSERT INTO postings VALUES (2, 'consumer', 4, -300), (2, 'held', 4, 300);
         INSERT INTO balances VALUES ('clearing', 0, -900), ('consumer', 4, 600), ('held', 4, 300);
         INSERT INTO deposits VALUES (1, 4, 900, 1, 1), (2, 4, 9223372036854775807, 1, NULL);
         PRAGMA user_version = 1;",
    )
    .unwrap();
    drop(old);

    let mut store = SqliteStore::open(folder.path()).unwrap();
    assert_eq!(audited(&mut store), 2);
    let told = |sql: &str| -> String { store.db.query_row(sql, [], |row| row.get(0)).unwrap() };
    let causes = told("SELECT group_concat(cause, ',') FROM transfers");
    assert_eq!(causes, "outside,request");
    let reference = told("SELECT reference FROM transfers WHERE kind = 'deposit'");
    assert_eq!(reference, "1", "the credit that it applied");
    let open = store.open_holds().unwrap();
    assert_eq!((open.len(), open[0].request), (1, RequestId(7)));
    let everything = store.everything().unwrap();
    assert_eq!(everything.accounts, [(AccountId(4), MicroUsd(600))]);
    assert_eq!(everything.deposits[0].id, DepositId(2));
    assert_eq!(everything.keys.len(), 1);
    store.commit(&[void(AccountId(4), 7, 300)]).unwrap();
    store.audit(AuditExtent::Everything).unwrap();
    assert_eq!(
        store.reverse_deposit(DepositId(1)).unwrap().id,
        DepositId(3)
    );
}

#[test]
fn a_key_is_found_by_its_hash_and_stored_as_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let key = store.create_key("ada").unwrap();
    let rows = store.keys().unwrap();
    assert_eq!(rows.len(), 1);
    assert!(
        rows[0]
            .hash
            .is_same(&KeyHash::of(key.secret.expose_secret()))
    );
    assert!(!rows[0].hash.is_same(&KeyHash::of("sk-cereus-other")));
    drop(store);
    let file = std::fs::read(folder.path().join(FILE_NAME)).unwrap();
    let secret = key.secret.expose_secret().as_bytes();
    assert!(!file.windows(secret.len()).any(|window| window == secret));
}

#[test]
fn books_that_contradict_themselves_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store
        .commit(&[deposit(account, 1_000), hold(account, 7, 300)])
        .unwrap();
    let found = |store: &mut SqliteStore| match store.audit(AuditExtent::SinceLast) {
        Err(StoreError::Audit(disagreement)) => disagreement,
        other => panic!("{other:?}"),
    };

    store
        .db
        .execute(
            "UPDATE balances SET amount = amount + 1 WHERE side = 'consumer'",
            [],
        )
        .unwrap();
    assert!(matches!(found(&mut store), Disagreement::Balance { .. }));
    store
        .db
        .execute(
            "UPDATE postings SET amount = amount + 1 WHERE side = 'consumer'",
            [],
        )
        .unwrap();
    assert!(matches!(found(&mut store), Disagreement::Unbalanced { .. }));
}

#[test]
fn a_damaged_file_is_reported_with_its_name_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(FILE_NAME),
        b"this is no database, but long enough to be one",
    )
    .unwrap();
    let error = SqliteStore::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }));
    let text = error.to_string();
    assert!(text.contains(FILE_NAME));
    assert!(text.contains("restore a backup"));
}

#[test]
fn an_unwritable_folder_is_reported_with_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, b"").unwrap();
    let error = SqliteStore::open(&path.join("below")).unwrap_err();
    assert!(error.to_string().contains("--data"));
}

#[test]
fn a_database_of_a_newer_build_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).unwrap();
    store.db.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    assert!(matches!(
        SqliteStore::open(folder.path()),
        Err(StoreError::TooNew { found: 99, .. })
    ));
}

#[test]
fn what_a_machine_earned_without_an_account_is_moved_once_and_by_machine() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(folder.path()).unwrap();
    let [consumer, nobody, owner] =
        ["ada", "nobody", "owner"].map(|name| store.ensure_account(name).unwrap());
    let paid = |store: &mut SqliteStore, request: u128, machine: u128, payee: AccountId| {
        let legs = [
            (LedgerAccount::Held(consumer), -100),
            (LedgerAccount::Provider(payee), 90),
            (LedgerAccount::Platform, 10),
        ];
        let mut finished = finished(consumer, request);
        finished.receipt.machine = MachineId(machine);
        let entries = [
            hold(consumer, request, 100),
            entry(TransferKind::Settle, request, &legs),
            Entry::Receipt(Arc::new(finished)),
        ];
        store.commit(&entries).unwrap();
    };
    store.commit(&[deposit(consumer, 1_000)]).unwrap();
    paid(&mut store, 1, 7, nobody);
    paid(&mut store, 2, 7, nobody);
    paid(&mut store, 3, 8, nobody);
    paid(&mut store, 4, 7, consumer);
    let earned = |store: &SqliteStore| {
        let accounts = store.accounts().unwrap();
        accounts.iter().map(|row| row.earned.0).collect::<Vec<_>>()
    };
    let claim = |store: &mut SqliteStore, machine: u128| {
        let moved = store.claim_earned(MachineId(machine), nobody, owner);
        moved
            .map(|amount| amount.0)
            .map_err(|error| error.to_string())
    };
    assert_eq!(claim(&mut store, 7), Ok(180));
    assert_eq!(earned(&store), [90, 90, 180], "of its own alone");
    assert!(
        claim(&mut store, 7)
            .unwrap_err()
            .contains("not moved before")
    );
    assert!(claim(&mut store, 9).is_err(), "it never worked");
    paid(&mut store, 5, 7, nobody);
    assert_eq!(claim(&mut store, 7), Ok(90));
    assert_eq!(earned(&store), [90, 90, 270]);
    audited(&mut store);
    store.audit(AuditExtent::Everything).unwrap();
}

#[test]
fn each_start_has_a_number_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = SqliteStore::open(folder.path()).unwrap();
    let mut second = SqliteStore::open(folder.path()).unwrap();
    let epochs = [
        first.begin_epoch().unwrap(),
        second.begin_epoch().unwrap(),
        first.begin_epoch().unwrap(),
    ];
    assert!(epochs[0] < epochs[1] && epochs[1] < epochs[2], "{epochs:?}");
    // What one run numbers lies below everything of the next.
    assert!(epochs[0].origin() + (1 << 40) <= epochs[1].origin());
}
