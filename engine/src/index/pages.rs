//! Reading a segment's pages one after the other, many at a time, without the cache.

use crate::format::segment::{self, PAGE_LEN, PAGE_PLAIN_LEN};
use crate::index::{IndexError, Segment};

/// Pages read at a time: 128 KiB.
const WINDOW_PAGES: usize = 32;

/// Reads pages in ascending order.
pub(super) struct PageReader<'s> {
    segment: &'s Segment,
    /// Stored pages from `start` on, of which the one in `opened` was opened.
    window: Vec<[u8; PAGE_LEN]>,
    start: u64,
    opened: Option<u64>,
    hasher: Option<blake3::Hasher>,
}

impl<'s> PageReader<'s> {
    pub fn new(segment: &'s Segment) -> Self {
        Self { segment, window: Vec::new(), start: 0, opened: None, hasher: None }
    }

    /// A reader that hashes the object, all of which has to be read by it.
    pub fn hashing(segment: &'s Segment) -> Self {
        Self { hasher: Some(blake3::Hasher::new()), ..Self::new(segment) }
    }

    /// The plaintext of page `page`. Going back or asking again costs reading and opening again.
    pub fn page(&mut self, page: u64) -> Result<&[u8; PAGE_PLAIN_LEN], IndexError> {
        if self.opened != Some(page) {
            self.opened = None;
            let segment = self.segment;
            let stored = self.stored(page)?;
            segment::open_stored_page(segment.cipher(), page, stored)
                .map_err(|source| segment.damaged(source))?;
            self.opened = Some(page);
        }
        let at = usize::try_from(page - self.start).expect("within the window");
        Ok(segment::plain(&self.window[at]))
    }

    /// The bytes of page `page`, as stored where it was not opened yet.
    pub fn stored(&mut self, page: u64) -> Result<&mut [u8; PAGE_LEN], IndexError> {
        let is_there = |start, len: usize| (start..start + len as u64).contains(&page);
        // An opened page cannot be opened again, so a page before it is read anew.
        if !is_there(self.start, self.window.len()) || self.opened.is_some_and(|opened| opened > page) {
            self.read(page)?;
        }
        let at = usize::try_from(page - self.start).expect("within the window");
        Ok(&mut self.window[at])
    }

    fn read(&mut self, page: u64) -> Result<(), IndexError> {
        let left = (self.segment.pages() - page).min(WINDOW_PAGES as u64);
        self.window.resize(usize::try_from(left).expect("at most a window"), [0; PAGE_LEN]);
        self.start = page;
        self.opened = None;
        let mut read = self.segment.read_at(page, self.window.as_flattened_mut());
        if read.is_err() && left > 1 {
            // Of many pages one may be in the way of all.
            self.window.truncate(1);
            read = self.segment.read_at(page, self.window.as_flattened_mut());
        }
        if read.is_err() {
            // What was to come there is not to be taken for what did.
            self.window.clear();
        }
        read?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(self.window.as_flattened());
        }
        Ok(())
    }

    /// The hash of all pages.
    pub fn hash(self) -> Option<blake3::Hash> {
        self.hasher.map(|hasher| hasher.finalize())
    }
}
