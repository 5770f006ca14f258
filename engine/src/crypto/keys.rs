//! The key hierarchy: one root secret, one derived key per purpose, so that a client can be given some purposes and not
//! others. See `format-spec`, Keys and Append-only keyslots.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::{Entropy, RecipientKey, RecipientSecret};
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
    /// Sealing of commits and ledgers.
    Log,
    /// Sealing of states.
    State,
    /// X25519 secret that opens packs of file content which others sealed for it.
    DataRecipient,
    /// The same for packs of trees.
    MetadataRecipient,
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
            Self::State => "strongroom v1 2026-11-28 states of the log",
            Self::DataRecipient => "strongroom v1 2026-11-28 data recipient",
            Self::MetadataRecipient => "strongroom v1 2026-11-28 metadata recipient",
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

/// The 32 bytes everything else is derived from. Kept only wrapped, in keyslots that are not append-only.
pub struct RootSecret(SecretKey);

impl fmt::Debug for RootSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootSecret(secret)")
    }
}

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
    shared: AppendKeys,
    own: Option<OwnKeys>,
}

/// What an append-only keyslot gives: enough to recognise what is stored, to add to it and to read the log, and no key
/// that opens contents or states.
pub struct AppendKeys {
    /// Keys of blob ids, by kind.
    pub(crate) ids: [SecretKey; 3],
    /// The key of cut points.
    pub(crate) chunker: SecretKey,
    /// The key of index segments.
    pub(crate) index: SecretKey,
    /// The key of commits.
    pub(crate) log: SecretKey,
    /// Whom packs of file content are sealed for.
    pub(crate) data_recipient: RecipientKey,
    /// Whom packs of trees are sealed for.
    pub(crate) metadata_recipient: RecipientKey,
}

impl AppendKeys {
    /// Those of a repository.
    pub fn derive(root: &RootSecret) -> Self {
        let key = |purpose| root.derive(purpose, 0);
        let public = |purpose| RecipientSecret::new(&key(purpose)).public();
        Self {
            ids: [key(Purpose::DataId), key(Purpose::TreeId), key(Purpose::SnapshotId)],
            chunker: key(Purpose::Chunker),
            index: key(Purpose::Index),
            log: key(Purpose::Log),
            data_recipient: public(Purpose::DataRecipient),
            metadata_recipient: public(Purpose::MetadataRecipient),
        }
    }

    /// The same keys again, for another handle.
    pub(crate) fn duplicate(&self) -> Self {
        let copy = |key: &SecretKey| SecretKey(key.0);
        Self {
            ids: [copy(&self.ids[0]), copy(&self.ids[1]), copy(&self.ids[2])],
            chunker: copy(&self.chunker),
            index: copy(&self.index),
            log: copy(&self.log),
            data_recipient: self.data_recipient.clone(),
            metadata_recipient: self.metadata_recipient.clone(),
        }
    }
}

impl fmt::Debug for AppendKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AppendKeys(secret)")
    }
}

/// What only the root secret gives.
struct OwnKeys {
    data: SecretKey,
    metadata: SecretKey,
    state: SecretKey,
    data_recipient: RecipientSecret,
    metadata_recipient: RecipientSecret,
}

impl KeySet {
    /// Derives all keys of the root secret.
    pub fn derive(root: &RootSecret) -> Self {
        let key = |purpose| root.derive(purpose, 0);
        let own = OwnKeys {
            data: key(Purpose::Data),
            metadata: key(Purpose::Metadata),
            state: key(Purpose::State),
            data_recipient: RecipientSecret::new(&key(Purpose::DataRecipient)),
            metadata_recipient: RecipientSecret::new(&key(Purpose::MetadataRecipient)),
        };
        Self { shared: AppendKeys::derive(root), own: Some(own) }
    }

    /// The keys of an append-only keyslot.
    pub fn append_only(keys: AppendKeys) -> Self {
        Self { shared: keys, own: None }
    }

    /// Whether there is no key that opens contents.
    pub fn is_append_only(&self) -> bool {
        self.own.is_none()
    }

    /// Id of a blob: keyed BLAKE3 of its plaintext under the key of its kind.
    pub fn blob_id(&self, kind: BlobKind, plaintext: &[u8]) -> BlobId {
        let key = match kind {
            BlobKind::Data => &self.shared.ids[0],
            BlobKind::Tree => &self.shared.ids[1],
            BlobKind::Snapshot => &self.shared.ids[2],
        };
        BlobId::from_bytes(blake3::keyed_hash(key.expose(), plaintext).into())
    }

    /// The key of cut points.
    pub(crate) fn chunker(&self) -> &SecretKey {
        &self.shared.chunker
    }

    /// The key that objects of a purpose are sealed under; `None` for purposes that seal nothing, and where an
    /// append-only keyslot does not give it.
    pub(crate) fn sealing(&self, purpose: Purpose) -> Option<&SecretKey> {
        let own = self.own.as_ref();
        match purpose {
            Purpose::Data => own.map(|own| &own.data),
            Purpose::Metadata => own.map(|own| &own.metadata),
            Purpose::State => own.map(|own| &own.state),
            Purpose::Index => Some(&self.shared.index),
            Purpose::Log => Some(&self.shared.log),
            Purpose::DataId
            | Purpose::TreeId
            | Purpose::SnapshotId
            | Purpose::Chunker
            | Purpose::DataRecipient
            | Purpose::MetadataRecipient => None,
        }
    }

    /// Whom an append-only keyslot seals packs of a purpose for; `None` for purposes that are no packs'.
    pub(crate) fn recipient(&self, purpose: Purpose) -> Option<&RecipientKey> {
        match purpose {
            Purpose::Data => Some(&self.shared.data_recipient),
            Purpose::Metadata => Some(&self.shared.metadata_recipient),
            _ => None,
        }
    }

    /// What opens packs of a purpose that were sealed for a recipient.
    pub(crate) fn recipient_secret(&self, purpose: Purpose) -> Option<&RecipientSecret> {
        let own = self.own.as_ref()?;
        match purpose {
            Purpose::Data => Some(&own.data_recipient),
            Purpose::Metadata => Some(&own.metadata_recipient),
            _ => None,
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
            Purpose::State,
            Purpose::DataRecipient,
            Purpose::MetadataRecipient,
        ];
        let mut seen = std::collections::HashSet::new();
        for purpose in purposes {
            for epoch in 0..3 {
                assert!(seen.insert(*root.derive(purpose, epoch).expose()), "{purpose:?} {epoch}");
            }
        }
    }

    #[test]
    fn an_append_only_keyslot_gives_the_same_ids_and_no_key_to_contents() {
        let root = RootSecret::from_bytes([7; 32]);
        let (all, few) = (KeySet::derive(&root), KeySet::append_only(AppendKeys::derive(&root)));
        for kind in [BlobKind::Data, BlobKind::Tree, BlobKind::Snapshot] {
            assert_eq!(all.blob_id(kind, b"x"), few.blob_id(kind, b"x"));
        }
        for purpose in [Purpose::Data, Purpose::Metadata, Purpose::State] {
            assert!(all.sealing(purpose).is_some() && few.sealing(purpose).is_none(), "{purpose:?}");
            assert!(few.recipient_secret(purpose).is_none(), "{purpose:?}");
        }
        for purpose in [Purpose::Index, Purpose::Log] {
            let key = |keys: &KeySet| *keys.sealing(purpose).expect("both have it").expose();
            assert_eq!(key(&all), key(&few));
        }
        assert!(few.is_append_only() && !all.is_append_only());
    }

    #[test]
    fn equal_bytes_of_two_kinds_are_two_blobs() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        assert_ne!(keys.blob_id(BlobKind::Data, b"x"), keys.blob_id(BlobKind::Tree, b"x"));
        assert_ne!(keys.blob_id(BlobKind::Data, b"x"), keys.blob_id(BlobKind::Data, b"y"));
    }
}
