//! Chunking: where a file is cut, and how coarsely.

pub mod cutter;
pub mod gear;
pub mod grain;
pub mod split;

pub use cutter::Cutter;
pub use gear::GearTable;
