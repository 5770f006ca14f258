//! Keys and sealing: thin, typed use of audited crates. No algorithm is implemented here.

pub mod kdf;
pub mod keys;
pub mod recipient;
pub mod seal;

pub use kdf::{KdfError, KdfParams, Password};
pub use keys::{AppendKeys, KeySet, Purpose, RootSecret};
pub use recipient::{RecipientKey, RecipientSecret};
pub use seal::{MessageContext, ObjectCipher, SealError, TAG_LEN, cipher_instructions};

/// Source of random bytes for salts and secrets: the operating system's, or a seeded one in tests.
pub trait Entropy: Send + Sync {
    /// Fills `buffer` with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// The operating system's generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        getrandom::fill(buffer).expect("the operating system's random generator works");
    }
}

/// `N` fresh random bytes.
pub fn random<const N: usize>(entropy: &dyn Entropy) -> [u8; N] {
    let mut bytes = [0; N];
    entropy.fill(&mut bytes);
    bytes
}

/// Repeatable bytes for tests, vectors and simulations. Never for a real repository.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug)]
pub struct SeededEntropy(std::sync::Mutex<blake3::OutputReader>);

#[cfg(any(test, feature = "testing"))]
impl SeededEntropy {
    /// A generator whose whole output follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("strongroom seeded test entropy");
        hasher.update(&seed.to_le_bytes());
        Self(std::sync::Mutex::new(hasher.finalize_xof()))
    }
}

#[cfg(any(test, feature = "testing"))]
impl Entropy for SeededEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        self.0.lock().expect("no holder of this lock panics").fill(buffer);
    }
}
