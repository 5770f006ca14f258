//! Commits: the entries of the repository log. Each names its predecessor's hash and is signed.
//!
//! The object `log/<seq>` is a record object (kind 3) that holds a `SignedCommit`; the signature is Ed25519
//! over `"strongroom v1 commit" ‖ repository id ‖ body`. See `format-spec`, Commit log.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::crypto::KeySet;
use crate::crypto::keys::SecretKey;
use crate::format::header::{ObjectKind, Sealer};
use crate::format::record::{self, RecordError};
use crate::format::tree::Timestamp;
use crate::ids::{CommitHash, KeyslotId, LedgerId, PackId, RepositoryId, SegmentId, SnapshotId, WriterId};

/// What the signature covers before the repository id and the body.
pub const SIGNATURE_CONTEXT: &[u8] = b"strongroom v1 commit";

/// Longest reserve.
pub const RESERVE_LEN_MAX: u64 = 1 << 40;

/// A commit and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignedCommit {
    /// The encoded [`Commit`].
    body: ByteBuf,
    /// The signer's public key.
    writer: WriterId,
    /// 64 bytes.
    signature: ByteBuf,
}

/// One change of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Position in the log, from 1.
    pub seq: u64,
    /// Hash of the object `log/<seq − 1>`; of `config` for the first commit.
    pub previous: CommitHash,
    /// The writer's clock: for people, never for safety.
    pub time: Timestamp,
    /// Name of the host it was made on, as the host calls itself: for people.
    pub host: String,
    /// Name of the user who made it, as the system calls them: for people. Who may write, the signature says.
    pub user: String,
    /// Program and version that made it.
    pub program: String,
    /// What changed, in order.
    pub changes: Vec<Change>,
}

/// What a commit can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Change {
    /// A keyslot and the writer it holds may from now on be used.
    KeyslotAdded {
        /// The keyslot object.
        keyslot: KeyslotId,
        /// The writer whose signatures count from now on.
        writer: WriterId,
        /// What it is called.
        label: String,
    },
    /// An append-only keyslot and its writer, an appender, may from now on be used: to add segments and snapshots.
    AppenderAdded {
        /// The keyslot object.
        keyslot: KeyslotId,
        /// The appender whose signatures count from now on.
        writer: WriterId,
        /// What it is called.
        label: String,
    },
    /// A keyslot and its writer no longer count.
    KeyslotRemoved {
        /// The keyslot object.
        keyslot: KeyslotId,
        /// Its writer.
        writer: WriterId,
    },
    /// A snapshot.
    SnapshotAdded {
        /// The snapshot's id.
        snapshot: SnapshotId,
        /// Its record, exactly the bytes of the blob.
        record: ByteBuf,
    },
    /// A snapshot is no longer wanted.
    SnapshotForgotten {
        /// The snapshot's id.
        snapshot: SnapshotId,
        /// Why, in words.
        reason: String,
    },
    /// A snapshot must not be forgotten until it is released.
    SnapshotHeld {
        /// The snapshot's id.
        snapshot: SnapshotId,
        /// Why, in words.
        reason: String,
    },
    /// A held snapshot may be forgotten again.
    SnapshotReleased {
        /// The snapshot's id.
        snapshot: SnapshotId,
        /// Why, in words.
        reason: String,
    },
    /// Segments come and go.
    SegmentsReplaced {
        /// Now part of the index.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        added: Vec<SegmentInfo>,
        /// No longer part of it; their objects may be deleted.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        removed: Vec<SegmentId>,
    },
    /// Segment objects that no commit names: they may be deleted, their ids never come back. Whoever stored one and
    /// has not committed it stores another.
    SegmentsDropped {
        /// The segment objects.
        segments: Vec<SegmentId>,
    },
    /// Packs that a later commit may remove.
    PacksCondemned {
        /// The packs.
        packs: Vec<PackId>,
    },
    /// Condemned packs that are needed after all.
    PacksRescued {
        /// The packs.
        packs: Vec<PackId>,
    },
    /// Condemned packs that are gone; their objects may be deleted, their ids never come back.
    PacksRemoved {
        /// The packs.
        packs: Vec<PackId>,
    },
    /// The verification ledger is another object now; that of the one before may be deleted.
    LedgerReplaced {
        /// The ledger object.
        ledger: LedgerId,
        /// The one before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        previous: Option<LedgerId>,
    },
    /// Whether sidecars are wanted from now on.
    ParitySet {
        /// Overhead in tenths of a percent, at most 1000; 0 for none.
        overhead: u32,
    },
    /// How much room is to be kept free on the storage from now on, as an object that is deleted when it is needed.
    ReserveSet {
        /// Length of that object, at most [`RESERVE_LEN_MAX`]; 0 for none.
        bytes: u64,
    },
    /// Something worth keeping in the audit trail that changes nothing: a drill, an exception, a verification.
    Note {
        /// What it is. Kinds that a program does not know are passed over.
        kind: String,
        /// What there is to say, in an encoding that the kind defines.
        record: ByteBuf,
    },
}

/// A live segment with what is worth knowing before it is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentInfo {
    /// The segment object.
    pub segment: SegmentId,
    /// Entries in it.
    pub blobs: u64,
    /// Packs it covers.
    pub packs: u32,
    /// Length of its object.
    pub bytes: u64,
}

/// Why an object is not a valid commit.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// It does not open, or holds no commit.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Its writer signed it, but the commit record is not one that this version knows.
    #[error("the commit of writer {writer} is not understood: {source}")]
    Body {
        /// Who signed it.
        writer: WriterId,
        /// What is unknown.
        source: RecordError,
    },
    /// The signature is wrong.
    #[error("the signature does not verify under the key of writer {0}")]
    Signature(WriterId),
    /// The commit is another than its place says.
    #[error("the commit says it is number {found}, but stands at {expected}")]
    Sequence {
        /// Number in the commit.
        found: u64,
        /// Number in its key.
        expected: u64,
    },
}

/// A writer's signing key.
pub struct WriterKey(SigningKey);

impl WriterKey {
    /// The key of a keyslot's seed.
    pub fn new(seed: &SecretKey) -> Self {
        Self(SigningKey::from_bytes(seed.expose()))
    }

    /// The seed it was made of.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn seed(&self) -> SecretKey {
        SecretKey::from_bytes(self.0.to_bytes())
    }

    /// The public half.
    pub fn id(&self) -> WriterId {
        WriterId::from_bytes(self.0.verifying_key().to_bytes())
    }
}

impl std::fmt::Debug for WriterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WriterKey({:?})", self.id())
    }
}

fn signed_bytes(repository: &RepositoryId, body: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, repository.as_bytes(), body].concat()
}

/// Hash of a stored log object, which the next commit names.
pub fn hash(object: &[u8]) -> CommitHash {
    CommitHash::from_bytes(blake3::hash(object).into())
}

impl Commit {
    /// Signs and seals the commit as the object `log/<seq>`.
    ///
    /// # Errors
    /// [`RecordError::TooLong`].
    pub fn seal(&self, writer: &WriterKey, sealer: &Sealer<'_>) -> Result<Vec<u8>, RecordError> {
        Self::seal_body(record::encode(self), writer, sealer)
    }

    /// Signs and seals an encoded commit.
    pub(crate) fn seal_body(
        body: Vec<u8>,
        writer: &WriterKey,
        sealer: &Sealer<'_>,
    ) -> Result<Vec<u8>, RecordError> {
        let signature = writer.0.sign(&signed_bytes(sealer.repository, &body));
        let signed = SignedCommit {
            body: ByteBuf::from(body),
            writer: writer.id(),
            signature: ByteBuf::from(signature.to_bytes().to_vec()),
        };
        record::seal_object(ObjectKind::Log, &signed, sealer)
    }

    /// Opens the object found at `log/<seq>` and verifies its signature. Whether its writer may write is for
    /// the log to say.
    ///
    /// # Errors
    /// [`CommitError`] for anything but a commit of that number signed by the writer it names.
    pub fn open(
        object: Vec<u8>,
        seq: u64,
        keys: &KeySet,
        repository: &RepositoryId,
    ) -> Result<(Self, WriterId), CommitError> {
        let signed: SignedCommit = record::open_object(ObjectKind::Log, object, keys, repository)?;
        let verified = VerifyingKey::from_bytes(signed.writer.as_bytes()).ok().and_then(|key| {
            let signature = Signature::from_slice(&signed.signature).ok()?;
            key.verify_strict(&signed_bytes(repository, &signed.body), &signature).ok()
        });
        if verified.is_none() {
            return Err(CommitError::Signature(signed.writer));
        }
        let commit: Self = record::decode(&signed.body)
            .map_err(|source| CommitError::Body { writer: signed.writer, source })?;
        if commit.seq != seq {
            return Err(CommitError::Sequence { found: commit.seq, expected: seq });
        }
        Ok((commit, signed.writer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RootSecret, SeededEntropy};

    fn commit() -> Commit {
        Commit {
            seq: 7,
            previous: CommitHash::from_bytes([4; 32]),
            time: Timestamp { seconds: -1, nanos: 5 },
            host: "h".into(),
            user: "u".into(),
            program: "p".into(),
            changes: vec![Change::PacksCondemned { packs: vec![PackId::from_bytes([1; 32])] }],
        }
    }

    #[test]
    fn a_commit_opens_only_in_its_place() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer { keys: &keys, repository: &repository, entropy: &entropy };
        let writer = WriterKey::new(&SecretKey::from_bytes([3; 32]));
        let object = commit().seal(&writer, &sealer).expect("short");
        let (back, by) = Commit::open(object.clone(), 7, &keys, &repository).expect("just sealed");
        assert_eq!((back, by), (commit(), writer.id()));
        let moved = Commit::open(object.clone(), 8, &keys, &repository);
        assert!(matches!(moved, Err(CommitError::Sequence { found: 7, expected: 8 })));
        for bit in 0..object.len() * 8 {
            let mut altered = object.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Commit::open(altered, 7, &keys, &repository).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_writers_signature_does_not_count() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer { keys: &keys, repository: &repository, entropy: &entropy };
        let [a, b] = [[3; 32], [4; 32]].map(|seed| WriterKey::new(&SecretKey::from_bytes(seed)));
        let body = record::encode(&commit());
        let signature = b.0.sign(&signed_bytes(&repository, &body)).to_bytes().to_vec();
        let forged =
            SignedCommit { body: ByteBuf::from(body), writer: a.id(), signature: ByteBuf::from(signature) };
        let object = record::seal_object(ObjectKind::Log, &forged, &sealer).expect("short");
        let result = Commit::open(object, 7, &keys, &repository);
        assert!(matches!(result, Err(CommitError::Signature(writer)) if writer == a.id()));
    }
}
