//! The verification ledger: when each pack was last looked at, how, and what came of it. Advice about what to verify
//! next, and which of several copies of a blob to rely on; no data rests on it. See `format-spec`, Verification ledger.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::crypto::KeySet;
use crate::format::header::{ObjectKind, Sealer};
use crate::format::record::{self, RecordError};
use crate::format::tree::Timestamp;
use crate::ids::{LedgerId, PackId, RepositoryId};

/// How a pack was verified; each way proves all that those before it prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// It is there, as long as the index says, and its header and directory are right.
    Listed,
    /// All its bytes hash to its id.
    Hashed,
    /// All its blocks were opened and decoded, and all blobs in it have the ids they should.
    Read,
}

/// A pack was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verification {
    /// The pack.
    pub pack: PackId,
    /// How.
    pub method: Method,
    /// Whether it was what it should be.
    pub is_intact: bool,
    /// When, by the verifier's clock.
    pub time: Timestamp,
}

/// What is known of all packs: of each the last verification by each method that no later one by a stronger
/// method has outdated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Ascending by pack and method.
    entries: Vec<Verification>,
}

/// The ledger as stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerRecord {
    /// Ascending by time, method and result.
    verified: Vec<Group>,
}

/// Packs that one check verified in the same way with the same result.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    time: Timestamp,
    method: Method,
    intact: bool,
    /// Ids one after the other, ascending.
    packs: ByteBuf,
}

/// Why an object is no valid ledger.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It does not open, or holds no ledger.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It contradicts the rules for ledgers.
    #[error("the ledger is malformed: {0}")]
    Malformed(&'static str),
}

/// Id of a stored ledger object.
pub fn id(object: &[u8]) -> LedgerId {
    LedgerId::from_bytes(blake3::hash(object).into())
}

impl Ledger {
    /// All verifications, ascending by pack and method.
    pub fn entries(&self) -> &[Verification] {
        &self.entries
    }

    /// What is known of a pack, ascending by method.
    pub fn of(&self, pack: &PackId) -> &[Verification] {
        let start = self.entries.partition_point(|entry| entry.pack < *pack);
        let len = self.entries[start..].partition_point(|entry| entry.pack == *pack);
        &self.entries[start..start + len]
    }

    /// The last verification of a pack by this method or a stronger one, the weakest of these: it is the latest.
    pub fn last(&self, pack: &PackId, method: Method) -> Option<&Verification> {
        self.of(pack).iter().find(|entry| entry.method >= method)
    }

    /// Whether some verification found the pack damaged and none as strong has found it intact since.
    pub fn is_in_doubt(&self, pack: &PackId) -> bool {
        self.of(pack).iter().any(|entry| !entry.is_intact)
    }

    /// All packs of which that is so.
    pub fn in_doubt(&self) -> BTreeSet<PackId> {
        self.entries.iter().filter(|entry| !entry.is_intact).map(|entry| entry.pack).collect()
    }

    /// The ledger after more verifications, of the packs that `keep` chooses. Which is later is decided by the order
    /// of recording, not by clocks.
    #[must_use]
    pub fn after(&self, news: &[Verification], keep: &dyn Fn(&PackId) -> bool) -> Self {
        // Of one pack, what a weaker method said is the later.
        let in_order = self.entries.iter().rev().chain(news).enumerate();
        let mut entries: Vec<(usize, &Verification)> =
            in_order.filter(|(_, entry)| keep(&entry.pack)).collect();
        // Latest first, so that each is kept unless one by the same or a stronger method was kept before it.
        entries.sort_unstable_by_key(|(order, entry)| (entry.pack, std::cmp::Reverse(*order)));
        let mut kept: Vec<Verification> = Vec::new();
        for (_, entry) in entries {
            let is_outdated =
                kept.last().is_some_and(|last| last.pack == entry.pack && last.method >= entry.method);
            if !is_outdated {
                kept.push(*entry);
            }
        }
        Self { entries: kept }
    }

    /// Seals the ledger as an object.
    ///
    /// # Errors
    /// [`RecordError::TooLong`] for more than two million packs.
    pub fn seal(&self, sealer: &Sealer<'_>) -> Result<Vec<u8>, RecordError> {
        let mut groups: BTreeMap<(Timestamp, Method, bool), Vec<u8>> = BTreeMap::new();
        for entry in &self.entries {
            let packs = groups.entry((entry.time, entry.method, entry.is_intact)).or_default();
            packs.extend_from_slice(entry.pack.as_bytes());
        }
        let groups = groups.into_iter().map(|((time, method, intact), packs)| Group {
            time,
            method,
            intact,
            packs: ByteBuf::from(packs),
        });
        record::seal_object(ObjectKind::Ledger, &LedgerRecord { verified: groups.collect() }, sealer)
    }

    /// Opens a stored ledger.
    ///
    /// # Errors
    /// [`LedgerError`] for anything that [`Ledger::seal`] would not have made.
    pub fn open(object: Vec<u8>, keys: &KeySet, repository: &RepositoryId) -> Result<Self, LedgerError> {
        let record: LedgerRecord = record::open_object(ObjectKind::Ledger, object, keys, repository)?;
        let order = |group: &Group| (group.time, group.method, group.intact);
        if !record.verified.is_sorted_by(|a, b| order(a) < order(b)) {
            return Err(LedgerError::Malformed("its groups are not in order"));
        }
        let mut entries = Vec::new();
        for group in record.verified {
            let (packs, rest) = group.packs.as_chunks::<{ PackId::LEN }>();
            if packs.is_empty() || !rest.is_empty() || !packs.is_sorted_by(|a, b| a < b) {
                return Err(LedgerError::Malformed("a group's packs are not ids in order"));
            }
            entries.extend(packs.iter().map(|pack| Verification {
                pack: PackId::from_bytes(*pack),
                method: group.method,
                is_intact: group.intact,
                time: group.time,
            }));
        }
        entries.sort_unstable_by_key(|entry| (entry.pack, entry.method));
        if !entries.is_sorted_by(|a, b| (a.pack, a.method) < (b.pack, b.method)) {
            return Err(LedgerError::Malformed("it has two verifications of a pack by the same method"));
        }
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{RootSecret, SeededEntropy};

    fn pack(number: u8) -> PackId {
        PackId::from_bytes([number; 32])
    }

    fn verified(number: u8, method: Method, is_intact: bool, seconds: i64) -> Verification {
        Verification { pack: pack(number), method, is_intact, time: Timestamp { seconds, nanos: 0 } }
    }

    #[test]
    fn the_last_word_by_the_strongest_method_stays() {
        let first = Ledger::default().after(
            &[
                verified(1, Method::Read, true, 10),
                verified(1, Method::Listed, true, 20),
                verified(2, Method::Hashed, false, 10),
                verified(3, Method::Listed, true, 10),
            ],
            &|_| true,
        );
        // Listing does not outdate reading, and is the later of the two.
        assert_eq!(first.of(&pack(1)).len(), 2);
        assert_eq!(first.last(&pack(1), Method::Listed).expect("both").time.seconds, 20);
        assert_eq!(first.last(&pack(1), Method::Read).expect("read").time.seconds, 10);
        assert!(first.is_in_doubt(&pack(2)) && !first.is_in_doubt(&pack(1)));
        assert_eq!(first.last(&pack(3), Method::Hashed), None);
        let listed = first.after(&[verified(2, Method::Listed, true, 30)], &|_| true);
        assert_eq!(listed.of(&pack(1)), first.of(&pack(1)), "nothing new of it");
        assert!(listed.is_in_doubt(&pack(2)), "that it is there does not make it sound");
        // The clock went backwards: the order counts.
        let read = listed.after(&[verified(2, Method::Read, true, 5)], &|id| *id != pack(3));
        assert_eq!(read.of(&pack(2)), [verified(2, Method::Read, true, 5)]);
        assert!(read.of(&pack(3)).is_empty(), "not kept");
    }

    #[test]
    fn a_ledger_comes_back_and_a_lying_one_does_not() {
        let keys = KeySet::derive(&RootSecret::from_bytes([7; 32]));
        let repository = RepositoryId::from_bytes([9; 16]);
        let entropy = SeededEntropy::new(1);
        let sealer = Sealer { keys: &keys, repository: &repository, entropy: &entropy };
        let news: Vec<_> = (0..200).map(|n| verified(n, Method::Read, n != 7, i64::from(n % 3))).collect();
        let ledger = Ledger::default().after(&news, &|_| true);
        let object = ledger.seal(&sealer).expect("short");
        assert_eq!(Ledger::open(object.clone(), &keys, &repository).expect("just sealed"), ledger);
        for bit in (0..object.len() * 8).step_by(7) {
            let mut altered = object.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(Ledger::open(altered, &keys, &repository).is_err(), "bit {bit}");
        }
        let group = |seconds, packs: &[u8]| Group {
            time: Timestamp { seconds, nanos: 0 },
            method: Method::Read,
            intact: true,
            packs: ByteBuf::from(packs),
        };
        let two = [[1; 32], [2; 32]].concat();
        for bad in [
            vec![group(2, &two), group(1, &[3; 32])],
            vec![group(1, &[1; 31])],
            vec![group(1, &[])],
            vec![group(1, &[[2; 32], [1; 32]].concat())],
            vec![group(1, &two), group(2, &[2; 32])],
        ] {
            let record = LedgerRecord { verified: bad };
            let object = record::seal_object(ObjectKind::Ledger, &record, &sealer).expect("short");
            let opened = Ledger::open(object, &keys, &repository);
            assert!(matches!(opened, Err(LedgerError::Malformed(_))), "{record:?}: {opened:?}");
        }
    }
}
