//! Trees: what a directory holds, as records that are equal when the directory is.
//!
//! A directory is one tree blob, or, when it is very large, a few levels of tree blobs split by content
//! (see `crate::chunk::split`). Names are bytes in strictly ascending byte order, so two equal directories
//! encode to equal bytes. See `format-spec`, Trees.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::ids::BlobId;

/// Most holes of one file: a fragmented one keeps its largest, the others are stored as zeros.
pub const HOLES_MAX: usize = 65_536;
/// Most weight of the extended attributes of one entry, [`Xattr::weight`] summed: 8 MiB.
pub const XATTRS_WEIGHT_MAX: u64 = 8 << 20;
/// The attribute of what an unfinished restore left of a file. It says nothing of a source, and is neither recorded nor restored.
pub const INCOMPLETE_MARK: &[u8] = b"user.strongroom.incomplete";
/// What a [`TreePart`] weighs when a list of parts is split.
pub const PART_WEIGHT: u64 = 256;

/// One tree blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Tree {
    /// Entries of a directory, ascending by name.
    #[serde(rename = "nodes")]
    Nodes(Vec<Node>),
    /// A directory too large for one blob: its parts in name order.
    #[serde(rename = "parts")]
    Parts(Vec<TreePart>),
}

/// A child of a split tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TreePart {
    /// Name of the first entry below this part.
    pub first: ByteBuf,
    /// Number of entries below this part.
    pub entries: u64,
    /// The tree blob, [`Tree::Nodes`] or again [`Tree::Parts`].
    pub tree: BlobId,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// The entry's name: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
    pub name: ByteBuf,
    /// What it is, with the content that this kind has.
    #[serde(rename = "is")]
    pub kind: NodeKind,
    /// Everything `stat` and its relatives tell.
    #[serde(rename = "meta")]
    pub metadata: Metadata,
}

impl Node {
    /// About the node's encoded length in bytes: what a directory is split by, so part of the format.
    pub fn weight(&self) -> u64 {
        let content = match &self.kind {
            NodeKind::File(content) => content.chunks.len() + 32 * content.holes.len(),
            NodeKind::Symlink { target } => target.len(),
            _ => 0,
        };
        let xattrs: u64 = self.metadata.xattrs.iter().map(Xattr::weight).sum();
        256 + (self.name.len() + content) as u64 + xattrs
    }
}

/// The kinds of directory entries, each with its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum NodeKind {
    /// A regular file.
    #[serde(rename = "file")]
    File(FileContent),
    /// A directory and its tree.
    #[serde(rename = "dir")]
    Directory {
        /// The tree blob.
        tree: BlobId,
    },
    /// A symbolic link and the bytes it points to.
    #[serde(rename = "link")]
    Symlink {
        /// The link's text, as bytes.
        target: ByteBuf,
    },
    /// A character device.
    #[serde(rename = "char")]
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    #[serde(rename = "block")]
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    #[serde(rename = "fifo")]
    Fifo,
    /// A Unix socket.
    #[serde(rename = "socket")]
    Socket,
}

/// Content of a regular file: its bytes are the chunks one after the other, with the holes read as zeros.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileContent {
    /// Length in bytes, holes included.
    pub size: u64,
    /// How the bytes were cut, kept from night to night.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grain: Option<Grain>,
    /// Depth of `chunks`: 0 = chunks themselves, n = lists of depth n − 1 (see `crate::format::chunk_list`).
    #[serde(default, skip_serializing_if = "is_zero_u8")]
    pub depth: u8,
    /// The chunk table, or the table of chunk-list blobs.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub chunks: ByteBuf,
    /// Holes: ascending, not touching, as offsets in the file. Chunks cover everything else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holes: Vec<Hole>,
    /// The file changed while it was read: the content may be a mixture and is never taken as unchanged.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unstable: bool,
}

/// A range of a file that takes no space and reads as zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hole {
    /// Offset of the first byte.
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub length: u64,
}

/// Chunk size class. See `crate::chunk::grain` for sizes and how a file gets its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// Files made of pages that change in place: databases.
    Page,
    /// Files that change in many small places and whose content moves.
    Fine,
    /// Ordinary files.
    Medium,
    /// Large incompressible files.
    Coarse,
}

/// Metadata of a node. Fields at their most common value are left out of the record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Permission bits with set-id and sticky bits: `st_mode & 0o7777`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Owner's name where the source knew one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Group's name where the source knew one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Last modification of the content.
    pub mtime: Timestamp,
    /// Last change of the inode: compared, never restored.
    pub ctime: Timestamp,
    /// Birth, where the file system records it: kept, never restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub btime: Option<Timestamp>,
    /// Inode number: compared, and with `device` the identity of hard links.
    pub inode: u64,
    /// Number of names; absent for 1 and for directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub links: Option<u64>,
    /// Device number, only where `links` is given: with `inode` it tells which names are one file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<u64>,
    /// Inode flags as `FS_IOC_GETFLAGS` has them, limited to those a user can set.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub flags: u32,
    /// Extended attributes, ascending by name; POSIX ACLs and capabilities are among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Xattr {
    /// Full name with its namespace, as bytes.
    pub name: ByteBuf,
    /// Value.
    pub value: ByteBuf,
}

impl Xattr {
    /// About the attribute's encoded length in bytes.
    pub fn weight(&self) -> u64 {
        32 + (self.name.len() + self.value.len()) as u64
    }
}

/// A point in time: seconds since 1970-01-01T00:00:00Z and nanoseconds after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub nanos: u32,
}

// serde's `skip_serializing_if` hands fields over by reference.
fn is_zero_u8(value: &u8) -> bool {
    *value == 0
}

fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !*value
}

fn is_empty(value: &ByteBuf) -> bool {
    value.is_empty()
}
