//! Restores of snapshots built by hand, end to end.

mod existing;
mod whole;

use super::test_support::{Builder, Fixture, Listener, TIME, metadata, names, node, noise};
use super::{Overwrite, RestoreError, RestoreOptions};
use crate::backend::Backend;
use crate::format::chunk_list;
use crate::format::tree::{FileContent, Metadata, Node, NodeKind, Timestamp, Tree, TreePart, Xattr};
use crate::monitor::EntryAction;
use crate::target::test_support::{as_nobody, is_root};
use crate::testing::cannot;
use serde_bytes::ByteBuf;
use std::fs;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

fn options() -> RestoreOptions {
    RestoreOptions { threads: 2, ..RestoreOptions::default() }
}

fn with(mut node: Node, change: impl FnOnce(&mut Metadata)) -> Node {
    change(&mut node.metadata);
    node
}

fn linked(node: Node, inode: u64, links: u64) -> Node {
    with(node, |metadata| {
        (metadata.inode, metadata.links, metadata.device) = (inode, Some(links), Some(5));
    })
}

/// Every kind of entry, and content of every shape.
fn every_kind() -> Fixture {
    let mut b = Builder::with_packs_of(200_000);
    let big = noise(1, 700_000);
    let mut nodes = vec![
        b.file("big", &big, 10_000),
        with(b.file("duplicate", &big, 10_000), |m| m.mode = 0o400),
        b.directory("empty", vec![]),
        b.file("empty-file", b"", 10),
        node("fifo", NodeKind::Fifo),
        linked(b.file("link-a", b"one file", 3), 9, 3),
        linked(b.file("link-b", b"one file", 3), 9, 3),
        b.file("one", b"1", 10),
    ];
    let third = linked(b.file("link-c", b"one file", 3), 9, 3);
    let deep = b.file("deep", &noise(2, 30_000), 30_000);
    let inner = with(b.directory("inner", vec![deep, third]), |m| m.mode = 0o500);
    nodes.push(b.directory("outer", vec![inner]));
    nodes.push(node("socket", NodeKind::Socket));
    nodes.push(b.sparse("sparse", 1 << 40, &[(0, 5000), (7000, (1 << 40) - 7000)], &noise(3, 2000)));
    nodes.push(b.sparse("sparse-two", 3000, &[(500, 1000), (1700, 300)], &noise(4, 1700)));
    nodes.push(node("symlink", NodeKind::Symlink { target: ByteBuf::from(&b"../anywhere"[..]) }));
    let xattr = Xattr { name: ByteBuf::from(&b"user.x"[..]), value: ByteBuf::from(&b"v"[..]) };
    nodes.push(with(b.file("xattr", b"text", 10), |m| (m.xattrs, m.mode) = (vec![xattr], 0o440)));
    b.finish(nodes)
}

fn two_holes() -> Vec<u8> {
    let bytes = noise(4, 1700);
    [&bytes[..500], &[0; 1000], &bytes[500..700], &[0; 300], &bytes[700..]].concat()
}
