//! What several benchmarks need: data of some kinds. Everything is the same in each run.
#![allow(dead_code, reason = "each benchmark uses a part")]

pub mod blobs;
pub mod data;
pub mod repository;
pub mod scratch;
pub mod tree;
