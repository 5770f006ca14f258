//! Blobs in and out of packs: the stores between operations and the backend.

mod directory;
pub mod packs;
pub mod reader;
mod trees;
mod upload;
pub mod writer;

pub use directory::{is_described_by, is_intact, read_directory};
pub use packs::{PackStore, StoreError, StoreOptions};
pub use reader::{BlobReader, Catalog, DecodeScratch, ReadError};
pub use trees::{TreeBuilder, TreeEntry, put_tree};
pub use writer::BlobWriter;
