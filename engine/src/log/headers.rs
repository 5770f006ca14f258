//! Headers of entries, by which copies of them are known that stand under other numbers, altered or not: whoever can create files can make
//! such without any key, so they prove nothing.

use crate::backend::{Backend, BackendError, ObjectKey};
use crate::format::header::{HEADER_LEN, Header, ObjectKind};

/// The header of an object as it is stored.
pub(super) type RawHeader = [u8; HEADER_LEN];

/// Bytes of a header before its salt: the same in all commits.
const PREFIX_LEN: usize = 16;
/// Where the salt ends and the commitment begins.
const SALT_END: usize = PREFIX_LEN + 32;

/// Headers of the entries from the first on: each is read once, and none before something has to be compared with it.
#[derive(Default)]
pub(super) struct Headers {
    read: Vec<Option<RawHeader>>,
}

impl Headers {
    /// Whether a header was made from that of an entry below number `end`. An entry that has none, or none that can be read, is passed over.
    ///
    /// # Errors
    /// [`BackendError`] where the storage fails.
    pub fn have_copied(
        &mut self,
        backend: &dyn Backend,
        end: u64,
        header: &RawHeader,
    ) -> Result<bool, BackendError> {
        for seq in self.read.len() as u64 + 1..end {
            match header_of(backend, &ObjectKey::log(seq)) {
                Ok(header) => self.read.push(Some(header)),
                Err(error) if error.is_loss() => self.read.push(None),
                Err(error) => return Err(error),
            }
        }
        Ok(self.read.iter().zip(1..end).any(|(of, _)| of.as_ref().is_some_and(|of| is_copy(header, of))))
    }
}

/// The header of a stored object.
///
/// # Errors
/// [`BackendError`] where it cannot be read, or is too short for one.
pub(super) fn header_of(backend: &dyn Backend, key: &ObjectKey) -> Result<RawHeader, BackendError> {
    let mut header = [0; HEADER_LEN];
    backend.read_range(key, 0, &mut header).map(|()| header)
}

/// Whether a header begins as those of all commits do.
pub(super) fn is_commits(header: &RawHeader) -> bool {
    let (salt, commitment) = ([0; 32], [0; 32]);
    let any = Header { kind: ObjectKind::Log, mode: 0, flags: 0, epoch: 0, salt, commitment };
    header[..PREFIX_LEN] == any.encode()[..PREFIX_LEN]
}

/// Whether a header was made from another one: it has its commitment, or its salt but for a bit.
fn is_copy(header: &RawHeader, of: &RawHeader) -> bool {
    let bits = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    let salts = header[PREFIX_LEN..SALT_END].iter().zip(&of[PREFIX_LEN..SALT_END]);
    header[SALT_END..] == of[SALT_END..] || salts.map(bits).sum::<u32>() <= 1
}
