//! Sealing for the holder of the root secret: X25519 (RFC 7748) to a public key of the repository, so that who
//! seals an object need not be able to open it, nor any other. See `format-spec`, Append-only keyslots.

use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::crypto::keys::SecretKey;
use crate::crypto::seal::{SealError, fill_and_wipe};
use crate::crypto::{Entropy, random};

/// BLAKE3 context of what takes the place of a purpose's key.
pub const PACK_CONTEXT: &str = "strongroom v1 2026-11-28 pack for a recipient";

/// A public key of the repository: who has it can seal for its secret. It is kept in keyslots and shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct RecipientKey([u8; 32]);

impl RecipientKey {
    /// Takes key bytes over.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be kept in a keyslot.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key for a new object, and the public key that has to stand in the object's header.
    pub(crate) fn seal(&self, entropy: &dyn Entropy) -> ([u8; 32], SecretKey) {
        let scalar = Zeroizing::new(random(entropy));
        let secret = StaticSecret::from(*scalar);
        let ephemeral = PublicKey::from(&secret).to_bytes();
        let shared = secret.diffie_hellman(&PublicKey::from(self.0));
        (ephemeral, derive(shared.as_bytes(), &ephemeral, &self.0))
    }
}

impl std::fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecipientKey")
    }
}

/// The secret half of a [`RecipientKey`]. Wiped when dropped.
pub struct RecipientSecret(StaticSecret);

impl RecipientSecret {
    /// The X25519 secret with these bytes.
    pub(crate) fn new(secret: &SecretKey) -> Self {
        Self(StaticSecret::from(*secret.expose()))
    }

    /// The public half.
    pub fn public(&self) -> RecipientKey {
        RecipientKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The key of an object whose header has the public key `ephemeral`.
    ///
    /// # Errors
    /// [`SealError::Commitment`] where that is a point of small order: everybody would know the key.
    pub(crate) fn open(&self, ephemeral: &[u8; 32]) -> Result<SecretKey, SealError> {
        let shared = self.0.diffie_hellman(&PublicKey::from(*ephemeral));
        if !shared.was_contributory() {
            return Err(SealError::Commitment);
        }
        Ok(derive(shared.as_bytes(), ephemeral, self.public().as_bytes()))
    }
}

/// `derive_key(context, shared ‖ ephemeral ‖ recipient)`.
fn derive(shared: &[u8; 32], ephemeral: &[u8; 32], recipient: &[u8; 32]) -> SecretKey {
    let mut hasher = blake3::Hasher::new_derive_key(PACK_CONTEXT);
    hasher.update(shared).update(ephemeral).update(recipient);
    let mut key = Zeroizing::new([0; 32]);
    fill_and_wipe(hasher, key.as_mut());
    SecretKey::from_bytes(*key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::SeededEntropy;

    fn secret(n: u8) -> RecipientSecret {
        RecipientSecret::new(&SecretKey::from_bytes([n; 32]))
    }

    #[test]
    fn only_the_recipient_finds_the_key_again() {
        let entropy = SeededEntropy::new(1);
        let (ephemeral, key) = secret(1).public().seal(&entropy);
        assert_eq!(secret(1).open(&ephemeral).expect("sealed for it").expose(), key.expose());
        assert_ne!(secret(2).open(&ephemeral).expect("some key").expose(), key.expose());
        let (other, _) = secret(1).public().seal(&entropy);
        assert_ne!(other, ephemeral, "new for every object");
    }

    #[test]
    fn points_of_small_order_are_refused() {
        let mut one = [0; 32];
        one[0] = 1;
        for point in [[0; 32], one] {
            assert_eq!(secret(1).open(&point).err(), Some(SealError::Commitment));
        }
    }
}
