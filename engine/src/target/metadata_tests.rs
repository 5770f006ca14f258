//! Metadata of every kind of entry: applied in an order that keeps it, to the entry itself and nothing else.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::metadata::creation_mode;
use super::root::{Obstacle, SpecialNode, TargetRoot};
use super::stat::EntryKind;
use super::test_support::{RESOLUTIONS, Sandbox, as_nobody, is_root, path, xattrs};
use super::{Accounts, MetadataError, MetadataOptions, MetadataPart, MetadataWriter};
use crate::format::tree::{Metadata, Timestamp, Xattr};
use crate::testing::cannot;

const MTIME: Timestamp = Timestamp { seconds: 1_600_000_000, nanos: 123_456_789 };

/// User rwx, user 1234 rwx, group r-x, mask rwx, others none.
const ACL: &[u8] =
    b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\xd2\x04\0\0\x04\0\x05\0\xff\xff\xff\xff\
                     \x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";
/// `cap_net_raw=ep`
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec().into(), value: value.to_vec().into() }
}

/// Metadata with our own owner.
fn own(mode: u32) -> Metadata {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Metadata { mode, uid, gid, mtime: MTIME, ..Metadata::default() }
}

/// The same with an owner that only root can give.
fn foreign(mode: u32) -> Metadata {
    Metadata { uid: 1234, gid: 4321, ..own(mode) }
}

fn writer() -> MetadataWriter {
    MetadataWriter::new(MetadataOptions::default())
}

fn assert_none(errors: &[MetadataError]) {
    assert!(errors.is_empty(), "{errors:?}");
}

fn new_file(root: &TargetRoot, name: &str, wanted: &Metadata) -> fs::File {
    root.create_file(&path(name), creation_mode(wanted), Obstacle::Refuse).unwrap()
}

fn assert_has(at: &Path, wanted: &Metadata) {
    let stat = fs::symlink_metadata(at).unwrap();
    if !stat.is_symlink() {
        assert_eq!(format!("{:o}", stat.mode() & 0o7777), format!("{:o}", wanted.mode), "{at:?}");
    }
    assert_eq!((stat.uid(), stat.gid()), (wanted.uid, wanted.gid), "{at:?}");
    assert_eq!(
        (stat.mtime(), stat.mtime_nsec()),
        (wanted.mtime.seconds, wanted.mtime.nanos.into()),
        "{at:?}"
    );
    for xattr in &wanted.xattrs {
        let shown = format!("{}={}", String::from_utf8_lossy(&xattr.name), xattr.value.escape_ascii());
        assert!(xattrs(at).contains(&shown), "{at:?} lacks {shown} among {:?}", xattrs(at));
    }
}

#[test]
fn every_kind_gets_its_own_metadata() {
    let wanted = if is_root() { foreign(0o751) } else { own(0o751) };
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        let root = sandbox.open(resolution);
        root.make_dir(&path("dir"), 0o700, Obstacle::Refuse).unwrap();
        root.symlink(&path("link"), b"dir", Obstacle::Refuse).unwrap();
        root.make_node(&path("pipe"), SpecialNode::Fifo, 0o600, Obstacle::Refuse).unwrap();
        root.make_node(&path("socket"), SpecialNode::Socket, 0o600, Obstacle::Refuse).unwrap();
        new_file(&root, "by path", &wanted);
        assert_none(&writer().apply_to_file(&new_file(&root, "file", &wanted), &wanted));
        for (name, kind) in [
            ("link", EntryKind::Symlink),
            ("pipe", EntryKind::Fifo),
            ("socket", EntryKind::Socket),
            ("by path", EntryKind::File),
            ("dir", EntryKind::Directory),
        ] {
            assert_none(&writer().apply_to_path(&root, &path(name), kind, &wanted));
        }
        for name in ["dir", "file", "link", "pipe", "socket", "by path"] {
            assert_has(&sandbox.at(name), &wanted);
        }
    }
}

#[test]
fn metadata_of_a_link_never_changes_what_it_points_to() {
    let mut wanted = if is_root() { foreign(0o777) } else { own(0o777) };
    if is_root() {
        wanted.xattrs = vec![xattr("trusted.mark", b"link")];
    }
    for resolution in RESOLUTIONS {
        for to in ["victim", "sub", "absent"] {
            let sandbox = Sandbox::new();
            symlink(sandbox.outside().join(to), sandbox.at("x")).unwrap();
            let before = sandbox.outside_fingerprint();
            let options = MetadataOptions { flags: true, ..MetadataOptions::default() };
            let writer = MetadataWriter::new(options);
            let root = sandbox.open(resolution);
            assert_none(&writer.apply_to_path(&root, &path("x"), EntryKind::Symlink, &wanted));
            assert_eq!(before, sandbox.outside_fingerprint());
            assert_has(&sandbox.at("x"), &wanted);
        }
    }
}

#[test]
fn set_id_bits_and_capabilities_survive_a_change_of_owner() {
    if !is_root() {
        return cannot("change owners", &"not root");
    }
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let mut wanted = foreign(0o6755);
    wanted.xattrs = vec![xattr("security.capability", CAPABILITY)];
    let file = new_file(&root, "x", &wanted);
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    assert_none(&writer().apply_to_file(&file, &wanted));
    assert_has(&sandbox.at("x"), &wanted);
    // In place, from one owner to another.
    let other = Metadata { uid: 77, gid: 78, ..wanted };
    assert_none(&writer().apply_to_path(&root, &path("x"), EntryKind::File, &other));
    assert_has(&sandbox.at("x"), &other);
}

#[test]
fn set_id_bits_are_not_given_to_another_owner() {
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let options = MetadataOptions { owner: false, ..MetadataOptions::default() };
    let wanted = foreign(0o6755);
    let file = new_file(&root, "x", &wanted);
    assert_none(&MetadataWriter::new(options).apply_to_file(&file, &wanted));
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o755);
    // The group's set-id bit of a directory only says which group new entries get.
    root.make_dir(&path("d"), 0o700, Obstacle::Refuse).unwrap();
    assert_none(&MetadataWriter::new(options).apply_to_path(
        &root,
        &path("d"),
        EntryKind::Directory,
        &wanted,
    ));
    assert_eq!(fs::metadata(sandbox.at("d")).unwrap().mode() & 0o7777, 0o2755);
    // With the owner it was recorded for, it is.
    let ours = own(0o4755);
    assert_none(&MetadataWriter::new(options).apply_to_file(&file, &ours));
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o4755);
}

#[test]
fn owners_that_are_none_and_times_that_are_none_are_reported_and_the_rest_applied() {
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let options = MetadataOptions { owner: true, numeric_ids: true, ..MetadataOptions::default() };
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX), (u32::MAX, u32::MAX)] {
        // 0x3fffffff is “now” to the kernel, 0x3ffffffe “leave it”.
        for nanos in [1_000_000_000, 0x3fff_ffff, 0x3fff_fffe, u32::MAX] {
            let wanted = Metadata { uid, gid, mtime: Timestamp { seconds: 5, nanos }, ..own(0o640) };
            let file = root.create_file(&path("x"), 0o600, Obstacle::Replace).unwrap();
            let errors = MetadataWriter::new(options).apply_to_file(&file, &wanted);
            assert!(matches!(
                errors[..],
                [MetadataError::NoSuchOwner { .. }, MetadataError::Nanos { found }] if found == nanos
            ));
            assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o640);
            assert_ne!(file.metadata().unwrap().mtime(), 5);
        }
    }
}

#[test]
fn times_before_1970_and_attributes_without_sense() {
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let mut wanted = own(0o644);
    wanted.mtime = Timestamp { seconds: -1_000_000, nanos: 999_999_999 };
    wanted.xattrs = ["", "nonsense", "user.", "user.a\0b", "bogus.name", "user.fine"]
        .map(|name| xattr(name, b"v"))
        .into();
    wanted.xattrs.push(xattr(&format!("user.{}", "x".repeat(300)), b"v"));
    wanted.xattrs.push(xattr("system.posix_acl_access", b"no ACL"));
    let errors = writer().apply_to_file(&new_file(&root, "x", &wanted), &wanted);
    let refused =
        |error: &MetadataError| matches!(error, MetadataError::Io { what: MetadataPart::Xattr(_), .. });
    assert_eq!(errors.iter().filter(|error| refused(error)).count(), 7, "{errors:?}");
    assert_eq!(errors.len(), 7);
    assert_eq!(xattrs(&sandbox.at("x")), ["user.fine=v"]);
    let stat = fs::metadata(sandbox.at("x")).unwrap();
    assert_eq!((stat.mtime(), stat.mtime_nsec()), (-1_000_000, 999_999_999));
    // The mask of the ACL that could not be set is not left to the group.
    assert_eq!(stat.mode() & 0o7777, 0o604);
}

#[test]
fn attributes_that_are_not_recorded_go_and_acls_come_with_the_mode() {
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let mut wanted = own(0o770);
    wanted.xattrs =
        vec![xattr("system.posix_acl_access", ACL), xattr("user.a", b"1"), xattr("user.empty", b"")];
    let file = new_file(&root, "x", &wanted);
    let errors = writer().apply_to_file(&file, &wanted);
    if !errors.is_empty() {
        return cannot("set ACLs and attributes", &"there are none here");
    }
    assert_has(&sandbox.at("x"), &wanted);
    let plain = Metadata { xattrs: vec![xattr("user.b", b"2")], ..own(0o750) };
    assert_none(&writer().apply_to_path(&root, &path("x"), EntryKind::File, &plain));
    assert_has(&sandbox.at("x"), &plain);
    assert_eq!(xattrs(&sandbox.at("x")), ["user.b=2"]);
    // Without attributes, the group gets what the ACL gave the group and not the mask.
    let options = MetadataOptions { xattrs: false, ..MetadataOptions::default() };
    let second = new_file(&root, "y", &wanted);
    assert_none(&MetadataWriter::new(options).apply_to_file(&second, &wanted));
    assert_eq!(second.metadata().unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn an_acl_inherited_from_the_directory_does_not_stay() {
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let mut wanted = own(0o755);
    wanted.xattrs = vec![xattr("system.posix_acl_default", ACL)];
    root.make_dir(&path("d"), 0o700, Obstacle::Refuse).unwrap();
    if !writer().apply_to_path(&root, &path("d"), EntryKind::Directory, &wanted).is_empty() {
        return cannot("set ACLs", &"there are none here");
    }
    let plain = own(0o644);
    let file = new_file(&root, "d/x", &plain);
    assert!(!xattrs(&sandbox.at("d/x")).is_empty());
    assert_none(&writer().apply_to_file(&file, &plain));
    assert_eq!(xattrs(&sandbox.at("d/x")), [""; 0]);
    assert_has(&sandbox.at("d/x"), &plain);
    root.make_dir(&path("d/e"), 0o700, Obstacle::Refuse).unwrap();
    assert_none(&writer().apply_to_path(&root, &path("d/e"), EntryKind::Directory, &own(0o755)));
    assert_eq!(xattrs(&sandbox.at("d/e")), [""; 0]);
}

#[test]
fn without_privilege_owners_fail_alone_and_read_only_files_take_attributes() {
    const NAME: &str = "without_privilege_owners_fail_alone_and_read_only_files_take_attributes";
    if !as_nobody(&format!("{}::{NAME}", module_path!().split_once("::").unwrap().1)) {
        return;
    }
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let mut wanted = own(0o444);
    wanted.xattrs = vec![xattr("user.a", b"1")];
    for round in 0..2 {
        // New and then, already read-only, in place; the same for a directory that nobody may enter.
        let closed = Metadata { mode: 0o000, ..wanted.clone() };
        if round == 0 {
            new_file(&root, "x", &wanted);
            root.make_dir(&path("d"), 0o700, Obstacle::Refuse).unwrap();
        }
        assert_none(&writer().apply_to_path(&root, &path("x"), EntryKind::File, &wanted));
        assert_none(&writer().apply_to_path(&root, &path("d"), EntryKind::Directory, &closed));
        assert_eq!(fs::metadata(sandbox.at("x")).unwrap().mode() & 0o7777, 0o444);
        assert_eq!(xattrs(&sandbox.at("x")), ["user.a=1"]);
        assert_eq!(fs::metadata(sandbox.at("d")).unwrap().mode() & 0o7777, 0o000);
    }
    let options = MetadataOptions { owner: true, ..MetadataOptions::default() };
    let errors = MetadataWriter::new(options)
        .apply_to_file(&root.create_file(&path("y"), 0o600, Obstacle::Refuse).unwrap(), &foreign(0o4711));
    assert!(matches!(errors[..], [MetadataError::Io { what: MetadataPart::Owner, .. }]), "{errors:?}");
    assert_eq!(fs::metadata(sandbox.at("y")).unwrap().mode() & 0o7777, 0o711);
    fs::set_permissions(sandbox.at("d"), fs::Permissions::from_mode(0o700)).unwrap();
}

struct Village;

impl Accounts for Village {
    fn user(&self, name: &str) -> Option<u32> {
        (name == "anna").then_some(501)
    }

    fn group(&self, name: &str) -> Option<u32> {
        (name == "farm").then_some(502)
    }
}

#[test]
fn names_are_mapped_unless_numbers_are_wished() {
    if !is_root() {
        return cannot("change owners", &"not root");
    }
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    for (numeric_ids, group, expected) in
        [(false, "farm", (501, 502)), (false, "city", (501, 4321)), (true, "farm", (1234, 4321))]
    {
        let wanted = Metadata { user: "anna".to_owned(), group: group.to_owned(), ..foreign(0o6700) };
        let options = MetadataOptions { numeric_ids, ..MetadataOptions::default() };
        let file = root.create_file(&path("x"), 0o600, Obstacle::Replace).unwrap();
        assert_none(&MetadataWriter::with_accounts(options, Box::new(Village)).apply_to_file(&file, &wanted));
        let stat = file.metadata().unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (expected.0, expected.1, 0o6700));
    }
}

#[test]
fn an_immutable_flag_comes_last_and_only_on_request() {
    const IMMUTABLE: u32 = 0x10;
    const NO_DUMP: u32 = 0x40;
    if !is_root() {
        return cannot("make a file immutable", &"not root");
    }
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    let wanted = Metadata { flags: IMMUTABLE | NO_DUMP, ..foreign(0o640) };
    let file = new_file(&root, "x", &wanted);
    let flags = || rustix::fs::ioctl_getflags(&file).unwrap().bits() & (IMMUTABLE | NO_DUMP);
    assert_none(&writer().apply_to_file(&file, &wanted));
    match rustix::fs::ioctl_getflags(&file) {
        Ok(flags) => assert_eq!(flags.bits() & (IMMUTABLE | NO_DUMP), 0),
        Err(error) => return cannot("read flags", &error),
    }
    let options = MetadataOptions { flags: true, ..MetadataOptions::default() };
    let errors = MetadataWriter::new(options).apply_to_path(&root, &path("x"), EntryKind::File, &wanted);
    let set = flags();
    // Taken off again first, or the sandbox stays.
    rustix::fs::ioctl_setflags(&file, rustix::fs::IFlags::empty()).unwrap();
    assert_none(&errors);
    assert_eq!(set, IMMUTABLE | NO_DUMP);
    assert_has(&sandbox.at("x"), &wanted);
}

#[test]
fn nobody_has_more_rights_before_than_after() {
    for (mode, expected) in [
        (0o644, 0o644),
        (0o755, 0o755),
        (0o640, 0o600),
        (0o604, 0o600),
        (0o444, 0o444),
        (0o4755, 0o755),
        (0o077, 0o000),
    ] {
        assert_eq!(creation_mode(&own(mode)), expected, "{mode:o}");
    }
    let with_acl = Metadata { xattrs: vec![xattr("system.posix_acl_access", ACL)], ..own(0o777) };
    assert_eq!(creation_mode(&with_acl), 0o600);
}
