//! A fixed number of opened index pages, shared by all segments and threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::format::segment::{self, PAGE_LEN, PAGE_PLAIN_LEN};

/// Which page a slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageName {
    /// Number that a segment got when it was opened; never given twice.
    pub segment: u64,
    /// Page of the segment.
    pub page: u64,
}

/// What a page is, as far as it matters for keeping it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PageSort {
    /// One of the many.
    Leaf,
    /// One that leads to others, or lists packs.
    Inner,
}

#[derive(Default)]
struct Slot {
    name: Option<PageName>,
    /// Memory is taken when it is first needed.
    page: Option<Box<[u8; PAGE_LEN]>>,
}

/// Direct-mapped: memory is bounded, a lookup is one lock that two threads seldom want at once.
pub(super) struct PageCache {
    leaves: Box<[Mutex<Slot>]>,
    inner: Box<[Mutex<Slot>]>,
    /// How many slots of each are used.
    limit: AtomicUsize,
}

impl std::fmt::Debug for PageCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageCache({} pages)", self.leaves.len() + self.inner.len())
    }
}

impl PageCache {
    /// A cache of `pages` pages of 4 KiB, half of them for leaves: of an index of some hundred thousand blobs these hold all,
    /// so that each page is opened once. Of a large one they hold few, since ids are random, but they never displace the pages
    /// that lead to them.
    pub fn new(pages: usize) -> Self {
        let slots = |count: usize| (0..count.max(1)).map(|_| Mutex::default()).collect();
        let leaves = pages / 2;
        let inner = pages.saturating_sub(leaves);
        Self { leaves: slots(leaves), inner: slots(inner), limit: AtomicUsize::new(inner) }
    }

    /// Uses so many pages from now on, or all that it was made with if those are fewer.
    pub fn keep(&self, pages: usize) {
        self.limit.store(pages / 2, Ordering::Relaxed);
    }

    /// Calls `read` with the page, which `open` has to read and open in place first where it is not there.
    pub fn with<T, E>(
        &self,
        name: PageName,
        sort: PageSort,
        open: impl FnOnce(&mut [u8; PAGE_LEN]) -> Result<(), E>,
        read: impl FnOnce(&[u8; PAGE_PLAIN_LEN]) -> T,
    ) -> Result<T, E> {
        let slots = match sort {
            PageSort::Leaf => &self.leaves,
            PageSort::Inner => &self.inner,
        };
        // Neighbouring pages of one segment must not share a slot, nor equal pages of two segments.
        let hash = (name.segment.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).wrapping_add(name.page);
        let used = self.limit.load(Ordering::Relaxed).clamp(1, slots.len());
        let index = usize::try_from(hash % used as u64).expect("below the number of slots");
        // A panic while the lock was held can only have left a page that has no name.
        let mut slot = slots[index].lock().unwrap_or_else(PoisonError::into_inner);
        let Slot { name: held, page } = &mut *slot;
        let page = page.get_or_insert_with(|| Box::new([0; PAGE_LEN]));
        if *held != Some(name) {
            *held = None;
            open(page)?;
            *held = Some(name);
        }
        Ok(read(segment::plain(page)))
    }
}
