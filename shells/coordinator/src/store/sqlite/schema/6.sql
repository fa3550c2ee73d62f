-- Runs of coordinators on this store. Each takes the next number and begins its own numbers with it.
CREATE TABLE epochs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    began_unix_s INTEGER NOT NULL
) STRICT;
