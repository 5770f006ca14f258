//! Sealing messages of one object: ChaCha20-Poly1305 (RFC 8439) under a key that only this object has.
//!
//! The nonce is the message's byte position in the object, a counter that cannot repeat because messages do
//! not overlap and an object is written once. The 32-byte commitment beside the key makes up for an AEAD that
//! does not commit to its key. See `format-spec`, Sealing.

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce, Tag};
use zeroize::{Zeroize, Zeroizing};

use crate::crypto::keys::SecretKey;
use crate::ids::RepositoryId;

/// Length of the authentication tag that follows every sealed message.
pub const TAG_LEN: usize = 16;

/// Why sealed bytes could not be opened. No detail on purpose: there is none to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key is not the one the object was sealed under.
    #[error("the key commitment does not match: sealed under another key, or altered")]
    Commitment,
    /// The message or what it is bound to was altered.
    #[error("authentication failed: the bytes were altered or belong elsewhere")]
    Authentication,
    /// The keyslot in use has no key that opens this.
    #[error("the password in use is append-only: it holds no key that opens this")]
    NoKey,
}

/// The instructions that ChaCha20 uses in this build on this processor: `avx512`, `avx2`, `sse2`, `neon`, or `portable`
/// on processors without any of them. All seal alike; the first is more than twice as fast as the second.
///
/// The crate chooses among what it was compiled with: its AVX-512 code is there if this crate was built with
/// `--cfg chacha20_avx512` as well, since the flag is one of the whole build (`.cargo/config.toml`).
pub fn cipher_instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if cfg!(chacha20_avx512)
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512vl")
        {
            return "avx512";
        }
        if is_x86_feature_detected!("avx2") { "avx2" } else { "sse2" }
    }
    #[cfg(not(target_arch = "x86_64"))]
    if cfg!(all(target_arch = "aarch64", target_feature = "neon")) { "neon" } else { "portable" }
}

/// What a message is bound to, besides its object's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageContext {
    /// Offset of the message's first byte in the object.
    pub position: u64,
    /// Length of the data that the message stands for, before compression.
    pub raw_len: u64,
}

/// The cipher of one object.
pub struct ObjectCipher {
    aead: ChaCha20Poly1305,
    /// Repository id and the header bytes that say what kind of object this is.
    binding: [u8; 24],
    commitment: [u8; 32],
    pad_seed: Zeroizing<[u8; 32]>,
}

impl ObjectCipher {
    /// Derives an object's key: `K ‖ C ‖ P = keyed_BLAKE3(purpose key, repository ‖ prefix)`, 96 bytes of output,
    /// where `prefix` is the object header up to and with the salt (48 bytes).
    pub fn derive(purpose_key: &SecretKey, repository: &RepositoryId, prefix: &[u8; 48]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(purpose_key.expose());
        hasher.update(repository.as_bytes()).update(prefix);
        let mut output = Zeroizing::new([0; 96]);
        fill_and_wipe(hasher, output.as_mut());
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&output[..32]);
        let mut commitment = [0; 32];
        commitment.copy_from_slice(&output[32..64]);
        let mut pad_seed = Zeroizing::new([0; 32]);
        pad_seed.copy_from_slice(&output[64..]);
        let mut binding = [0; 24];
        binding[..16].copy_from_slice(repository.as_bytes());
        binding[16..].copy_from_slice(&prefix[8..16]);
        Self { aead: ChaCha20Poly1305::new((&*key).into()), binding, commitment, pad_seed }
    }

    /// The commitment that stands in the object's header.
    pub fn commitment(&self) -> &[u8; 32] {
        &self.commitment
    }

    /// Whether the header's commitment is this key's. The commitment is public, so plain comparison will do.
    ///
    /// # Errors
    /// [`SealError::Commitment`].
    pub fn check_commitment(&self, stored: &[u8; 32]) -> Result<(), SealError> {
        if *stored == self.commitment { Ok(()) } else { Err(SealError::Commitment) }
    }

    /// Bytes that look random, to pad the object with.
    pub fn fill_padding(&self, buffer: &mut [u8]) {
        fill_and_wipe(blake3::Hasher::new_keyed(&self.pad_seed), buffer);
    }

    fn associated_data(&self, context: MessageContext) -> [u8; 40] {
        let mut data = [0; 40];
        data[..24].copy_from_slice(&self.binding);
        data[24..32].copy_from_slice(&context.position.to_le_bytes());
        data[32..].copy_from_slice(&context.raw_len.to_le_bytes());
        data
    }

    fn nonce(context: MessageContext) -> Nonce {
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&context.position.to_le_bytes());
        nonce.into()
    }

    /// Encrypts `message` in place and appends its tag.
    pub fn seal(&self, context: MessageContext, message: &mut Vec<u8>) {
        let tag = self.seal_detached(context, message);
        message.extend_from_slice(&tag);
    }

    /// Encrypts `message` in place and returns its tag.
    pub fn seal_detached(&self, context: MessageContext, message: &mut [u8]) -> [u8; TAG_LEN] {
        let data = self.associated_data(context);
        let tag = self
            .aead
            .encrypt_inout_detached(&Self::nonce(context), &data, message.into())
            .expect("messages are far shorter than the cipher's 256 GiB");
        tag.into()
    }

    /// Decrypts `sealed` in place and returns the plaintext part of it.
    ///
    /// # Errors
    /// [`SealError::Authentication`]; `sealed` then holds nothing of use.
    pub fn open<'a>(&self, context: MessageContext, sealed: &'a mut [u8]) -> Result<&'a mut [u8], SealError> {
        let split = sealed.len().checked_sub(TAG_LEN).ok_or(SealError::Authentication)?;
        let (message, tag) = sealed.split_at_mut(split);
        let tag = Tag::try_from(&*tag).map_err(|_| SealError::Authentication)?;
        let data = self.associated_data(context);
        self.aead
            .decrypt_inout_detached(&Self::nonce(context), &data, (&mut *message).into(), &tag)
            .map_err(|_| SealError::Authentication)?;
        Ok(message)
    }
}

/// Takes the output of a hasher that has secrets in it, and wipes it: dropping it does not, and what its output is read from
/// could give it again.
pub(crate) fn fill_and_wipe(mut hasher: blake3::Hasher, output: &mut [u8]) {
    let mut reader = hasher.finalize_xof();
    reader.fill(output);
    reader.zeroize();
    hasher.zeroize();
}

impl std::fmt::Debug for ObjectCipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObjectCipher(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(salt: u8) -> ObjectCipher {
        let mut prefix = [0; 48];
        prefix[20] = salt;
        ObjectCipher::derive(&SecretKey::from_bytes([1; 32]), &RepositoryId::from_bytes([2; 16]), &prefix)
    }

    #[test]
    fn a_message_opens_only_where_it_was_sealed() {
        let context = MessageContext { position: 80, raw_len: 5 };
        let mut sealed = b"hello".to_vec();
        cipher(0).seal(context, &mut sealed);
        assert_eq!(sealed.len(), 5 + TAG_LEN);
        assert_eq!(cipher(0).open(context, &mut sealed.clone()).expect("intact"), b"hello");

        let elsewhere = [
            (cipher(1), context),
            (cipher(0), MessageContext { position: 81, ..context }),
            (cipher(0), MessageContext { raw_len: 6, ..context }),
        ];
        for (cipher, context) in elsewhere {
            assert_eq!(cipher.open(context, &mut sealed.clone()), Err(SealError::Authentication));
        }
        for len in 0..sealed.len() {
            assert!(cipher(0).open(context, &mut sealed[..len].to_vec()).is_err(), "cut to {len}");
        }
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(cipher(0).open(context, &mut flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn another_key_has_another_commitment() {
        assert_eq!(cipher(0).check_commitment(cipher(1).commitment()), Err(SealError::Commitment));
        assert_eq!(cipher(0).check_commitment(cipher(0).commitment()), Ok(()));
    }
}
