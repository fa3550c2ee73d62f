-- Counter-entries and deposits set aside; open holds in a table of their own; audits that go on from
-- the last one; what other processes changed, told in order; receipts.
--
-- Each request commits here twice, so each table and each index that it touches is counted: every one
-- is another page to be written and synced.

-- A kind is checked where it is written: new kinds need no new table. What outside a transfer it
-- refers to, if anything, is its reference.
CREATE TABLE transfers_2 (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind <> ''),
    request BLOB CHECK (request IS NULL OR length(request) = 16),
    made_at INTEGER NOT NULL,
    reference TEXT,
    CHECK (request IS NOT NULL OR kind NOT IN ('hold', 'settle', 'void'))
) STRICT;
INSERT INTO transfers_2 (id, kind, request, made_at) SELECT id, kind, request, made_at FROM transfers;
DROP TABLE transfers;
ALTER TABLE transfers_2 RENAME TO transfers;
-- Each kind once for a request, which is settled or voided, never both.
CREATE UNIQUE INDEX transfers_once
    ON transfers (request, CASE kind WHEN 'void' THEN 'settle' ELSE kind END)
    WHERE request IS NOT NULL;

-- Money that came in, and counter-entries that take it back; applied once, in the transaction of
-- its transfer, or set aside for good with the reason.
CREATE TABLE deposits_2 (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account INTEGER NOT NULL REFERENCES accounts (id),
    amount INTEGER NOT NULL CHECK (amount <> 0),
    created_at INTEGER NOT NULL,
    transfer INTEGER REFERENCES transfers (id),
    reverses INTEGER UNIQUE REFERENCES deposits_2 (id),
    refused TEXT,
    CHECK ((reverses IS NULL) = (amount > 0)),
    CHECK (transfer IS NULL OR refused IS NULL)
) STRICT;
INSERT INTO deposits_2 (id, account, amount, created_at, transfer)
    SELECT id, account, amount, created_at, transfer FROM deposits;
DROP TABLE deposits;
ALTER TABLE deposits_2 RENAME TO deposits;
CREATE INDEX deposits_waiting ON deposits (id) WHERE transfer IS NULL AND refused IS NULL;

-- Holds that were neither settled nor voided: a start reads these and not the history.
CREATE TABLE open_holds (
    request BLOB PRIMARY KEY CHECK (length(request) = 16),
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    transfer INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO open_holds (request, account, amount, transfer)
    SELECT h.request, p.account, p.amount, h.id
    FROM transfers h JOIN postings p ON p.transfer = h.id AND p.side = 'held'
    WHERE h.kind = 'hold' AND NOT EXISTS (
        SELECT 1 FROM transfers e WHERE e.request = h.request AND e.kind IN ('settle', 'void'));

-- The balances as the last audit found them: the sums of all postings up to its transfer.
CREATE TABLE audited (
    side TEXT NOT NULL,
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (side, account)
) STRICT, WITHOUT ROWID;
CREATE TABLE audits (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    transfer INTEGER NOT NULL,
    made_at INTEGER NOT NULL
) STRICT;

-- What a running coordinator must be told of, whoever changed it. Trimmed at each start.
CREATE TABLE changes (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('account', 'deposit', 'key')),
    row INTEGER NOT NULL
) STRICT;
CREATE TRIGGER account_made AFTER INSERT ON accounts
    BEGIN INSERT INTO changes (kind, row) VALUES ('account', NEW.id); END;
CREATE TRIGGER deposit_made AFTER INSERT ON deposits
    BEGIN INSERT INTO changes (kind, row) VALUES ('deposit', NEW.id); END;
CREATE TRIGGER key_made AFTER INSERT ON api_keys
    BEGIN INSERT INTO changes (kind, row) VALUES ('key', NEW.rowid); END;
CREATE TRIGGER key_changed AFTER UPDATE OF disabled, account ON api_keys
    BEGIN INSERT INTO changes (kind, row) VALUES ('key', NEW.rowid); END;

-- Receipts as they are shown, by the transfer that ended their request. The oldest go: see the code for
-- how many are kept and how long.
CREATE TABLE receipts (
    transfer INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    machine BLOB NOT NULL CHECK (length(machine) = 16),
    made_at INTEGER NOT NULL,
    model TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT;
