//! The coordinator process: sockets, the SQLite store, the journal's file and signals around
//! `cereus_core::coordinator`. Nothing here decides.

pub mod store;
