//! The command line by example: the built binary, run on folders of its own.
//!
//! Exit codes, JSON and the text of errors are a contract: `docs/json.md` and `docs/cli-reference.md` say the same.

mod backup;
mod check;
mod config;
mod copy;
mod diff;
mod documents;
mod drill;
mod errors;
mod find;
mod forget;
mod heads;
mod keys;
mod log;
mod notify;
mod operations;
mod parity;
mod plan;
mod prune;
mod recover;
mod reference;
mod repair;
mod repository;
mod restore;
mod runs;
mod sources;
mod storage;
mod support;
mod system_calls;
mod terminal;
mod usage;
mod verify;
