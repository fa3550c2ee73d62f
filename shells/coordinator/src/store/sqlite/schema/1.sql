CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    account INTEGER NOT NULL REFERENCES accounts (id),
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    disabled INTEGER NOT NULL DEFAULT 0
) STRICT;

-- One row for each transaction of the double-entry ledger.
CREATE TABLE transfers (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('deposit', 'hold', 'settle', 'void')),
    request BLOB CHECK (request IS NULL OR length(request) = 16),
    made_at INTEGER NOT NULL,
    CHECK ((kind = 'deposit') = (request IS NULL))
) STRICT;
CREATE UNIQUE INDEX transfers_each_kind_once ON transfers (request, kind)
    WHERE request IS NOT NULL;
-- A request is settled or voided, never both.
CREATE UNIQUE INDEX transfers_end_once ON transfers (request) WHERE kind IN ('settle', 'void');

CREATE TABLE postings (
    transfer INTEGER NOT NULL REFERENCES transfers (id),
    side TEXT NOT NULL CHECK (side IN ('clearing', 'consumer', 'held', 'platform', 'provider')),
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (transfer, side, account)
) STRICT, WITHOUT ROWID;

-- The sums of the postings, kept for speed; the audit at start compares the two.
CREATE TABLE balances (
    side TEXT NOT NULL,
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (side, account)
) STRICT, WITHOUT ROWID;

-- Money that came in; applied once, in the transaction of its transfer.
CREATE TABLE deposits (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts (id),
    amount INTEGER NOT NULL CHECK (amount > 0),
    created_at INTEGER NOT NULL,
    transfer INTEGER REFERENCES transfers (id)
) STRICT;
CREATE INDEX deposits_waiting ON deposits (id) WHERE transfer IS NULL;
