//! What blobs of the source are called in the target: a hash table in a file, so that memory does not grow with it.
//!
//! Ids are keyed hashes: their first bytes are the place to begin the search at. A slot holds both names; an empty one is zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::ids::BlobId;
use crate::spill::unnamed;

/// Bytes of a slot: two ids.
const SLOT_LEN: usize = 64;
/// Slots of a new table: 4 MiB.
const SLOTS_MIN: u64 = 64 << 10;
/// Slots that are moved at a time when the table grows.
const MOVED_SLOTS: usize = 1024;

const EMPTY: [u8; 32] = [0; 32];
/// Stands for a new name that is not known yet.
const MET: [u8; 32] = [0xff; 32];

type Slot = [u8; SLOT_LEN];

/// Where slots are.
enum Slots {
    File(File),
    Memory(Vec<u8>),
}

/// New names by old ones.
pub(super) struct Renames {
    place: Option<PathBuf>,
    slots: Slots,
    /// A power of two.
    count: u64,
    used: u64,
}

impl Slots {
    fn new(place: Option<&Path>, count: u64) -> io::Result<Self> {
        let len = count * SLOT_LEN as u64;
        // Where no file can be made, memory has to do.
        if let Some(file) = place.and_then(|place| unnamed::file(place).ok()) {
            file.set_len(len)?;
            return Ok(Self::File(file));
        }
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
        Ok(Self::Memory(vec![0; len]))
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(bytes, at),
            Self::Memory(all) => {
                let at = usize::try_from(at).expect("it is within memory");
                bytes.copy_from_slice(&all[at..at + bytes.len()]);
                Ok(())
            }
        }
    }

    fn write(&mut self, at: u64, slot: &Slot) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(slot, at),
            Self::Memory(all) => {
                let at = usize::try_from(at).expect("it is within memory");
                all[at..at + SLOT_LEN].copy_from_slice(slot);
                Ok(())
            }
        }
    }
}

impl Renames {
    /// An empty table in an unnamed file in `place`, or in memory.
    pub fn new(place: Option<&Path>) -> io::Result<Self> {
        let slots = Slots::new(place, SLOTS_MIN)?;
        Ok(Self { place: place.map(Path::to_owned), slots, count: SLOTS_MIN, used: 0 })
    }

    /// The slot of an id, or the empty one where it would go, with its place in bytes.
    fn find(&self, old: &BlobId) -> io::Result<(u64, Slot)> {
        let first = old.as_bytes().first_chunk().expect("ids have 32 bytes");
        let mut at = u64::from_le_bytes(*first) & (self.count - 1);
        loop {
            let mut slot = [0; SLOT_LEN];
            self.slots.read(at * SLOT_LEN as u64, &mut slot)?;
            if slot[..32] == *old.as_bytes() || slot[..32] == EMPTY {
                return Ok((at * SLOT_LEN as u64, slot));
            }
            at = (at + 1) & (self.count - 1);
        }
    }

    fn put(&mut self, old: &BlobId, new: &[u8; 32]) -> io::Result<()> {
        // No blob has this id but by an accident that does not happen: it would never be found.
        if *old.as_bytes() == EMPTY {
            return Ok(());
        }
        if (self.used + 1) * 3 > self.count * 2 {
            self.grow()?;
        }
        let (at, mut slot) = self.find(old)?;
        self.used += u64::from(slot[..32] == EMPTY);
        slot[..32].copy_from_slice(old.as_bytes());
        slot[32..].copy_from_slice(new);
        self.slots.write(at, &slot)
    }

    fn grow(&mut self) -> io::Result<()> {
        let count = self.count * 2;
        let slots = Slots::new(self.place.as_deref(), count)?;
        let mut larger = Self { place: self.place.take(), slots, count, used: 0 };
        let mut moved = vec![0; MOVED_SLOTS * SLOT_LEN];
        for first in (0..self.count).step_by(MOVED_SLOTS) {
            self.slots.read(first * SLOT_LEN as u64, &mut moved)?;
            for slot in moved.chunks_exact(SLOT_LEN).filter(|slot| slot[..32] != EMPTY) {
                let half = |at: usize| slot[at..at + 32].try_into().expect("32 bytes");
                larger.put(&BlobId::from_bytes(half(0)), &half(32))?;
            }
        }
        *self = larger;
        Ok(())
    }

    /// Notes a new name.
    pub fn insert(&mut self, old: &BlobId, new: &BlobId) -> io::Result<()> {
        self.put(old, new.as_bytes())
    }

    /// The new name, if it is known.
    pub fn get(&self, old: &BlobId) -> io::Result<Option<BlobId>> {
        let (_, slot) = self.find(old)?;
        let new: [u8; 32] = slot[32..].try_into().expect("32 bytes");
        Ok((slot[..32] != EMPTY && new != MET).then(|| BlobId::from_bytes(new)))
    }

    /// Notes that a blob was met: true the first time.
    pub fn meet(&mut self, old: &BlobId) -> io::Result<bool> {
        let is_new = self.find(old)?.1[..32] == EMPTY;
        if is_new {
            self.put(old, &MET)?;
        }
        Ok(is_new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> BlobId {
        BlobId::from_bytes(blake3::hash(&number.to_le_bytes()).into())
    }

    #[test]
    fn names_come_back_however_many_there_are() {
        for place in [None, Some(std::env::temp_dir())] {
            let mut renames = Renames::new(place.as_deref()).unwrap();
            let many = 100_000;
            for number in 0..many {
                assert!(renames.meet(&id(number)).unwrap(), "{number}");
                assert_eq!(renames.get(&id(number)).unwrap(), None, "met, but without a name");
                renames.insert(&id(number), &id(number + many)).unwrap();
            }
            assert!(renames.count > SLOTS_MIN, "it has grown");
            for number in 0..many {
                assert_eq!(renames.get(&id(number)).unwrap(), Some(id(number + many)));
                assert!(!renames.meet(&id(number)).unwrap());
            }
            assert_eq!(renames.get(&id(many)).unwrap(), None);
            assert_eq!(renames.used, u64::from(many));
        }
    }

    #[test]
    fn ids_that_want_one_slot_do_not_hide_each_other() {
        let mut renames = Renames::new(None).unwrap();
        let same_place = |last: u8| {
            let mut bytes = [0xff; 32];
            bytes[31] = last;
            BlobId::from_bytes(bytes)
        };
        for last in 0..100 {
            renames.insert(&same_place(last), &id(u32::from(last))).unwrap();
        }
        for last in 0..100 {
            assert_eq!(renames.get(&same_place(last)).unwrap(), Some(id(u32::from(last))));
        }
    }
}
