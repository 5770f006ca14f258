//! Chunking: where a file is cut, and how coarsely.

pub mod cutter;
#[cfg(test)]
mod equality;
pub mod gear;
pub mod grain;
mod scan;
pub mod split;

pub use cutter::Cutter;
pub use gear::GearTable;
pub use scan::Scanner;
