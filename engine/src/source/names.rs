//! Names of one directory in order, kept in two allocations however many there are.

/// Names of a directory's entries in ascending byte order, each once.
///
/// Takes 8 bytes an entry and the bytes of the names.
#[derive(Debug, Clone, Default)]
pub struct Names {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    start: u32,
    length: u16,
}

impl Slot {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..][..usize::from(self.length)]
    }
}

impl Names {
    /// Adds a name behind the others; [`Names::sort`] makes the order good again.
    pub(super) fn push(&mut self, name: &[u8]) {
        if self.slots.is_empty() {
            // What most directories need, so that they are read without moving anything.
            self.bytes.reserve(480);
            self.slots.reserve(24);
        }
        let start = u32::try_from(self.bytes.len()).expect("a listing begins anew long before 4 GiB");
        let length = u16::try_from(name.len()).expect("a directory record is shorter than 64 KiB");
        self.slots.push(Slot { start, length });
        self.bytes.extend_from_slice(name);
    }

    /// Brings the names in order. A name that the system listed twice, as may happen while entries are being
    /// renamed, is kept once.
    pub(super) fn sort(&mut self) {
        let bytes = &self.bytes;
        self.slots.sort_unstable_by(|a, b| a.name(bytes).cmp(b.name(bytes)));
        self.slots.dedup_by(|a, b| a.name(bytes) == b.name(bytes));
    }

    /// Bytes of memory in use.
    pub fn weight(&self) -> usize {
        self.bytes.len() + self.slots.len() * size_of::<Slot>()
    }

    /// Number of names.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The name at `position` in the order of names.
    pub fn get(&self, position: usize) -> Option<&[u8]> {
        self.slots.get(position).map(|slot| slot.name(&self.bytes))
    }

    /// Whether `name` is among them, by binary search.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.slots.binary_search_by(|slot| slot.name(&self.bytes).cmp(name)).is_ok()
    }

    /// All names in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.slots.iter().map(|slot| slot.name(&self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&[u8]]) -> Names {
        let mut names = Names::default();
        for name in list {
            names.push(name);
        }
        names.sort();
        names
    }

    #[test]
    fn order_is_that_of_bytes() {
        let names = names(&[b"b", b"\xff", b"a.b", b"a", b"a-", b"B", b"\n", "ä".as_bytes()]);
        let found: Vec<_> = names.iter().collect();
        let expected: [&[u8]; 8] = [b"\n", b"B", b"a", b"a-", b"a.b", b"b", "ä".as_bytes(), b"\xff"];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_name_listed_twice_is_kept_once() {
        let names = names(&[b"x", b"y", b"x"]);
        assert_eq!(names.len(), 2);
        assert_eq!(names.get(1), Some(b"y".as_slice()));
        assert_eq!(names.get(2), None);
    }

    #[test]
    fn contains_needs_the_whole_name() {
        let names = names(&[b"ab", b"abc", b"b"]);
        assert!(names.contains(b"abc"));
        assert!(!names.contains(b"a"));
        assert!(!names.contains(b"abcd"));
    }

    #[test]
    fn a_slot_stays_small() {
        assert_eq!(size_of::<Slot>(), 8);
    }
}
