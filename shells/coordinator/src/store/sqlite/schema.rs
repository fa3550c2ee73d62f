//! The tables, as numbered migrations. Once released a migration never changes: append.

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations, SchemaVersion};

use super::super::StoreError;

/// One script for each version, in order; SQLite's `user_version` says how many have run.
const MIGRATIONS: &[M<'_>] = &[
    M::up(include_str!("schema/1.sql")),
    M::up(include_str!("schema/2.sql")).foreign_key_check(),
    M::up(include_str!("schema/3.sql")).foreign_key_check(),
    M::up(include_str!("schema/4.sql")),
    M::up(include_str!("schema/5.sql")),
    M::up(include_str!("schema/6.sql")),
];

/// Brings the tables to this build's version. Foreign keys must be off: a table that others point
/// to is rebuilt under its own name.
pub(super) fn migrate(db: &mut Connection) -> Result<(), StoreError> {
    let migrations = Migrations::from_slice(MIGRATIONS);
    let known = MIGRATIONS.len();
    let error = match migrations.to_latest(db) {
        Ok(()) => return Ok(()),
        Err(error) => error,
    };
    match migrations.current_version(db) {
        // Another process has migrated the database since this one looked: what it needs is there.
        Ok(SchemaVersion::Inside(found)) if found.get() == known => Ok(()),
        Ok(SchemaVersion::Outside(found)) => Err(StoreError::TooNew {
            found: found.get(),
            known,
        }),
        Ok(SchemaVersion::Inside(_) | SchemaVersion::NoneSet) | Err(_) => Err(cause(error)),
    }
}

fn cause(error: rusqlite_migration::Error) -> StoreError {
    match error {
        rusqlite_migration::Error::RusqliteError { err, .. } => StoreError::Sqlite(err),
        other => StoreError::Request(format!("the tables cannot be brought up to date: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_runs_on_the_tables_before_it() {
        Migrations::from_slice(MIGRATIONS).validate().unwrap();
    }
}
