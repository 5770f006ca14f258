//! Strongroom: a deduplicating, encrypted, content-addressed backup repository engine.

pub mod backend;
pub mod format;
pub mod ids;
pub mod target;
