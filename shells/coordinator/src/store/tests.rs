use cereus_core::effect::{LedgerAccount, Posting, Transfer, TransferKind};
use cereus_core::ids::{AccountId, RequestId};
use cereus_core::money::MicroUsd;
use secrecy::ExposeSecret;

use super::ledger::Entry;
use super::{Disagreement, FILE_NAME, FolderLock, KeyHash, Store, StoreError};

const NOBODY: Posting = Posting {
    account: LedgerAccount::Clearing,
    amount: MicroUsd::ZERO,
};

fn entry(kind: TransferKind, request: u128, legs: &[(LedgerAccount, i64)]) -> Entry {
    let mut postings = [NOBODY; 4];
    for (place, &(account, amount)) in postings.iter_mut().zip(legs) {
        *place = Posting {
            account,
            amount: MicroUsd(amount),
        };
    }
    Entry {
        transfer: Transfer {
            seq: 1,
            kind,
            request: RequestId(request),
            postings,
        },
        deposit: None,
    }
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

fn deposit(account: AccountId, amount: i64) -> Entry {
    let legs = [
        (LedgerAccount::Clearing, -amount),
        (LedgerAccount::Consumer(account), amount),
    ];
    entry(TransferKind::Deposit, 0, &legs)
}

#[test]
fn balances_survive_a_restart_and_agree_with_the_ledger() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
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

    let store = Store::open(folder.path()).unwrap();
    let audit = store.audit().unwrap();
    assert_eq!(audit.transfer_count, 4);
    assert_eq!(audit.open_hold_count, 1);
    assert_eq!(audit.held, MicroUsd(300));
    assert_eq!(
        store.consumer_balances(AccountId(0)).unwrap(),
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
    let mut store = Store::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store
        .commit(&[deposit(account, 1_000), hold(account, 7, 300)])
        .unwrap();
    store.commit(&[void(account, 7, 300)]).unwrap();

    assert!(store.commit(&[void(account, 7, 300)]).is_err());
    let settle = entry(
        TransferKind::Settle,
        7,
        &[
            (LedgerAccount::Held(account), -300),
            (LedgerAccount::Platform, 300),
        ],
    );
    assert!(store.commit(&[settle]).is_err());
    assert!(store.commit(&[hold(account, 7, 300)]).is_err());
    assert_eq!(store.audit().unwrap().transfer_count, 3);
}

#[test]
fn a_batch_is_written_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
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
    assert_eq!(store.audit().unwrap().transfer_count, 0);
}

#[test]
fn a_deposit_is_applied_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store.deposit(account, MicroUsd(40)).unwrap();
    assert!(store.deposit(account, MicroUsd(0)).is_err());
    let waiting = store.waiting_deposits(0).unwrap();
    assert_eq!(waiting.len(), 1);
    let mut applied = deposit(account, 40);
    applied.deposit = Some(waiting[0].id);
    store.commit(&[applied]).unwrap();
    assert_eq!(store.waiting_deposits(0).unwrap(), []);
    assert!(store.commit(&[applied]).is_err());
    assert_eq!(store.audit().unwrap().transfer_count, 1);
}

#[test]
fn a_key_is_found_by_its_hash_and_stored_as_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = Store::open(folder.path()).unwrap();
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
    let mut store = Store::open(folder.path()).unwrap();
    let account = store.ensure_account("ada").unwrap();
    store
        .commit(&[deposit(account, 1_000), hold(account, 7, 300)])
        .unwrap();
    let found = |store: &Store| match store.audit() {
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
    assert!(matches!(found(&store), Disagreement::Balance { .. }));
    store
        .db
        .execute(
            "UPDATE postings SET amount = amount + 1 WHERE side = 'consumer'",
            [],
        )
        .unwrap();
    assert!(matches!(found(&store), Disagreement::Unbalanced { .. }));
}

#[test]
fn a_damaged_file_is_reported_with_its_name_and_a_way_out() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join(FILE_NAME),
        b"this is no database, but long enough to be one",
    )
    .unwrap();
    let error = Store::open(folder.path()).unwrap_err();
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
    let error = Store::open(&path.join("below")).unwrap_err();
    assert!(error.to_string().contains("--data"));
}

#[test]
fn a_folder_serves_one_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let first = FolderLock::take(folder.path()).unwrap();
    assert!(matches!(
        FolderLock::take(folder.path()),
        Err(StoreError::InUse { .. })
    ));
    drop(first);
    FolderLock::take(folder.path()).unwrap();
}

#[test]
fn a_database_of_a_newer_build_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.db.pragma_update(None, "user_version", 99).unwrap();
    drop(store);
    assert!(matches!(
        Store::open(folder.path()),
        Err(StoreError::TooNew { found: 99, .. })
    ));
}
