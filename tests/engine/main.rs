//! Integration tests of the engine, one binary for all of them.

mod threats;
mod vectors;
