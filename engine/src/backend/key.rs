//! Object keys: the names under which a repository's objects are stored.

use std::fmt;

use crate::ids::{KeyslotId, PackId, SegmentId};

/// A folder of a repository that can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Folder {
    /// Keyslots, `keys/<id>`.
    Keys,
    /// The commit log, `log/<seq, 20 digits>`.
    Log,
    /// Folds of the log, `state/<seq, 20 digits>`.
    State,
    /// Packs, `packs/<2 hex>/<id>`.
    Packs,
    /// Index segments, `index/<id>`.
    Index,
    /// Parity sidecars, `parity/<2 hex>/<id>`: named by the format, written by no version yet.
    Parity,
}

impl Folder {
    /// All folders, in key order.
    pub const ALL: [Self; 6] = [Self::Index, Self::Keys, Self::Log, Self::Packs, Self::Parity, Self::State];

    /// The folder's name in the repository.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Log => "log",
            Self::State => "state",
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Parity => "parity",
        }
    }

    /// Whether objects lie in subfolders named after the first two hex digits of their id.
    pub const fn is_fanned_out(self) -> bool {
        matches!(self, Self::Packs | Self::Parity)
    }
}

/// Name of one object: its path in the repository, with `/` between folders.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Box<str>);

impl ObjectKey {
    /// The config object.
    pub fn config() -> Self {
        Self("config".into())
    }

    /// A keyslot.
    pub fn keyslot(id: &KeyslotId) -> Self {
        Self(format!("keys/{id}").into())
    }

    /// The commit with sequence number `seq`.
    pub fn log(seq: u64) -> Self {
        Self(format!("log/{seq:020}").into())
    }

    /// The fold of the log up to and with `seq`.
    pub fn state(seq: u64) -> Self {
        Self(format!("state/{seq:020}").into())
    }

    /// A pack.
    pub fn pack(id: &PackId) -> Self {
        let id = id.to_string();
        Self(format!("packs/{}/{id}", &id[..2]).into())
    }

    /// An index segment.
    pub fn segment(id: &SegmentId) -> Self {
        Self(format!("index/{id}").into())
    }

    /// The key of the object `name` as found in `folder`; whether the name is one this version knows is for
    /// the typed accessors to say.
    pub fn in_folder(folder: Folder, name: &str) -> Self {
        match name.get(..2) {
            Some(fan) if folder.is_fanned_out() => Self(format!("{}/{fan}/{name}", folder.name()).into()),
            _ => Self(format!("{}/{name}", folder.name()).into()),
        }
    }

    /// The whole key.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part after the last `/`.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The sequence number in the key of a log or state object; `None` if the name is not one.
    pub fn sequence(&self) -> Option<u64> {
        let name = self.name();
        (name.len() == 20 && name.bytes().all(|c| c.is_ascii_digit())).then(|| name.parse().ok()).flatten()
    }

    /// The id in the key of a pack; `None` if the name is not one.
    pub fn pack_id(&self) -> Option<PackId> {
        self.name().parse().ok()
    }

    /// The id in the key of a segment; `None` if the name is not one.
    pub fn segment_id(&self) -> Option<SegmentId> {
        self.name().parse().ok()
    }

    /// The id in the key of a keyslot; `None` if the name is not one.
    pub fn keyslot_id(&self) -> Option<KeyslotId> {
        self.name().parse().ok()
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({})", self.0)
    }
}
