-- Earnings of machines that named no account, moved to their owners' later: once for each receipt.
CREATE TABLE claims (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    machine BLOB NOT NULL CHECK (length(machine) = 16),
    account INTEGER NOT NULL REFERENCES accounts (id),
    amount INTEGER NOT NULL CHECK (amount > 0),
    made_at INTEGER NOT NULL,
    transfer INTEGER NOT NULL REFERENCES transfers (id)
) STRICT;
-- The claim that moved what was earned with it.
ALTER TABLE receipts ADD COLUMN claim INTEGER REFERENCES claims (id);
