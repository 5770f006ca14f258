//! The key hierarchy: one root secret, one derived key per purpose, so that later a client can be given some
//! purposes and not others. See `format-spec`, Keys.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::Entropy;
use crate::ids::BlobId;

/// What a key is for. Each purpose has its own derivation context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Ids of data blobs.
    DataId,
    /// Ids of tree blobs.
    TreeId,
    /// Ids of snapshot records.
    SnapshotId,
    /// The gear table and the splitting of trees and chunk lists.
    Chunker,
    /// Sealing of packs of file content.
    Data,
    /// Sealing of packs of trees and snapshots.
    Metadata,
    /// Sealing of index segments.
    Index,
    /// Sealing of commits and states.
    Log,
}

impl Purpose {
    /// The BLAKE3 `derive_key` context of this purpose.
    pub const fn context(self) -> &'static str {
        match self {
            Self::DataId => "strongroom v1 2026-11-22 data blob id",
            Self::TreeId => "strongroom v1 2026-11-22 tree blob id",
            Self::SnapshotId => "strongroom v1 2026-11-22 snapshot blob id",
            Self::Chunker => "strongroom v1 2026-11-22 chunker",
            Self::Data => "strongroom v1 2026-11-22 data packs",
            Self::Metadata => "strongroom v1 2026-11-22 metadata packs",
            Self::Index => "strongroom v1 2026-11-22 index segments",
            Self::Log => "strongroom v1 2026-11-22 commit log",
        }
    }
}

/// A 32-byte key. Wiped when dropped, never printed, never copied.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Takes key bytes over.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the derivation or cipher that needs them.
    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The 32 bytes everything else is derived from. Kept only wrapped, in keyslots.
pub struct RootSecret(SecretKey);

impl RootSecret {
    /// A new secret.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        let mut bytes = [0; 32];
        entropy.fill(&mut bytes);
        Self(SecretKey(bytes))
    }

    /// The secret as unwrapped from a keyslot.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(SecretKey(bytes))
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0.0
    }

    /// Key of `purpose` in key epoch `epoch`: `derive_key(context, root ‖ le32(epoch))`.
    pub fn derive(&self, purpose: Purpose, epoch: u32) -> SecretKey {
        let mut material = Zeroizing::new([0; 36]);
        material[..32].copy_from_slice(&self.0.0);
        material[32..].copy_from_slice(&epoch.to_le_bytes());
        SecretKey(blake3::derive_key(purpose.context(), material.as_ref()))
    }
}

/// What a blob holds. The kind is part of the id: equal bytes of two kinds are two blobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum BlobKind {
    /// Bytes of users' files.
    Data = 0,
    /// A tree or a chunk list.
    Tree = 1,
    /// A snapshot record.
    Snapshot = 2,
}

/// The keys of a repository that its operations work with, all of key epoch 0.
pub struct KeySet {
    ids: [SecretKey; 3],
    chunker: SecretKey,
    data: SecretKey,
    metadata: SecretKey,
    index: SecretKey,
    log: SecretKey,
}

impl KeySet {
    /// Derives all keys of the root secret.
    pub fn derive(root: &RootSecret) -> Self {
        let key = |purpose| root.derive(purpose, 0);
        Self {
            ids: [key(Purpose::DataId), key(Purpose::TreeId), key(Purpose::SnapshotId)],
            chunker: key(Purpose::Chunker),
            data: key(Purpose::Data),
            metadata: key(Purpose::Metadata),
            index: key(Purpose::Index),
            log: key(Purpose::Log),
        }
    }

    /// Id of a blob: keyed BLAKE3 of its plaintext under the key of its kind.
    pub fn blob_id(&self, kind: BlobKind, plaintext: &[u8]) -> BlobId {
        let key = match kind {
            BlobKind::Data => &self.ids[0],
            BlobKind::Tree => &self.ids[1],
            BlobKind::Snapshot => &self.ids[2],
        };
        BlobId::from_bytes(blake3::keyed_hash(key.expose(), plaintext).into())
    }

    /// The key of cut points.
    pub(crate) fn chunker(&self) -> &SecretKey {
        &self.chunker
    }

    /// The key that objects of a purpose are sealed under; `None` for purposes that seal nothing.
    pub(crate) fn sealing(&self, purpose: Purpose) -> Option<&SecretKey> {
        match purpose {
            Purpose::Data => Some(&self.data),
            Purpose::Metadata => Some(&self.metadata),
            Purpose::Index => Some(&self.index),
            Purpose::Log => Some(&self.log),
            Purpose::DataId | Purpose::TreeId | Purpose::SnapshotId | Purpose::Chunker => None,
        }
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeySet(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_and_epoch_has_its_own_key() {
        let root = RootSecret::from_bytes([7; 32]);
        let purposes = [
            Purpose::DataId,
            Purpose::TreeId,
            Purpose::SnapshotId,
            Purpose::Chunker,
            Purpose::Data,
            Purpose::Metadata,
            Purpose::Index,
            Purpose::Log,
        ];
        let mut seen = std::collections::HashSet::new();
        for purpose in purposes {
            for epoch in 0..3 {
                assert!(seen.insert(*root.derive(purpose, epoch).expose()), "{purpose:?} {epoch}");
            }
        }
    }

    #[test]
    fn equal_bytes_of_two_kinds_are_two_blobs() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        assert_ne!(keys.blob_id(BlobKind::Data, b"x"), keys.blob_id(BlobKind::Tree, b"x"));
        assert_ne!(keys.blob_id(BlobKind::Data, b"x"), keys.blob_id(BlobKind::Data, b"y"));
    }
}
