//! A fixed number of opened index pages, shared by all segments and threads.

use std::sync::{Mutex, PoisonError};

use crate::format::segment::{PAGE_LEN, PAGE_PLAIN_LEN, SegmentError};

/// Which page a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageName {
    /// Number that a segment got when it was opened; never given twice.
    pub segment: u64,
    /// Page of the segment.
    pub page: u64,
}

struct Slot {
    name: Option<PageName>,
    plain: Box<[u8; PAGE_LEN]>,
}

/// A direct-mapped cache: memory is fixed, a lookup is one lock that two threads seldom want at once.
pub(super) struct PageCache {
    slots: Box<[Mutex<Slot>]>,
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageCache({} pages)", self.slots.len())
    }
}

impl PageCache {
    /// A cache of `pages` pages of 4 KiB.
    pub fn new(pages: usize) -> Self {
        let slot = || Mutex::new(Slot { name: None, plain: Box::new([0; PAGE_LEN]) });
        Self { slots: (0..pages.max(1)).map(|_| slot()).collect() }
    }

    /// Calls `read` with the page, which `open` has to fill in first where it is not there.
    pub fn with<T>(
        &self,
        name: PageName,
        open: impl FnOnce(&mut [u8; PAGE_LEN]) -> Result<(), SegmentError>,
        read: impl FnOnce(&[u8; PAGE_PLAIN_LEN]) -> T,
    ) -> Result<T, SegmentError> {
        // Neighbouring pages of one segment must not share a slot, nor equal pages of two segments.
        let hash = (name.segment.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(name.page);
        let count = self.slots.len() as u64;
        let index = usize::try_from(hash % count).expect("below the number of slots");
        // A panic while the lock was held can only have left a page that has no name.
        let mut slot = self.slots[index].lock().unwrap_or_else(PoisonError::into_inner);
        if slot.name != Some(name) {
            slot.name = None;
            open(&mut slot.plain)?;
            slot.name = Some(name);
        }
        Ok(read(slot.plain.first_chunk().expect("a page is longer than its plaintext")))
    }
}
