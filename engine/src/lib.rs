//! Strongroom: a deduplicating, encrypted, content-addressed backup repository engine.
//!
//! The engine does no terminal input or output, starts no processes and reads no environment. It reports
//! through a monitor and takes its storage, entropy and clock from the caller.

pub mod backend;
pub mod backup;
pub mod browse;
pub mod budget;
pub mod check;
pub mod chunk;
pub mod copy;
pub mod crypto;
#[cfg(test)]
mod deeds;
pub mod diff;
#[cfg(test)]
mod fault_tests;
pub mod find;
mod footprint;
pub mod forget;
pub mod format;
pub mod ids;
pub mod index;
pub mod log;
pub mod monitor;
pub mod parity;
#[cfg(test)]
mod power_cut_tests;
pub mod prune;
pub mod reach;
pub mod rebuild;
pub mod repair;
pub mod repo;
pub mod reserve;
pub mod restore;
pub mod sidecar;
pub mod source;
pub mod spill;
pub mod stats;
pub mod store;
pub mod target;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod usage;
pub mod vet;
