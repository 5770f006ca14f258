//! Blobs in and out of packs: the stores between operations and the backend.

mod directory;
pub mod reader;
pub mod writer;

pub use directory::read_directory;
pub use reader::{BlobReader, DecodeScratch, ReadError};
pub use writer::{BlobWriter, PackStore, StoreError, StoreOptions};
