//! Integration tests of the engine, one binary for all of them.

mod fuzz_corpus;
mod threats;
mod vectors;
