//! Byte layouts: the one place that knows what stored bytes look like, reading and writing side by side.
//! Its twin is `format-spec/`; the vectors there are made and checked by these modules.

pub mod block;
pub mod chunk_list;
pub mod commit;
pub mod config;
pub mod header;
pub mod keyslot;
pub mod pack;
pub mod padme;
pub mod record;
pub mod segment;
pub mod snapshot;
pub mod state;
pub mod tree;
pub mod tree_rules;
