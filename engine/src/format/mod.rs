//! Byte layouts: the one place that knows what stored bytes look like, reading and writing side by side.

pub mod tree;
