-- A transfer says what gave rise to it, and its postings go wherever the core posts: who may receive
-- money is decided there and checked where it is written, so that a new kind of beneficiary needs no
-- new table.

ALTER TABLE transfers ADD COLUMN cause TEXT NOT NULL DEFAULT 'outside' CHECK (cause <> '');
UPDATE transfers SET cause = 'request' WHERE request IS NOT NULL;
-- Until now a deposit's row alone knew its transfer.
UPDATE transfers SET reference = (SELECT CAST(d.id AS TEXT) FROM deposits d WHERE d.transfer = transfers.id)
    WHERE kind = 'deposit';

CREATE TABLE postings_3 (
    transfer INTEGER NOT NULL REFERENCES transfers (id),
    side TEXT NOT NULL CHECK (side <> ''),
    account INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (transfer, side, account)
) STRICT, WITHOUT ROWID;
INSERT INTO postings_3 (transfer, side, account, amount)
    SELECT transfer, side, account, amount FROM postings;
DROP TABLE postings;
ALTER TABLE postings_3 RENAME TO postings;
