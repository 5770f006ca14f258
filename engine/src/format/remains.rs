//! What is left of a record object that does not open: whether it was one of ours before it was altered.

use crate::crypto::{KeySet, MessageContext, ObjectCipher, TAG_LEN};
use crate::format::header::{HEADER_LEN, Header, MODE_ROOT, ObjectKind};
use crate::ids::RepositoryId;

/// Length of the salt in bits.
const SALT_BITS: usize = 256;

/// Whether `object`, which does not open as a record object of `kind`, was sealed as one with these keys and altered since. That is
/// certain where this says so: nobody without the keys can make bytes of which it does. It sees a single altered bit wherever it is, and any
/// number of them that spare the salt, and either the commitment or all else.
pub fn was_sealed(kind: ObjectKind, object: &[u8], keys: &KeySet, repository: &RepositoryId) -> bool {
    let Some((header, message)) = object.split_first_chunk::<HEADER_LEN>() else { return false };
    let Some(key) = kind.purpose().and_then(|purpose| keys.sealing(purpose)) else { return false };
    let (salt, commitment) = (*part::<16>(header), *part::<48>(header));
    // What stands before the salt is the same in all of them: whether it still does makes no difference.
    let cipher = |salt| {
        let header = Header { kind, mode: MODE_ROOT, flags: 0, epoch: 0, salt, commitment };
        ObjectCipher::derive(key, repository, &header.prefix())
    };
    let is_committed_to = |salt| *cipher(salt).commitment() == commitment;
    let flipped = |bit: usize| {
        let mut salt = salt;
        salt[bit / 8] ^= 1 << (bit % 8);
        salt
    };
    let opens = || {
        let raw_len = message.len().saturating_sub(TAG_LEN) as u64;
        let context = MessageContext { position: HEADER_LEN as u64, raw_len };
        cipher(salt).open(context, &mut message.to_vec()).is_ok()
    };
    is_committed_to(salt) || (0..SALT_BITS).map(flipped).any(is_committed_to) || opens()
}

/// 32 bytes of the header, from byte `AT` on.
fn part<const AT: usize>(header: &[u8; HEADER_LEN]) -> &[u8; 32] {
    header[AT..].first_chunk().expect("a header is long enough")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RootSecret, SeededEntropy};
    use crate::format::header::Sealer;
    use crate::format::record;

    #[test]
    fn what_was_sealed_is_known_for_it_whichever_bit_is_altered() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer { keys: &keys, repository: &repository, entropy: &entropy };
        let seal = |kind| record::seal_object(kind, &"what was said".to_owned(), &sealer).expect("short");
        let object = seal(ObjectKind::Log);
        let was_ours = |object: &[u8]| was_sealed(ObjectKind::Log, object, &keys, &repository);
        for bit in 0..object.len() * 8 {
            let mut altered = object.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(was_ours(&altered), "bit {bit}");
        }
        // Or of which only the beginning is left.
        assert!(was_ours(&object[..HEADER_LEN]) && was_ours(&object[..object.len() - 1]));
        assert!(!was_ours(&object[..HEADER_LEN - 1]) && !was_ours(&vec![0; object.len()]));
        assert!(!was_ours(&seal(ObjectKind::Ledger)), "another kind under the same key");
        let others = KeySet::derive(&RootSecret::from_bytes([8; 32]));
        assert!(!was_sealed(ObjectKind::Log, &object, &others, &repository));
        assert!(!was_sealed(ObjectKind::Log, &object, &keys, &RepositoryId::from_bytes([1; 16])));
    }
}
