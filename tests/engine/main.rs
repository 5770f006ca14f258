//! Integration tests of the engine, one binary for all of them.

mod commit_log;
mod fuzz_corpus;
mod golden;
mod model;
mod simulation;
mod threats;
mod vectors;
