//! From a password to a key: Argon2id (RFC 9106) with parameters stored per keyslot and held between a floor
//! and a cap, so that neither a weak nor an exhausting keyslot is ever accepted.

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::Zeroizing;

/// A password as typed or read. Wiped when dropped.
pub struct Password {
    bytes: Zeroizing<Vec<u8>>,
    /// Bytes of memory that trying it may take.
    memory_max: u64,
}

impl Password {
    /// Takes the bytes over; the empty password is refused where one is set, not here.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes), memory_max: u64::MAX }
    }

    /// The same, for which Argon2id may take so many bytes of memory and no more.
    #[must_use]
    pub fn within(self, memory_max: u64) -> Self {
        Self { memory_max, ..self }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// Cost of a password guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for KdfParams {
    /// RFC 9106's second recommended option: 64 MiB, 3 passes, 4 lanes. About 0.13 s of processor time, which the lanes share.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

/// Argon2id parameters outside what this version accepts, or the derivation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KdfError {
    /// A parameter is out of bounds.
    #[error("the keyslot's Argon2id {what} is {found}, but only {min} to {max} is accepted")]
    OutOfBounds {
        /// Which parameter.
        what: &'static str,
        /// Its value.
        found: u32,
        /// Smallest accepted value.
        min: u32,
        /// Largest accepted value.
        max: u32,
    },
    /// It takes more memory than it may.
    #[error(
        "trying the password takes {needed} KiB of memory with Argon2id, more than the {allowed} KiB that it may take"
    )]
    Memory {
        /// KiB that it takes.
        needed: u32,
        /// KiB that it may take.
        allowed: u64,
    },
    /// Argon2id itself refused or could not get its memory.
    #[error("Argon2id failed: {0}")]
    Failed(argon2::Error),
}

impl KdfParams {
    /// The smallest memory accepted, in KiB: OWASP's minimum for Argon2id is 19 MiB with two passes.
    pub const MEMORY_KIB_MIN: u32 = 19 * 1024;
    /// The largest memory accepted, in KiB.
    pub const MEMORY_KIB_MAX: u32 = 1024 * 1024;
    /// The fewest passes accepted.
    pub const PASSES_MIN: u32 = 2;
    /// The most passes accepted.
    pub const PASSES_MAX: u32 = 64;
    /// The most lanes accepted.
    pub const LANES_MAX: u32 = 16;

    /// Whether all parameters are in bounds.
    ///
    /// # Errors
    /// [`KdfError::OutOfBounds`] naming the first that is not.
    pub fn check(&self) -> Result<(), KdfError> {
        let bounds = [
            ("memory in KiB", self.memory_kib, Self::MEMORY_KIB_MIN, Self::MEMORY_KIB_MAX),
            ("number of passes", self.passes, Self::PASSES_MIN, Self::PASSES_MAX),
            ("number of lanes", self.lanes, 1, Self::LANES_MAX),
        ];
        match bounds.into_iter().find(|(_, found, min, max)| !(min..=max).contains(&found)) {
            Some((what, found, min, max)) => Err(KdfError::OutOfBounds { what, found, min, max }),
            None => Ok(()),
        }
    }

    /// Whether all parameters are in bounds, and the password may take the memory.
    ///
    /// # Errors
    /// [`KdfError::OutOfBounds`] or [`KdfError::Memory`].
    pub fn check_for(&self, password: &Password) -> Result<(), KdfError> {
        self.check()?;
        match password.memory_max >> 10 {
            allowed if allowed < self.memory_kib.into() => {
                Err(KdfError::Memory { needed: self.memory_kib, allowed })
            }
            _ => Ok(()),
        }
    }

    /// Argon2id version 0x13 of `password` and `salt`, 32 bytes.
    ///
    /// # Errors
    /// Parameters out of bounds, more memory than the password may take, or none.
    pub fn derive(&self, password: &Password, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, KdfError> {
        self.check_for(password)?;
        #[cfg(any(test, feature = "testing"))]
        return memo::derive(self, password, salt);
        #[cfg(not(any(test, feature = "testing")))]
        self.argon2id(password, salt)
    }

    fn argon2id(&self, password: &Password, salt: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, KdfError> {
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(KdfError::Failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&password.bytes, salt, key.as_mut())
            .map_err(KdfError::Failed)?;
        Ok(key)
    }
}

/// Keys that tests have derived before: simulations open the same keyslot ten thousands of times, and would do little but derive its key.
#[cfg(any(test, feature = "testing"))]
mod memo {
    use std::collections::HashMap;
    use std::sync::{LazyLock, Mutex};

    use super::{KdfError, KdfParams, Password, Zeroizing};

    /// The costs, the password and the salt.
    type Input = ((u32, u32, u32), Vec<u8>, [u8; 32]);

    static KEYS: LazyLock<Mutex<HashMap<Input, [u8; 32]>>> = LazyLock::new(Mutex::default);

    pub fn derive(
        params: &KdfParams,
        password: &Password,
        salt: &[u8; 32],
    ) -> Result<Zeroizing<[u8; 32]>, KdfError> {
        let costs = (params.memory_kib, params.passes, params.lanes);
        let input = (costs, password.bytes.to_vec(), *salt);
        if let Some(key) = KEYS.lock().expect("whole").get(&input) {
            return Ok(Zeroizing::new(*key));
        }
        let key = params.argon2id(password, salt)?;
        KEYS.lock().expect("whole").insert(input, *key);
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_outside_the_bounds_are_refused_before_any_work() {
        let bad = [
            KdfParams { memory_kib: 8, ..KdfParams::default() },
            KdfParams { memory_kib: u32::MAX, ..KdfParams::default() },
            KdfParams { passes: 1, ..KdfParams::default() },
            KdfParams { passes: 1000, ..KdfParams::default() },
            KdfParams { lanes: 0, ..KdfParams::default() },
        ];
        for params in bad {
            let result = params.derive(&Password::new(b"p".to_vec()), &[0; 32]);
            assert!(matches!(result, Err(KdfError::OutOfBounds { .. })), "{params:?}");
        }
    }

    #[test]
    fn memory_that_may_not_be_taken_is_not_taken() {
        let most =
            KdfParams { memory_kib: KdfParams::MEMORY_KIB_MAX, passes: KdfParams::PASSES_MAX, lanes: 1 };
        let password = || Password::new(b"p".to_vec());
        let refused = most.derive(&password().within((1 << 30) - 1), &[0; 32]);
        assert_eq!(
            refused.expect_err("a byte is missing").to_string(),
            "trying the password takes 1048576 KiB of memory with Argon2id, more than the 1048575 KiB that it may take"
        );
        let least = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };
        let enough = u64::from(least.memory_kib) << 10;
        let derived = least.derive(&password().within(enough), &[0; 32]).expect("just enough");
        // Not the key that tests remember.
        assert_eq!(derived, least.argon2id(&password(), &[0; 32]).expect("nothing was said"));
    }

    #[test]
    fn password_and_salt_both_matter() {
        let params = KdfParams { memory_kib: KdfParams::MEMORY_KIB_MIN, passes: 2, lanes: 1 };
        let key = |p: &[u8], s| params.derive(&Password::new(p.to_vec()), &[s; 32]).expect("in bounds");
        assert_eq!(key(b"a", 1), key(b"a", 1));
        assert_ne!(key(b"a", 1), key(b"b", 1));
        assert_ne!(key(b"a", 1), key(b"a", 2));
    }
}
