//! Keys, repository and sealing of all targets: those of the test vectors in `format-spec`.

use std::sync::OnceLock;

use crate::crypto::{KeySet, MessageContext, ObjectCipher, RootSecret, SeededEntropy};
use crate::format::header::{HEADER_LEN, Header, ObjectKind, Sealer};
use crate::ids::RepositoryId;

/// The repository that all targets play in.
pub(super) struct Setup {
    pub keys: KeySet,
    pub repository: RepositoryId,
}

/// Makes the setup once for all runs.
pub(super) fn setup() -> &'static Setup {
    static SETUP: OnceLock<Setup> = OnceLock::new();
    SETUP.get_or_init(|| Setup {
        keys: KeySet::derive(&RootSecret::from_bytes(*b"the root secret of the vectors!!")),
        repository: RepositoryId::from_bytes(*b"repository-of-it"),
    })
}

impl Setup {
    /// Seals with salts that follow from `entropy` alone, so that equal inputs run alike.
    pub fn sealer<'a>(&'a self, entropy: &'a SeededEntropy) -> Sealer<'a> {
        Sealer { keys: &self.keys, repository: &self.repository, entropy }
    }

    /// The header and cipher of a new object.
    pub fn begin(&self, kind: ObjectKind) -> (Vec<u8>, ObjectCipher) {
        let (header, cipher) = Header::create(kind, &self.sealer(&entropy()));
        (header.encode().to_vec(), cipher)
    }

    /// An object of one sealed message, whatever it says.
    pub fn object(&self, kind: ObjectKind, message: &[u8]) -> Vec<u8> {
        let (mut object, cipher) = self.begin(kind);
        append(&mut object, &cipher, message);
        object
    }

    /// An object whose message frames `record`, whatever that is, as record objects do, uncompressed.
    pub fn record_object(&self, kind: ObjectKind, record: &[u8]) -> Vec<u8> {
        let len = u32::try_from(record.len()).expect("fuzz inputs are short").to_le_bytes();
        self.object(kind, &[&len, &len, record].concat())
    }
}

/// Fresh entropy, always the same.
pub(super) fn entropy() -> SeededEntropy {
    SeededEntropy::new(1)
}

/// Seals `message`, which stands for as many bytes as it has, at the end of `object`.
pub(super) fn append(object: &mut Vec<u8>, cipher: &ObjectCipher, message: &[u8]) {
    debug_assert!(object.len() >= HEADER_LEN);
    let mut sealed = message.to_vec();
    let context = MessageContext { position: object.len() as u64, raw_len: message.len() as u64 };
    cipher.seal(context, &mut sealed);
    object.append(&mut sealed);
}
