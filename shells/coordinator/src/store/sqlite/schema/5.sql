-- The newest batch of the log of transfers whose transfers are in these tables.
CREATE TABLE applied (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    batch INTEGER NOT NULL CHECK (batch >= 0)
) STRICT;
