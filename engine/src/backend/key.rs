//! Object keys: the names under which a repository's objects are stored.

use std::fmt;

use crate::ids::{KeyslotId, LedgerId, PackId, ParityId, SegmentId};

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
    /// The verification ledger, `ledger/<id>`.
    Ledger,
    /// Parity sidecars, `parity/<2 hex>/<id>`.
    Parity,
}

impl Folder {
    /// All folders, in key order.
    pub const ALL: [Self; 7] =
        [Self::Index, Self::Keys, Self::Ledger, Self::Log, Self::Packs, Self::Parity, Self::State];

    /// The folder's name in the repository.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Log => "log",
            Self::State => "state",
            Self::Packs => "packs",
            Self::Index => "index",
            Self::Ledger => "ledger",
            Self::Parity => "parity",
        }
    }

    /// Whether objects lie in subfolders named after the first two hex digits of their id.
    pub const fn is_fanned_out(self) -> bool {
        matches!(self, Self::Packs | Self::Parity)
    }

    /// Whether an object of this folder can be called `name`: 20 digits of a sequence number, or 64
    /// lower-case hex digits of an id.
    pub fn is_object_name(self, name: &str) -> bool {
        match self {
            Self::Log | Self::State => name.len() == 20 && name.bytes().all(|c| c.is_ascii_digit()),
            _ => name.len() == 64 && name.bytes().all(is_hex_digit),
        }
    }
}

/// Whether `name` can be the subfolder of a fanned-out folder.
pub(super) fn is_fan_name(name: &str) -> bool {
    name.len() == 2 && name.bytes().all(is_hex_digit)
}

fn is_hex_digit(c: u8) -> bool {
    matches!(c, b'0'..=b'9' | b'a'..=b'f')
}

/// Name of one object: its path in the repository, with `/` between folders.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Box<str>);

impl ObjectKey {
    /// The config object.
    pub fn config() -> Self {
        Self("config".into())
    }

    /// The reserve: room that is kept free.
    pub fn reserve() -> Self {
        Self("reserve".into())
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

    /// A verification ledger.
    pub fn ledger(id: &LedgerId) -> Self {
        Self(format!("ledger/{id}").into())
    }

    /// A parity sidecar.
    pub fn parity(id: &ParityId) -> Self {
        let id = id.to_string();
        Self(format!("parity/{}/{id}", &id[..2]).into())
    }

    /// The key written as `text`; none if no object can have it.
    pub fn parse(text: &str) -> Option<Self> {
        let key = Self(text.into());
        key.is_well_formed().then_some(key)
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

    /// The folder it lies in; `None` for the config object and the reserve.
    pub fn folder(&self) -> Option<Folder> {
        let (first, _) = self.0.split_once('/')?;
        Folder::ALL.into_iter().find(|folder| folder.name() == first)
    }

    /// Whether this can be the key of an object. Only [`ObjectKey::in_folder`] can make one that cannot:
    /// it would lead a backend that keeps objects as files to other files.
    pub fn is_well_formed(&self) -> bool {
        match self.folder() {
            None => *self == Self::config() || *self == Self::reserve(),
            Some(folder) => {
                folder.is_object_name(self.name()) && *self == Self::in_folder(folder, self.name())
            }
        }
    }

    /// The part before the last `/`; empty for the config object and the reserve.
    pub(super) fn parent(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(parent, _)| parent)
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

    /// The id in the key of a ledger; `None` if the name is not one.
    pub fn ledger_id(&self) -> Option<LedgerId> {
        self.name().parse().ok()
    }

    /// The id in the key of a sidecar; `None` if the name is not one.
    pub fn parity_id(&self) -> Option<ParityId> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lie_where_the_format_says() {
        let id = PackId::from_bytes([0xab; 32]);
        assert_eq!(ObjectKey::pack(&id).as_str(), format!("packs/ab/{}", "ab".repeat(32)));
        assert_eq!(ObjectKey::pack(&id).parent(), "packs/ab");
        assert_eq!(ObjectKey::pack(&id), ObjectKey::in_folder(Folder::Packs, &id.to_string()));
        assert_eq!(ObjectKey::pack(&id).pack_id(), Some(id));
        assert_eq!(ObjectKey::log(7).as_str(), "log/00000000000000000007");
        assert_eq!(ObjectKey::log(u64::MAX).sequence(), Some(u64::MAX));
        assert_eq!(ObjectKey::config().folder(), None);
        assert_eq!(ObjectKey::config().parent(), "");
        assert!(Folder::ALL.is_sorted_by_key(|folder| folder.name()));
    }

    #[test]
    fn only_names_of_objects_are_well_formed() {
        let id = "0f".repeat(32);
        for folder in Folder::ALL {
            let name =
                if matches!(folder, Folder::Log | Folder::State) { "01234567890123456789" } else { &id };
            let key = ObjectKey::in_folder(folder, name);
            assert!(key.is_well_formed(), "{key}");
            assert_eq!(key.folder(), Some(folder));
            for bad in
                ["", ".", "..", "../config", "a/b", "tmp", "0123456789012345678x", &id.to_uppercase(), "é"]
            {
                let key = ObjectKey::in_folder(folder, bad);
                assert!(!key.is_well_formed(), "{key}");
            }
        }
        assert!(ObjectKey::config().is_well_formed() && ObjectKey::reserve().is_well_formed());
        assert_eq!(ObjectKey::parse("reserve"), Some(ObjectKey::reserve()));
    }
}
