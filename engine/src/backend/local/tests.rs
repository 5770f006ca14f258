//! What only a local repository has: files, folders, links, modes and what is left of dead writers.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Mutex;
use std::thread;

use tempfile::TempDir;

use super::super::testing::conformance;
use super::*;

fn scratch() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn repository() -> (TempDir, LocalBackend) {
    let folder = scratch();
    let backend = LocalBackend::create_repository(&folder.path().join("repo")).expect("a repository");
    (folder, backend)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("there").mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode set");
}

fn temporary_files(backend: &LocalBackend) -> usize {
    fs::read_dir(backend.path.join(TEMPORARY)).expect("tmp").count()
}

fn pack(digit: &str) -> ObjectKey {
    ObjectKey::in_folder(Folder::Packs, &digit.repeat(64))
}

fn list_all(backend: &LocalBackend, folder: Folder) -> Result<Vec<ObjectKey>, BackendError> {
    let mut keys = Vec::new();
    backend.list(folder, None, &mut |info| {
        keys.push(info.key);
        ControlFlow::Continue(())
    })?;
    Ok(keys)
}

/// Runs the conformance suite on local repositories after `prepare`.
fn check_conformance(prepare: impl Fn(&LocalBackend)) {
    let kept = Mutex::new(Vec::new());
    conformance::check(|| {
        let (folder, backend) = repository();
        prepare(&backend);
        kept.lock().expect("no panic").push((folder, backend.path.clone()));
        Box::new(backend)
    });
    for (_, path) in kept.into_inner().expect("no panic") {
        let left = fs::read_dir(path.join(TEMPORARY)).expect("tmp").count();
        assert_eq!(left, 0, "temporary files are left behind");
    }
}

#[test]
fn conforms() {
    check_conformance(|_| ());
}

#[test]
fn conforms_with_links_instead_of_renames() {
    check_conformance(|backend| {
        backend.publication.force_links();
        backend.probe().expect("links are enough");
    });
}

#[test]
fn storage_without_any_way_to_publish_is_refused() {
    let (_folder, backend) = repository();
    backend.publication.forbid_all();
    for result in [backend.probe(), backend.create(&ObjectKey::log(1), b"x").map(drop)] {
        match result {
            Err(BackendError::Unsuitable { location, .. }) => assert_eq!(location, backend.location()),
            other => panic!("storage that cannot publish gave {other:?}"),
        }
    }
    assert!(backend.stat(&ObjectKey::log(1)).expect_err("not stored").is_not_found());
    assert_eq!(temporary_files(&backend), 0);
}

#[test]
fn folders_and_objects_are_private_and_objects_read_only() {
    let folder = scratch();
    let path = folder.path().join("a/b/repo");
    let backend = LocalBackend::create_repository(&path).expect("missing parents are made");
    backend.create(&pack("a"), b"x").expect("created");
    backend.create(&ObjectKey::config(), b"x").expect("created");
    for made in ["a", "a/b", "a/b/repo", "a/b/repo/tmp", "a/b/repo/packs", "a/b/repo/packs/aa"] {
        assert_eq!(mode(&folder.path().join(made)), 0o700, "{made}");
    }
    for folder in Folder::ALL {
        assert_eq!(mode(&path.join(folder.name())), 0o700);
    }
    assert_eq!(mode(&path.join("config")), 0o400);
    assert_eq!(mode(&path.join(pack("a").as_str())), 0o400);
}

#[test]
fn creating_twice_keeps_what_is_there() {
    let (_folder, backend) = repository();
    backend.create(&ObjectKey::config(), b"first").expect("created");
    let again = LocalBackend::create_repository(&backend.path).expect("not an error");
    assert_eq!(again.create(&ObjectKey::config(), b"second").expect("exists"), Created::Exists);
    let reopened = LocalBackend::open(&backend.path).expect("opened");
    assert_eq!(reopened.read(&ObjectKey::config(), 9).expect("read"), b"first");
    assert_eq!(reopened.location(), backend.path.display().to_string());
    assert_eq!(temporary_files(&backend), 0, "the trial leaves nothing");
}

#[test]
fn several_may_create_one_repository_at_once() {
    let folder = scratch();
    let path = folder.path().join("x/y/z/repo");
    let made: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| LocalBackend::create_repository(&path))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let news = made.iter().filter(|backend| {
        let backend = backend.as_ref().expect("all succeed");
        backend.create(&ObjectKey::config(), b"c").expect("created") == Created::New
    });
    assert_eq!(news.count(), 1);
}

#[test]
fn what_cannot_be_opened_or_made_is_named() {
    let folder = scratch();
    let missing = folder.path().join("missing");
    let error = LocalBackend::open(&missing).expect_err("missing").to_string();
    assert_eq!(error, format!("cannot open {}: No such file or directory (os error 2)", missing.display()));
    assert!(!missing.exists(), "opening makes nothing");

    let file = folder.path().join("file");
    fs::write(&file, b"").expect("a file");
    for path in [file.clone(), file.join("repo")] {
        let error = LocalBackend::create_repository(&path).expect_err("a file is in the way").to_string();
        assert!(error.contains(&path.display().to_string()) && error.contains("Not a directory"), "{error}");
    }
}

#[test]
fn a_missing_repository_folder_is_named_and_not_begun_anew() {
    let (_folder, backend) = repository();
    for (folder, key) in [(Folder::Log, ObjectKey::log(1)), (Folder::Packs, pack("b"))] {
        let path = backend.path.join(folder.name());
        fs::remove_dir_all(&path).expect("removed");
        let error = backend.create(&key, b"x").expect_err("no folder").to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        assert!(!path.exists());
        assert!(list_all(&backend, folder).expect("empty").is_empty());
        assert!(backend.read(&key, 9).expect_err("nothing there").is_not_found());
    }
    fs::remove_dir_all(&backend.path).expect("all removed");
    let error = backend.create(&ObjectKey::state(1), b"x").expect_err("no repository").to_string();
    assert!(error.contains(&backend.path.join("state").display().to_string()), "{error}");
}

#[test]
fn a_cleared_temporary_folder_is_made_again() {
    let (_folder, backend) = repository();
    fs::remove_dir(backend.path.join(TEMPORARY)).expect("removed");
    assert_eq!(backend.clean().expect("nothing to clean"), 0);
    backend.create(&ObjectKey::log(1), b"x").expect("created");
    assert_eq!(mode(&backend.path.join(TEMPORARY)), 0o700);
}

#[test]
fn storage_that_cannot_be_written_is_a_clear_error() {
    let (_folder, backend) = repository();
    for (path, mode) in [("", 0o755), ("tmp", 0o777), ("log", 0o555), ("state", 0o755)] {
        set_mode(&backend.path.join(path), mode);
    }
    let create = || backend.create(&ObjectKey::log(1), b"x");
    // The superuser may write anywhere: the thread that tries becomes somebody else, it alone.
    let nobody = rustix::process::Uid::from_raw(65534);
    let result = thread::scope(|scope| {
        let as_nobody = || {
            if rustix::process::geteuid().is_root() {
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("the superuser may");
            }
            create()
        };
        scope.spawn(as_nobody).join().expect("no panic")
    });
    let error = result.expect_err("a read-only folder").to_string();
    let path = backend.path.join(ObjectKey::log(1).as_str());
    assert_eq!(error, format!("cannot publish {}: Permission denied (os error 13)", path.display()));
    assert_eq!(temporary_files(&backend), 0, "the temporary file is removed");
    assert!(backend.stat(&ObjectKey::log(1)).expect_err("not stored").is_not_found());
    set_mode(&backend.path.join("log"), 0o700);
    assert_eq!(create().expect("writable again"), Created::New);
}

#[test]
fn links_are_not_followed() {
    let (folder, backend) = repository();
    let secret = folder.path().join("secret");
    fs::write(&secret, b"secret").expect("written");
    let key = ObjectKey::log(1);
    symlink(&secret, backend.path.join(key.as_str())).expect("a link in an object's place");
    for result in [
        backend.read(&key, 99).map(drop),
        backend.stat(&key).map(drop),
        backend.open(&key, 99).map(drop),
        backend.read_range(&key, 0, &mut [0]),
        list_all(&backend, Folder::Log).map(drop),
    ] {
        let error = result.expect_err("a link").to_string();
        assert!(error.contains(key.as_str()) && error.contains("not a regular file"), "{error}");
    }
    assert_eq!(backend.create(&key, b"x").expect("taken"), Created::Exists);
    assert_eq!(fs::read(&secret).expect("read"), b"secret");

    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).expect("made");
    symlink(&elsewhere, backend.path.join("packs/cc")).expect("a link in a folder's place");
    backend.create(&pack("c"), b"x").expect_err("a folder that is a link");
    list_all(&backend, Folder::Packs).expect_err("a folder that is a link");
    assert_eq!(fs::read_dir(&elsewhere).expect("read").count(), 0);
}

#[test]
fn foreign_names_are_not_listed() {
    let (_folder, backend) = repository();
    backend.create(&pack("d"), b"x").expect("created");
    backend.create(&ObjectKey::log(1), b"x").expect("created");
    let misplaced = format!("packs/dd/{}", "e".repeat(64));
    for foreign in ["log/1", "log/00000000000000000002.tmp", "log/.hidden", "packs/README", &misplaced] {
        fs::write(backend.path.join(foreign), b"x").expect("written");
    }
    fs::create_dir(backend.path.join("packs/lost+found")).expect("made");
    assert_eq!(list_all(&backend, Folder::Packs).expect("listed"), [pack("d")]);
    assert_eq!(list_all(&backend, Folder::Log).expect("listed"), [ObjectKey::log(1)]);
}

#[test]
fn a_temporary_file_is_removed_only_when_its_writer_is_gone() {
    let (_folder, backend) = repository();
    let tmp = backend.temporary_folder().expect("tmp");
    let in_use = TemporaryFile::write(&tmp, &backend.names, b"being written").expect("written");
    fs::write(backend.path.join("tmp/left-by-a-dead-writer"), b"part").expect("written");
    fs::create_dir(backend.path.join("tmp/folder")).expect("made");

    let other = LocalBackend::open(&backend.path).expect("opened");
    assert_eq!(other.clean().expect("cleaned"), 1);
    assert_eq!(temporary_files(&backend), 2, "the folder and the file in use stay");
    let log = backend.open_folder("log").expect("opened").expect("there");
    let key = ObjectKey::log(1);
    let published = in_use.publish(&log, key.name(), &backend.publication);
    assert!(matches!(published, Ok(Created::New)));
    drop(in_use);
    assert_eq!(backend.read(&key, 99).expect("published"), b"being written");
    assert_eq!(other.clean().expect("cleaned"), 0);
}

#[test]
fn a_temporary_file_taken_away_is_an_error_and_publishes_nothing() {
    for links in [false, true] {
        let (_folder, backend) = repository();
        if links {
            backend.publication.force_links();
        }
        let file = TemporaryFile::write(&backend.temporary_folder().expect("tmp"), &backend.names, b"x");
        let file = file.unwrap_or_else(|error| panic!("{error}"));
        for entry in fs::read_dir(backend.path.join(TEMPORARY)).expect("tmp") {
            fs::remove_file(entry.expect("an entry").path()).expect("removed");
        }
        let log = backend.open_folder("log").expect("opened").expect("there");
        let published = file.publish(&log, ObjectKey::log(1).name(), &backend.publication);
        assert!(matches!(published, Err(NotPublished::Failed(Errno::NOENT))));
        assert!(list_all(&backend, Folder::Log).expect("listed").is_empty());
    }
}

#[test]
fn a_link_whose_answer_was_lost_is_recognised() {
    let (_folder, backend) = repository();
    backend.publication.force_links();
    let tmp = backend.temporary_folder().expect("tmp");
    let file = TemporaryFile::write(&tmp, &backend.names, b"x").unwrap_or_else(|error| panic!("{error}"));
    let log = backend.open_folder("log").expect("opened").expect("there");
    for _ in 0..2 {
        let published = file.publish(&log, ObjectKey::log(1).name(), &backend.publication);
        assert!(matches!(published, Ok(Created::New)), "the link is this file's own");
    }
}

#[test]
fn ranges_of_one_pack_open_it_once_and_survive_its_removal() {
    let (_folder, backend) = repository();
    let key = pack("f");
    backend.create(&key, b"0123456789").expect("created");
    let mut buffer = [0; 4];
    backend.read_range(&key, 2, &mut buffer).expect("read");
    fs::remove_file(backend.path.join(key.as_str())).expect("removed behind the backend's back");
    backend.read_range(&key, 6, &mut buffer).expect("the file is still open");
    assert_eq!(&buffer, b"6789");
    backend.delete(&key).expect("closed");
    assert!(backend.read_range(&key, 6, &mut buffer).expect_err("gone").is_not_found());
}

#[test]
fn an_object_that_shrinks_while_open_is_truncated() {
    let (_folder, backend) = repository();
    let key = pack("f");
    backend.create(&key, b"0123456789").expect("created");
    backend.read_range(&key, 0, &mut [0; 10]).expect("read");
    let path = backend.path.join(key.as_str());
    set_mode(&path, 0o600);
    fs::write(&path, b"01234").expect("cut");
    match backend.read_range(&key, 3, &mut [0; 4]) {
        Err(BackendError::OutOfRange { size: 5, start: 3, end: 7, .. }) => {}
        other => panic!("a truncated object gave {other:?}"),
    }
}
