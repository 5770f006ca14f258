//! Hard links: a file with several names is read under the first of them; the others are given its node.
//!
//! What is remembered is bounded: beyond that, a file is read again under its next name, and found to be stored.

use std::collections::HashMap;
use std::sync::Arc;

use crate::backup::small::FileJob;
use crate::format::tree::{Node, NodeKind};
use crate::source::SourceStat;

/// Which file a name belongs to: device and inode.
pub(super) type LinkKey = (u64, u64);

/// Files with several names that are remembered, at most.
const FILES_MAX: usize = 64 << 10;
/// What their nodes may weigh: [`Node::weight`].
const WEIGHT_MAX: u64 = 16 << 20;

/// What is known of a file with several names.
#[derive(Debug)]
pub(super) enum Link {
    /// Nothing: whoever asked reads it and then says so under this key, or without one says nothing.
    Unknown(Option<LinkKey>),
    /// It is being read: whoever asked has to wait for that.
    OnItsWay,
    /// It is stored and did not change since.
    Stored(Arc<Node>),
}

#[derive(Debug)]
enum Entry {
    /// With names that wait.
    OnItsWay(Vec<FileJob>),
    Stored {
        node: Arc<Node>,
        /// Names that were not met yet.
        left: u64,
    },
}

/// Files met under one of several names.
#[derive(Debug, Default)]
pub(super) struct Links {
    entries: HashMap<LinkKey, Entry>,
    weight: u64,
}

impl Links {
    /// What is known of the file with this state.
    pub fn ask(&mut self, stat: &SourceStat) -> Link {
        let key = (stat.device, stat.inode);
        let is_full = self.entries.len() >= FILES_MAX || self.weight >= WEIGHT_MAX;
        match self.entries.get_mut(&key) {
            Some(Entry::OnItsWay(_)) => Link::OnItsWay,
            Some(Entry::Stored { node, left }) => {
                let NodeKind::File(content) = &node.kind else { return Link::Unknown(None) };
                // A change of content, owner or attributes changes one of these.
                if !stat.looks_unchanged(&node.metadata, content.size) {
                    return Link::Unknown(None);
                }
                *left = left.saturating_sub(1);
                let (node, left) = (Arc::clone(node), *left);
                if left == 0 {
                    self.entries.remove(&key);
                    self.weight -= node.weight();
                }
                Link::Stored(node)
            }
            None if is_full => Link::Unknown(None),
            None => {
                self.entries.insert(key, Entry::OnItsWay(Vec::new()));
                Link::Unknown(Some(key))
            }
        }
    }

    /// Lets a name wait for the file that is on its way.
    pub fn wait(&mut self, key: LinkKey, job: FileJob) {
        if let Some(Entry::OnItsWay(waiting)) = self.entries.get_mut(&key) {
            waiting.push(job);
        }
    }

    /// The file is stored, or could not be as it was: `None`. Returns the names that waited, which ask again.
    pub fn settle(&mut self, key: LinkKey, node: Option<&Node>) -> Vec<FileJob> {
        let waiting = match self.entries.remove(&key) {
            Some(Entry::OnItsWay(waiting)) => waiting,
            Some(Entry::Stored { node, .. }) => {
                self.weight -= node.weight();
                Vec::new()
            }
            None => Vec::new(),
        };
        if let Some(node) = node {
            // The name it was read under is one of them.
            let left = node.metadata.links.unwrap_or(1).saturating_sub(1).max(waiting.len() as u64);
            if left > 0 {
                self.weight += node.weight();
                self.entries.insert(key, Entry::Stored { node: Arc::new(node.clone()), left });
            }
        }
        waiting
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_bytes::ByteBuf;

    use super::*;
    use crate::format::tree::{FileContent, Metadata};
    use crate::source::SourceDir;

    fn node_of(stat: &SourceStat) -> Node {
        let metadata = Metadata {
            mtime: stat.mtime,
            ctime: stat.ctime,
            inode: stat.inode,
            links: Some(stat.links),
            device: Some(stat.device),
            ..Metadata::default()
        };
        let content = FileContent { size: stat.size, ..FileContent::default() };
        Node { name: ByteBuf::from("first"), kind: NodeKind::File(content), metadata }
    }

    #[test]
    fn a_file_is_read_once_while_it_stays_as_it_is_and_forgotten_with_its_last_name() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name| folder.path().join(name);
        fs::write(name("a"), "content").unwrap();
        fs::hard_link(name("a"), name("b")).unwrap();
        fs::hard_link(name("a"), name("c")).unwrap();
        let dir = SourceDir::open_root(folder.path()).unwrap();
        let stat = dir.stat(b"a").unwrap();
        let mut links = Links::default();
        let Link::Unknown(Some(key)) = links.ask(&stat) else { panic!("never seen") };
        assert!(matches!(links.ask(&stat), Link::OnItsWay));
        assert!(links.settle(key, Some(&node_of(&stat))).is_empty());
        let touched = SourceStat { size: 8, ..stat };
        assert!(matches!(links.ask(&touched), Link::Unknown(None)), "changed meanwhile");
        assert!(matches!(links.ask(&stat), Link::Stored(_)));
        assert!(matches!(links.ask(&stat), Link::Stored(_)));
        assert_eq!((links.entries.len(), links.weight), (0, 0), "all three names were met");
    }

    #[test]
    fn a_file_that_was_not_stored_is_read_by_the_next() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "content").unwrap();
        fs::hard_link(folder.path().join("a"), folder.path().join("b")).unwrap();
        let stat = SourceDir::open_root(folder.path()).unwrap().stat(b"a").unwrap();
        let mut links = Links::default();
        let Link::Unknown(Some(key)) = links.ask(&stat) else { panic!("never seen") };
        links.settle(key, None);
        assert!(matches!(links.ask(&stat), Link::Unknown(Some(_))));
    }

    #[test]
    fn memory_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let stat = SourceDir::open_root(folder.path()).unwrap().stat_self().unwrap();
        let mut links = Links::default();
        for inode in 0..FILES_MAX as u64 {
            assert!(matches!(links.ask(&SourceStat { inode, ..stat }), Link::Unknown(Some(_))));
        }
        let more = SourceStat { inode: u64::MAX, ..stat };
        assert!(matches!(links.ask(&more), Link::Unknown(None)));
    }
}
