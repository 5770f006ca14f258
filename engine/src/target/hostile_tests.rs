//! What an enemy may put into a tree or into the target, each with what must happen, in both ways of resolving.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode};

use super::name::{NameError, RelativePath, check_name};
use super::root::{MadeDir, Obstacle, SpecialNode, TargetRoot};
use super::stat::EntryKind;
use super::test_support::{RESOLUTIONS, Sandbox, as_nobody, fingerprint, is_root, outcome, path};
use super::{MetadataError, MetadataOptions, MetadataWriter, TargetError};
use crate::format::tree::{Metadata, Timestamp};
use crate::testing::cannot;

use Obstacle::{Refuse, Replace};

/// Does one thing to one path.
pub(super) type Operation = fn(&TargetRoot, &RelativePath) -> Result<(), TargetError>;

/// Every operation, in every variant. A file that is opened is also written to.
pub(super) const OPERATIONS: [(&str, Operation); 20] = [
    ("make_dir", |root, path| root.make_dir(path, 0o700, Refuse).map(drop)),
    ("make_dir, replacing", |root, path| root.make_dir(path, 0o700, Replace).map(drop)),
    ("create_file", |root, path| root.create_file(path, 0o600, Refuse).map(scribble)),
    ("create_file, replacing", |root, path| root.create_file(path, 0o600, Replace).map(scribble)),
    ("open_existing", |root, path| root.open_existing(path).map(|file| file.map_or((), scribble))),
    ("symlink", |root, path| root.symlink(path, b"/nowhere", Refuse)),
    ("symlink, replacing", |root, path| root.symlink(path, b"/nowhere", Replace)),
    ("hard_link, new", |root, path| root.hard_link(&self::path("own"), path, Refuse).map(drop)),
    ("hard_link, new, replacing", |root, path| root.hard_link(&self::path("own"), path, Replace).map(drop)),
    ("hard_link, existing", |root, path| root.hard_link(path, &self::path("second"), Refuse).map(drop)),
    ("make_node", |root, path| root.make_node(path, SpecialNode::Fifo, 0o600, Refuse)),
    ("make_node, replacing", |root, path| root.make_node(path, SpecialNode::Socket, 0o600, Replace)),
    ("remove", TargetRoot::remove),
    ("remove_tree", TargetRoot::remove_tree),
    ("stat", |root, path| root.stat(path).map(drop)),
    ("read_link", |root, path| root.read_link(path).map(drop)),
    ("entries", |root, path| root.is_empty(path).map(drop)),
    ("metadata of a file", |root, path| hostile_metadata(root, path, EntryKind::File)),
    ("metadata of a directory", |root, path| hostile_metadata(root, path, EntryKind::Directory)),
    ("metadata of a link", |root, path| hostile_metadata(root, path, EntryKind::Symlink)),
];

pub(super) fn scribble(mut file: fs::File) {
    file.write_all(b"overwritten").unwrap();
}

/// Applies metadata that would be seen if it reached anything; gives the error of opening the entry.
pub(super) fn hostile_metadata(
    root: &TargetRoot,
    path: &RelativePath,
    kind: EntryKind,
) -> Result<(), TargetError> {
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let mtime = Timestamp { seconds: 12_345, nanos: 678 };
    let wanted = Metadata { mode: 0o777, uid: me.0, gid: me.1, mtime, ..Metadata::default() };
    let errors = MetadataWriter::new(MetadataOptions::default()).apply_to_path(root, path, kind, &wanted);
    match errors.into_iter().next() {
        None => Ok(()),
        Some(MetadataError::Entry(error)) => Err(error),
        Some(other) => panic!("{other}"),
    }
}

#[test]
fn names_that_are_no_names_are_refused() {
    let long = [b'x'; 256];
    let cases: [&[u8]; 18] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"/a",
        b"a/",
        b"../a",
        b"a/..",
        b"//",
        b"\0",
        b"a\0",
        b"\0a",
        b"a\0/b",
        b"./a",
        b"/etc/passwd",
        b"../../etc/passwd",
        &long,
    ];
    for name in cases {
        assert!(check_name(name).is_err(), "{}", name.escape_ascii());
        assert!(RelativePath::root().join(name).is_err(), "{}", name.escape_ascii());
        assert!(path("a").join(name).is_err(), "{}", name.escape_ascii());
    }
    for list in [&b"/a"[..], b"a/", b"a//b", b"a/../b", b"a/./b", b"..", b"/"] {
        assert!(RelativePath::parse(list).is_err(), "{}", list.escape_ascii());
    }
    assert_eq!(check_name(b"a\0"), Err(NameError::Byte { name: "a\\u{0}".to_owned(), byte: 0, at: 1 }));
    for fine in [&b"..."[..], b".a", b"a..", b" ", b"\n", b"\xff\xfe", b"-rf", b"\\", b"~", b"*"] {
        assert_eq!(check_name(fine), Ok(()), "{}", fine.escape_ascii());
    }
}

#[test]
fn the_target_itself_is_no_entry() {
    let sandbox = Sandbox::new();
    let root = sandbox.open(RESOLUTIONS[0]);
    for (name, operation) in OPERATIONS {
        let expected = match name {
            "stat" | "entries" | "metadata of a directory" => "ok",
            "metadata of a file" | "metadata of a link" | "open_existing" => "in the way: directory",
            _ => "root",
        };
        assert_eq!(outcome(&operation(&root, &RelativePath::root())), expected, "{name}");
    }
}

/// Puts something at a path of the sandbox's target.
type Plant = fn(&Sandbox, &Path);

/// What may stand where a directory should, on the way to an entry.
const IMPOSTORS: [(&str, Plant); 9] = [
    ("absolute link outside", |sandbox, at| symlink(sandbox.outside(), at).unwrap()),
    ("relative link outside", |sandbox, at| {
        let up = "../".repeat(at.strip_prefix(sandbox.target()).unwrap().components().count());
        symlink(format!("{up}outside"), at).unwrap();
    }),
    ("link to a directory in the target", |sandbox, at| symlink(sandbox.at("own dir"), at).unwrap()),
    ("link to /", |_, at| symlink("/", at).unwrap()),
    ("link to a magic link", |_, at| symlink("/proc/self/cwd", at).unwrap()),
    ("link to itself", |_, at| symlink(at.file_name().unwrap(), at).unwrap()),
    ("link to nothing", |_, at| symlink("nothing", at).unwrap()),
    ("file", |_, at| fs::write(at, "").unwrap()),
    ("pipe", |_, at| rustix::fs::mkfifoat(CWD, at, Mode::RUSR).unwrap()),
];

#[test]
fn nothing_goes_through_an_impostor_at_any_depth() {
    for resolution in RESOLUTIONS {
        for (what, plant) in IMPOSTORS {
            for depth in ["", "a/", "a/b/"] {
                for below in ["victim", "link", "new", "sub/deep", "sub/new"] {
                    let sandbox = Sandbox::new();
                    fs::create_dir_all(sandbox.at("a/b")).unwrap();
                    fs::create_dir_all(sandbox.at("own dir/sub")).unwrap();
                    fs::write(sandbox.at("own"), "own").unwrap();
                    plant(&sandbox, &sandbox.at(&format!("{depth}impostor")));
                    let before = fingerprint(sandbox.target().parent().unwrap());
                    let entry = path(&format!("{depth}impostor/{below}"));
                    for root in [sandbox.open(resolution), sandbox.open_cached(resolution)] {
                        for (name, operation) in OPERATIONS {
                            let result = outcome(&operation(&root, &entry));
                            assert_eq!(result, "parent", "{name} through {what} at {entry}, {resolution:?}");
                        }
                    }
                    assert_eq!(before, fingerprint(sandbox.target().parent().unwrap()), "{what} at {entry}");
                }
            }
        }
    }
}

#[test]
fn a_link_in_the_place_of_the_entry_is_never_followed() {
    // What happens to the entry `x`, a link to a file or directory outside, by operation.
    let expected = |operation: &str| match operation {
        "make_dir"
        | "create_file"
        | "open_existing"
        | "symlink"
        | "hard_link, new"
        | "make_node"
        | "metadata of a file"
        | "metadata of a directory" => "in the way: symbolic link",
        "entries" => "parent",
        _ => "ok",
    };
    for resolution in RESOLUTIONS {
        for victim in ["victim", "sub", "link", "absent"] {
            for (name, operation) in OPERATIONS {
                let sandbox = Sandbox::new();
                fs::write(sandbox.at("own"), "own").unwrap();
                symlink(sandbox.outside().join(victim), sandbox.at("x")).unwrap();
                let before = sandbox.outside_fingerprint();
                let result = outcome(&operation(&sandbox.open(resolution), &path("x")));
                assert_eq!(result, expected(name), "{name} on a link to {victim}, {resolution:?}");
                assert_eq!(
                    before,
                    sandbox.outside_fingerprint(),
                    "{name} on a link to {victim}, {resolution:?}"
                );
                let now = fs::symlink_metadata(sandbox.at("x")).ok();
                let replaced = name.contains("replacing") || name.starts_with("remove");
                assert_eq!(
                    now.is_some_and(|stat| stat.is_symlink()),
                    !replaced || name.starts_with("symlink")
                );
            }
        }
    }
}

/// One thing in the place of an entry, one operation, what must come of it.
struct Case {
    what: &'static str,
    plant: fn(&Sandbox),
    act: fn(&TargetRoot) -> Result<(), TargetError>,
    expect: &'static str,
    then: fn(&Sandbox) -> bool,
}

const OWN_DIR: fn(&Sandbox) = |sandbox| fs::create_dir_all(sandbox.at("x/y")).unwrap();
const PIPE: fn(&Sandbox) = |sandbox| rustix::fs::mkfifoat(CWD, sandbox.at("x"), Mode::RWXU).unwrap();
const HARD_LINK: fn(&Sandbox) =
    |sandbox| fs::hard_link(sandbox.outside().join("victim"), sandbox.at("x")).unwrap();

fn is_dir(sandbox: &Sandbox) -> bool {
    fs::symlink_metadata(sandbox.at("x")).is_ok_and(|stat| stat.is_dir())
}

fn is_empty_file(sandbox: &Sandbox) -> bool {
    fs::symlink_metadata(sandbox.at("x"))
        .is_ok_and(|stat| stat.is_file() && stat.len() == 0 && stat.nlink() == 1)
}

const CASES: [Case; 18] = [
    Case {
        what: "a pipe in the place of a file neither blocks nor is opened",
        plant: PIPE,
        act: |root| root.open_existing(&path("x")).map(drop),
        expect: "in the way: named pipe",
        then: |_| true,
    },
    Case {
        what: "a pipe in the place of a new file is refused",
        plant: PIPE,
        act: |root| root.create_file(&path("x"), 0o600, Refuse).map(drop),
        expect: "in the way: named pipe",
        then: |_| true,
    },
    Case {
        what: "a pipe in the place of a new file is replaced",
        plant: PIPE,
        act: |root| root.create_file(&path("x"), 0o600, Replace).map(drop),
        expect: "ok",
        then: is_empty_file,
    },
    Case {
        what: "a socket in the place of a file is not connected to",
        plant: |sandbox| drop(std::os::unix::net::UnixListener::bind(sandbox.at("x")).unwrap()),
        act: |root| root.open_existing(&path("x")).map(drop),
        expect: "in the way: socket",
        then: |_| true,
    },
    Case {
        what: "a directory in the place of a file is not replaced",
        plant: OWN_DIR,
        act: |root| root.create_file(&path("x"), 0o600, Replace).map(drop),
        expect: "in the way: directory",
        then: |sandbox| sandbox.at("x/y").is_dir(),
    },
    Case {
        what: "a directory in the place of a link is not replaced",
        plant: OWN_DIR,
        act: |root| root.symlink(&path("x"), b"y", Replace),
        expect: "in the way: directory",
        then: |sandbox| sandbox.at("x/y").is_dir(),
    },
    Case {
        what: "a directory is not removed as a file",
        plant: OWN_DIR,
        act: |root| root.remove(&path("x")),
        expect: "in the way: directory",
        then: |sandbox| sandbox.at("x/y").is_dir(),
    },
    Case {
        what: "an existing directory is used",
        plant: OWN_DIR,
        act: |root| root.make_dir(&path("x"), 0o700, Refuse).map(|made| assert_eq!(made, MadeDir::Existing)),
        expect: "ok",
        then: |sandbox| sandbox.at("x/y").is_dir(),
    },
    Case {
        what: "a file in the place of a directory is refused",
        plant: |sandbox| fs::write(sandbox.at("x"), "").unwrap(),
        act: |root| root.make_dir(&path("x"), 0o700, Refuse).map(drop),
        expect: "in the way: file",
        then: is_empty_file,
    },
    Case {
        what: "a file in the place of a directory is replaced",
        plant: |sandbox| fs::write(sandbox.at("x"), "").unwrap(),
        act: |root| root.make_dir(&path("x"), 0o700, Replace).map(drop),
        expect: "ok",
        then: is_dir,
    },
    Case {
        what: "a hard link of a file outside is not written to",
        plant: HARD_LINK,
        act: |root| root.open_existing(&path("x")).map(|file| file.map_or((), scribble)),
        expect: "shared by 2",
        then: |_| true,
    },
    Case {
        what: "a hard link of a file outside gets no metadata",
        plant: HARD_LINK,
        act: |root| hostile_metadata(root, &path("x"), EntryKind::File),
        expect: "shared by 2",
        then: |_| true,
    },
    Case {
        what: "a hard link of a file outside is replaced and not truncated",
        plant: HARD_LINK,
        act: |root| root.create_file(&path("x"), 0o600, Replace).map(scribble),
        expect: "ok",
        then: |sandbox| fs::read(sandbox.at("x")).unwrap() == b"overwritten",
    },
    Case {
        what: "a hard link to a link is a second name of the link",
        plant: |sandbox| symlink(sandbox.outside().join("victim"), sandbox.at("y")).unwrap(),
        act: |root| root.hard_link(&path("y"), &path("x"), Refuse).map(drop),
        expect: "ok",
        then: |sandbox| fs::symlink_metadata(sandbox.at("x")).unwrap().is_symlink(),
    },
    Case {
        what: "a directory gets no hard link",
        plant: |sandbox| fs::create_dir(sandbox.at("y")).unwrap(),
        act: |root| root.hard_link(&path("y"), &path("x"), Refuse).map(drop),
        expect: "PermissionDenied",
        then: |sandbox| !sandbox.at("x").exists(),
    },
    Case {
        what: "a link made again between the same names is left alone",
        plant: |sandbox| {
            fs::write(sandbox.at("y"), "").unwrap();
            fs::hard_link(sandbox.at("y"), sandbox.at("x")).unwrap();
        },
        act: |root| root.hard_link(&path("y"), &path("x"), Replace).map(drop),
        expect: "ok",
        then: |sandbox| fs::metadata(sandbox.at("x")).unwrap().nlink() == 2,
    },
    Case {
        what: "a device number that would be cut to another device's is refused",
        plant: |_| {},
        act: |root| {
            let device = SpecialNode::CharDevice { major: 0x1000 + 1, minor: 3 };
            root.make_node(&path("x"), device, 0o600, Refuse)
        },
        expect: "device number",
        then: |sandbox| !sandbox.at("x").exists(),
    },
    Case {
        what: "a link's text may be anything, it is only stored",
        plant: |_| {},
        act: |root| root.symlink(&path("x"), b"../../../../../../etc/passwd", Refuse),
        expect: "ok",
        then: |sandbox| fs::symlink_metadata(sandbox.at("x")).unwrap().is_symlink(),
    },
];

#[test]
fn things_in_the_way() {
    for resolution in RESOLUTIONS {
        for case in &CASES {
            let sandbox = Sandbox::new();
            (case.plant)(&sandbox);
            let before = sandbox.outside_fingerprint();
            assert_eq!(outcome(&(case.act)(&sandbox.open(resolution))), case.expect, "{}", case.what);
            assert_eq!(before, sandbox.outside_fingerprint(), "{}", case.what);
            assert!((case.then)(&sandbox), "{}", case.what);
        }
    }
}

#[test]
fn a_tree_is_removed_without_what_its_links_point_to() {
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        fs::create_dir_all(sandbox.at("x/a/b")).unwrap();
        for (at, to) in [("x/l", "sub"), ("x/a/l", ""), ("x/a/b/l", "victim")] {
            symlink(sandbox.outside().join(to), sandbox.at(at)).unwrap();
        }
        symlink("/", sandbox.at("x/a/root")).unwrap();
        fs::hard_link(sandbox.outside().join("victim"), sandbox.at("x/a/hard")).unwrap();
        rustix::fs::mkfifoat(CWD, sandbox.at("x/pipe"), Mode::RUSR).unwrap();
        let before = sandbox.outside_fingerprint();
        sandbox.open(resolution).remove_tree(&path("x")).unwrap();
        assert_eq!(before, sandbox.outside_fingerprint());
        assert_eq!(fs::read_dir(sandbox.target()).unwrap().count(), 0);
    }
}

#[test]
fn paths_longer_than_a_system_call_takes_work_from_end_to_end() {
    for resolution in RESOLUTIONS {
        for (cached, levels) in [(true, 60), (false, 30)] {
            let sandbox = Sandbox::new();
            let root = TargetRoot::open_as(&sandbox.target(), resolution, cached).unwrap();
            let name = [b'd'; 250];
            let mut at = RelativePath::root();
            for _ in 0..levels {
                at = at.join(&name).unwrap();
                assert_eq!(root.make_dir(&at, 0o700, Refuse).unwrap(), MadeDir::Created);
            }
            assert!(at.as_bytes().len() > 4096);
            let file = at.join(b"file").unwrap();
            scribble(root.create_file(&file, 0o600, Refuse).unwrap());
            hostile_metadata(&root, &file, EntryKind::File).unwrap();
            let fresh = sandbox.open(resolution);
            assert_eq!(fresh.stat(&file).unwrap().unwrap().mtime, Timestamp { seconds: 12_345, nanos: 678 });
            let mut text = String::new();
            fresh.open_existing(&file).unwrap().unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "overwritten");
            assert!(!fresh.is_empty(&at).unwrap());
            fresh.remove_tree(&RelativePath::root().join(&name).unwrap()).unwrap();
            assert!(fresh.is_empty(&RelativePath::root()).unwrap());
        }
    }
}

#[test]
fn a_tree_deeper_than_there_are_handles_is_removed() {
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        let root = sandbox.open_cached(resolution);
        let mut at = RelativePath::root();
        for level in 0..1500 {
            at = at.join(b"d").unwrap();
            root.make_dir(&at, 0o700, Refuse).unwrap();
            if level % 50 == 0 {
                root.create_file(&at.join(b"f").unwrap(), 0o600, Refuse).unwrap();
                root.make_dir(&at.join(b"e").unwrap(), 0o700, Refuse).unwrap();
            }
        }
        root.remove_tree(&path("d")).unwrap();
        assert!(root.stat(&path("d")).unwrap().is_none());
        assert_eq!(fs::read_dir(sandbox.target()).unwrap().count(), 0);
    }
}

#[test]
fn a_directory_that_was_made_anew_is_found_again() {
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        let root = sandbox.open_cached(resolution);
        let create = |name: &str| root.create_file(&path(name), 0o600, Refuse).map(drop);
        root.make_dir(&path("a"), 0o700, Refuse).unwrap();
        root.make_dir(&path("a/b"), 0o700, Refuse).unwrap();
        create("a/b/1").unwrap();
        root.remove_tree(&path("a")).unwrap();
        assert_eq!(outcome(&create("a/b/2")), "NotFound");
        fs::create_dir_all(sandbox.at("a/b")).unwrap();
        create("a/b/3").unwrap();
        // Somebody else does the same behind our back.
        fs::remove_dir_all(sandbox.at("a")).unwrap();
        fs::create_dir_all(sandbox.at("a/b")).unwrap();
        create("a/b/4").unwrap();
        assert!(sandbox.at("a/b/4").exists());
    }
}

#[test]
fn read_only_files_and_directories_of_ours_are_opened_without_privilege() {
    const NAME: &str = "read_only_files_and_directories_of_ours_are_opened_without_privilege";
    if !as_nobody(&format!("{}::{NAME}", module_path!().split_once("::").unwrap().1)) {
        return;
    }
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        let root = sandbox.open(resolution);
        let chmod = |name: &str, mode| {
            fs::set_permissions(sandbox.at(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o444, 0o000, 0o200] {
            fs::write(sandbox.at("file"), "").unwrap();
            chmod("file", mode);
            scribble(root.open_existing(&path("file")).unwrap().unwrap());
            assert_eq!(fs::read(sandbox.at("file")).unwrap(), b"overwritten");
            fs::remove_file(sandbox.at("file")).unwrap();
        }
        for mode in [0o555, 0o000] {
            fs::create_dir_all(sandbox.at("dir/sub")).unwrap();
            chmod("dir/sub", mode);
            chmod("dir", mode);
            assert_eq!(root.make_dir(&path("dir"), 0o700, Refuse).unwrap(), MadeDir::Existing);
            root.create_file(&path("dir/new"), 0o600, Refuse).unwrap();
            chmod("dir", mode);
            root.remove_tree(&path("dir")).unwrap();
        }
        // Nobody else's: no right is taken.
        let device = SpecialNode::BlockDevice { major: 7, minor: 0 };
        let refused = root.make_node(&path("device"), device, 0o600, Refuse).unwrap_err();
        assert!(refused.is_not_permitted(), "{refused}");
    }
}

#[test]
fn devices_are_made_with_their_number() {
    if !is_root() {
        return cannot("make devices", &"not root");
    }
    for resolution in RESOLUTIONS {
        let sandbox = Sandbox::new();
        let root = sandbox.open(resolution);
        let node = SpecialNode::CharDevice { major: 4095, minor: 0xf_ffff };
        match root.make_node(&path("x"), node, 0o600, Refuse) {
            Err(error) if error.is_not_permitted() => {
                return cannot("make devices", &"that is not permitted here");
            }
            other => other.unwrap(),
        }
        let stat = root.stat(&path("x")).unwrap().unwrap();
        assert_eq!((stat.kind, stat.special), (EntryKind::CharDevice, (4095, 0xf_ffff)));
        assert_eq!(outcome(&root.open_existing(&path("x"))), "in the way: character device");
    }
}
