//! See ARCHITECTURE.md.

pub mod scheduler;
