//! The names of one directory, kept in two allocations however many there are.

use super::stat::SourceKind;

/// Names of a directory's entries in ascending byte order, each once.
///
/// Takes 16 bytes an entry and the bytes of the names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

/// One entry as a directory lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// What the directory says it is: a hint to order work by; some file systems do not tell.
    pub kind: Option<SourceKind>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: usize,
    length: u16,
    kind: Option<SourceKind>,
}

impl Slot {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..][..usize::from(self.length)]
    }

    fn entry(self, bytes: &[u8]) -> Entry<'_> {
        Entry { name: self.name(bytes), kind: self.kind }
    }
}

impl Names {
    /// Adds a name; [`Names::sort`] makes the order good again.
    pub(super) fn push(&mut self, name: &[u8], kind: Option<SourceKind>) {
        if self.slots.is_empty() {
            // What most directories need, so that they are read without moving anything.
            self.bytes.reserve(480);
            self.slots.reserve(24);
        }
        let length = u16::try_from(name.len()).expect("a directory record is shorter than 64 KiB");
        self.slots.push(Slot { start: self.bytes.len(), length, kind });
        self.bytes.extend_from_slice(name);
    }

    /// Brings the names in order. A name that the system listed twice, as may happen while entries are being
    /// renamed, is kept once.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| a.name(bytes).cmp(b.name(bytes)));
        self.slots.dedup_by(|a, b| a.name(bytes) == b.name(bytes));
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The entry at `position` in the order of names.
    pub fn get(&self, position: usize) -> Option<Entry<'_>> {
        self.slots.get(position).map(|slot| slot.entry(&self.bytes))
    }

    /// The entry called `name`, by binary search.
    pub fn find(&self, name: &[u8]) -> Option<Entry<'_>> {
        let position = self.slots.binary_search_by(|slot| slot.name(&self.bytes).cmp(name)).ok()?;
        self.get(position)
    }

    /// All entries in the order of names.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Entry<'_>> + ExactSizeIterator {
        self.slots.iter().map(|slot| slot.entry(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&[u8]]) -> Names {
        let mut names = Names::default();
        for name in list {
            names.push(name, Some(SourceKind::File));
        }
        names.sort();
        names
    }

    #[test]
    fn order_is_that_of_bytes() {
        let names = names(&[b"b", b"\xff", b"a.b", b"a", b"a-", b"B", b"\n", "ä".as_bytes()]);
        let found: Vec<_> = names.iter().map(|entry| entry.name).collect();
        let expected: [&[u8]; 8] = [b"\n", b"B", b"a", b"a-", b"a.b", b"b", "ä".as_bytes(), b"\xff"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_listed_twice_is_kept_once() {
        let names = names(&[b"x", b"y", b"x"]);
        assert_eq!(names.len(), 2);
        assert_eq!(names.get(1).map(|entry| entry.name), Some(b"y".as_slice()));
        assert_eq!(names.get(2), None);
    }

    #[test]
    fn find_needs_the_whole_name() {
        let names = names(&[b"ab", b"abc", b"b"]);
        assert_eq!(names.find(b"abc").map(|entry| entry.name), Some(b"abc".as_slice()));
        assert_eq!(names.find(b"a"), None);
        assert_eq!(names.find(b"abcd"), None);
    }

    #[test]
    fn a_slot_stays_small() {
        assert_eq!(size_of::<Slot>(), 16);
    }
}
