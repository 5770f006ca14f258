//! Extended attributes of a restored entry: set what is recorded, remove what is not.

use super::handle::Handle;
use super::metadata::{MetadataError, MetadataPart};
use crate::format::tree::{INCOMPLETE_MARK, Xattr};

/// The attribute that holds a POSIX ACL.
pub(super) const ACCESS_ACL: &[u8] = b"system.posix_acl_access";
const DEFAULT_ACL: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";

/// What [`apply`] did to the access ACL.
pub(super) struct Outcome {
    /// It was set or removed, and with it perhaps the mode.
    pub(super) acl_changed: bool,
    /// The recorded one is in place.
    pub(super) acl_set: bool,
}

/// Makes the attributes those of `wanted`. What `wanted` lacks is removed if it says who may do what or is the
/// user's: labels that the local system gave to a new file stay. The mark of what is not whole stays only if it is `marked`.
pub(super) fn apply(
    inode: Handle<'_>,
    wanted: &[Xattr],
    marked: bool,
    errors: &mut Vec<MetadataError>,
) -> Outcome {
    let mut outcome = Outcome { acl_changed: false, acl_set: false };
    let present = inode.xattr_names();
    let is_there =
        |name: &[u8]| present.as_ref().is_ok_and(|present| present.iter().any(|other| other == name));
    match &present {
        Err(errno) => errors.push(MetadataError::Io { what: MetadataPart::Xattrs, source: (*errno).into() }),
        Ok(present) => {
            for name in present.iter().filter(|name| is_surplus(name, wanted, marked)) {
                outcome.acl_changed |= **name == *ACCESS_ACL;
                if let Err(errno) = inode.remove_xattr(name) {
                    errors.push(failed(name, errno));
                }
            }
        }
    }
    for xattr in wanted.iter().filter(|xattr| *xattr.name != *INCOMPLETE_MARK) {
        let is_access_acl = **xattr.name == *ACCESS_ACL;
        if is_there(&xattr.name) && inode.has_xattr(&xattr.name, &xattr.value) {
            outcome.acl_set |= is_access_acl;
            continue;
        }
        match inode.set_xattr(&xattr.name, &xattr.value) {
            Err(errno) => errors.push(failed(&xattr.name, errno)),
            Ok(()) if is_access_acl => outcome = Outcome { acl_changed: true, acl_set: true },
            Ok(()) => {}
        }
    }
    outcome
}

fn failed(name: &[u8], errno: rustix::io::Errno) -> MetadataError {
    MetadataError::Io { what: MetadataPart::Xattr(name.to_vec()), source: errno.into() }
}

fn is_surplus(name: &[u8], wanted: &[Xattr], marked: bool) -> bool {
    if name == INCOMPLETE_MARK {
        return !marked;
    }
    let ours = name.starts_with(b"user.") || [ACCESS_ACL, DEFAULT_ACL, CAPABILITY].contains(&name);
    ours && !wanted.iter().any(|xattr| **xattr.name == *name)
}

/// Rights (0 to 7) of the owning group in an access ACL: a version number and then entries of tag, rights and
/// id, of 2, 2 and 4 bytes, little-endian. None if it does not parse.
pub(super) fn owning_group_bits(acl: &[u8]) -> u32 {
    const OWNING_GROUP: [u8; 2] = [4, 0];
    let entries = acl.get(4..).unwrap_or_default().chunks_exact(8);
    entries
        .filter(|entry| entry[..2] == OWNING_GROUP)
        .map(|entry| u32::from(entry[2] & 7))
        .next()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owning_groups_rights_are_found() {
        let acl =
            b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x04\0\x05\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
        assert_eq!(owning_group_bits(acl), 5);
        for broken in [&b""[..], b"\x02", b"\x02\0\0\0", &acl[..15]] {
            assert_eq!(owning_group_bits(broken), 0);
        }
    }
}
