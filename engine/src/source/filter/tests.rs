//! Tests of all rules together, on real directories where a rule looks at them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use super::*;
use crate::source::Spill;
use crate::source::dir::ListBuffer;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn excluding(patterns: &[&str]) -> Filter {
    Filter::new(FilterOptions { exclude: strings(patterns), ..FilterOptions::default() }).unwrap()
}

fn hits(filter: &Filter, path: &[u8]) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    filter.excluded(&filter.above_root(1), path, SourceKind::File, 0).is_some()
}

fn error_of(options: FilterOptions) -> String {
    Filter::new(options).unwrap_err().to_string()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape of a callback")]
fn no_warning(error: FilterError) {
    panic!("{error}");
}

/// Enters the directory at `path`, telling warnings as text.
fn entered(filter: &Filter, parent: &DirFilter, path: &Path) -> (DirFilter, Vec<String>) {
    let mut dir = SourceDir::open_root(path).unwrap();
    let mut enter = |spill| {
        let names = dir.list(&mut ListBuffer::new(spill)).unwrap();
        let mut warnings = Vec::new();
        let below = filter.enter(parent, path, &dir, &names, &mut |error| warnings.push(error.to_string()));
        (below, warnings)
    };
    // Names that are not in memory have to be asked for.
    let (spilled, told) = enter(Spill { place: None, run_len: 1 });
    let (below, warnings) = enter(Spill::default());
    assert_eq!((format!("{spilled:?}"), told), (format!("{below:?}"), warnings.clone()));
    (below, warnings)
}

fn reason(filter: &Filter, dir: &DirFilter, path: &Path) -> Option<String> {
    let kind = if path.is_dir() { SourceKind::Directory } else { SourceKind::File };
    filter.excluded(dir, path, kind, 0).map(|reason| reason.to_string())
}

#[test]
fn patterns_mean_what_they_mean_to_restic() {
    let cases: &[(&str, &str, bool)] = &[
        ("foo", "/foo", true),
        ("foo", "/a/b/foo", true),
        ("foo", "/a/foobar", false),
        ("foo/", "/a/foo", true),
        ("foo//./bar", "/a/foo/bar", true),
        ("*.o", "/a/.o", true),
        ("*.o", "/a/x.o", true),
        ("*.o", "/a/x.oo", false),
        ("foo/bar", "/a/foo/bar", true),
        ("foo/bar", "/a/foo/x/bar", false),
        ("foo/**/bar", "/a/foo/bar", true),
        ("foo/**/bar", "/a/foo/x/y/bar", true),
        ("/a/*/c", "/a/b/c", true),
        ("/a/*/c", "/a/b/b/c", false),
        ("/a/*/c", "/x/a/b/c", false),
        ("/a/**", "/a/b/c", true),
        ("/a/**", "/a", false),
        ("/a", "/ab", false),
        ("file?", "/file1", true),
        ("file?", "/file", false),
        ("[a-c]x", "/bx", true),
        ("[!a-c]x", "/bx", false),
        ("[^a-c]x", "/dx", true),
        (r"a\*b", "/a*b", true),
        (r"a\*b", "/axb", false),
        (r"\!a", "/!a", true),
        ("*.{o,a}", "/x.a", true),
        ("b*ash", "/bin/ash", false),
        ("A", "/a", false),
        ("**", "/a/b", true),
    ];
    for &(pattern, path, expected) in cases {
        assert_eq!(hits(&excluding(&[pattern]), path.as_bytes()), expected, "{pattern} on {path}");
    }
}

#[test]
fn names_are_bytes() {
    let filter = excluding(&["*.tmp", "a*z", "q?q"]);
    assert!(hits(&filter, b"/x/\xff\xfe.tmp"));
    assert!(hits(&filter, b"/x/line\nfeed.tmp"));
    assert!(hits(&filter, b"/a\n\xffz"));
    assert!(hits(&filter, b"/q\xffq"));
    assert!(hits(&filter, b"/q\nq"));
    assert!(!hits(&filter, b"/x/\xff\xfe.tmpx"));
}

#[test]
fn the_last_matching_rule_decides() {
    let filter = excluding(&["*.log", "!keep", "/etc/*", "!/etc/ssl", "*.bak"]);
    assert!(hits(&filter, b"/var/a.log"));
    assert!(!hits(&filter, b"/var/keep/a.log"), "all below what is kept is kept");
    assert!(!hits(&filter, b"/var/keep/x/y.log"));
    assert!(hits(&filter, b"/etc/passwd"));
    assert!(!hits(&filter, b"/etc/ssl"));
    assert!(!hits(&filter, b"/etc/ssl/key"));
    assert!(hits(&filter, b"/etc/ssl/key.bak"));
    assert!(hits(&filter, b"/keep/x.bak"), "a later rule hits again");
}

#[test]
fn case_is_ignored_on_request_only_beyond_ascii_too() {
    let options =
        FilterOptions { iexclude: strings(&["*.JPG", "ÄPFEL", "[A-C]1"]), ..FilterOptions::default() };
    let filter = Filter::new(options).unwrap();
    assert!(hits(&filter, b"/a/b.Jpg"));
    assert!(hits(&filter, b"/a/\xff.jPG"));
    assert!(hits(&filter, "/äpfel".as_bytes()));
    assert!(hits(&filter, b"/b1"));
    assert!(!hits(&filter, b"/d1"));
}

#[test]
fn invalid_patterns_are_named_with_their_place() {
    let of =
        |pattern: &str| error_of(FilterOptions { exclude: strings(&["ok", pattern]), ..Default::default() });
    let text = of("a[b");
    assert!(
        text.starts_with("given as an option: the pattern \"a[b\" is not valid: unclosed character class"),
        "{text}"
    );
    assert!(of("a{b").contains("\"a{b\" is not valid: unclosed alternate group"), "{}", of("a{b"));
    assert!(of("").ends_with("it names nothing"));
    assert!(of("!").ends_with("it names nothing"));
    assert!(of("/").ends_with("it names nothing"));
    assert!(of("a/../b").contains("\"a/../b\" is not valid: no path of the source holds"));
    let case = error_of(FilterOptions { iexclude: strings(&["X[Y"]), ..Default::default() });
    assert!(case.contains("\"X[Y\""), "as it was written: {case}");
}

#[test]
fn pattern_files_are_read_and_errors_name_file_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("excludes");
    let options = || FilterOptions { exclude_files: vec![path.clone()], ..Default::default() };
    fs::write(&path, "# comment\n\n  *.o \r\n!keep.o\n").unwrap();
    let filter = Filter::new(options()).unwrap();
    assert!(hits(&filter, b"/a/x.o"));
    assert!(!hits(&filter, b"/a/keep.o"));
    assert!(!hits(&filter, b"/# comment"));
    let above = filter.above_root(1);
    let why = filter.excluded(&above, Path::new("/x.o"), SourceKind::File, 0).unwrap().to_string();
    assert_eq!(why, format!("the pattern \"*.o\" ({}, line 3)", path.display()));

    fs::write(&path, "fine\n\n[oops\n").unwrap();
    let text = error_of(options());
    assert!(
        text.starts_with(&format!("{}, line 3: the pattern \"[oops\" is not valid", path.display())),
        "{text}"
    );
    fs::write(&path, b"fine\n\xff\n").unwrap();
    assert!(error_of(options()).contains("line 2: the pattern \"\u{fffd}\" is not valid: it is not UTF-8"));
    fs::remove_file(&path).unwrap();
    assert!(error_of(options()).starts_with(&format!("cannot read {}: No such file", path.display())));
}

#[test]
fn sizes_limit_regular_files_only() {
    let filter = Filter::new(FilterOptions { exclude_larger_than: Some(100), ..Default::default() }).unwrap();
    let above = filter.above_root(1);
    let why =
        |kind, size| filter.excluded(&above, Path::new("/x"), kind, size).map(|reason| reason.to_string());
    assert_eq!(why(SourceKind::File, 100), None);
    assert_eq!(why(SourceKind::File, 101).unwrap(), "101 bytes are more than 100");
    assert_eq!(why(SourceKind::Directory, 4096), None);
}

#[test]
fn ignore_files_rule_their_directory_and_below() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir_all(root.join("sub/deeper/build")).unwrap();
    fs::create_dir_all(root.join("other")).unwrap();
    fs::write(root.join(".gitignore"), "*.o\n/only-here\nbuild/\n").unwrap();
    fs::write(root.join("sub/.gitignore"), "!keep.o\n\\#hash\n").unwrap();
    let options = FilterOptions { ignore_file_names: strings(&[".gitignore"]), ..Default::default() };
    let filter = Filter::new(options).unwrap();
    let (top, _) = entered(&filter, &filter.above_root(1), root);
    let (sub, warnings) = entered(&filter, &top, &root.join("sub"));
    let (deeper, _) = entered(&filter, &sub, &root.join("sub/deeper"));
    let (other, _) = entered(&filter, &top, &root.join("other"));
    assert!(warnings.is_empty(), "{warnings:?}");

    let file = root.join(".gitignore");
    let expected = Some(format!("the pattern \"*.o\" ({})", file.display()));
    assert_eq!(reason(&filter, &top, &root.join("a.o")), expected);
    assert_eq!(reason(&filter, &deeper, &root.join("sub/deeper/a.o")), expected);
    assert_eq!(reason(&filter, &sub, &root.join("sub/keep.o")), None, "the nearer file has precedence");
    assert_eq!(reason(&filter, &deeper, &root.join("sub/deeper/keep.o")), None);
    assert!(reason(&filter, &other, &root.join("other/keep.o")).is_some(), "a neighbour is not ruled");
    assert!(reason(&filter, &top, &root.join("only-here")).is_some());
    assert_eq!(reason(&filter, &sub, &root.join("sub/only-here")), None, "anchored");
    assert!(reason(&filter, &deeper, &root.join("sub/deeper/build")).is_some());
    assert_eq!(reason(&filter, &top, &root.join("build")), None, "a file is no build/");
    assert!(reason(&filter, &sub, &root.join("sub/#hash")).is_some());
}

#[test]
fn bad_ignore_files_are_reported_and_the_rest_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::write(root.join(".gitignore"), b"\xef\xbb\xbf*.o\n\xff\xff\na{b\n*.a\r\n").unwrap();
    fs::write(root.join(".large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    fs::create_dir(root.join(".folder")).unwrap();
    let names = strings(&[".gitignore", ".large", ".folder", ".absent"]);
    let filter = Filter::new(FilterOptions { ignore_file_names: names, ..Default::default() }).unwrap();
    let (dir, warnings) = entered(&filter, &filter.above_root(1), root);
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(
        warnings[0].contains(".gitignore, line 2: ") && warnings[0].contains("not UTF-8"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains(".gitignore, line 3: the pattern \"a{b\""), "{warnings:?}");
    assert!(warnings[2].contains(".large: more than 1 MiB"), "{warnings:?}");
    assert!(reason(&filter, &dir, &root.join("x.o")).is_some());
    assert!(reason(&filter, &dir, &root.join("x.a")).is_some());
    assert!(reason(&filter, &dir, &root.join("x.c")).is_none());
}

#[test]
fn later_ignore_file_names_have_precedence() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".one"), "*.o\n").unwrap();
    fs::write(folder.path().join(".two"), "!x.o\n").unwrap();
    for (names, ignored) in [([".one", ".two"], false), ([".two", ".one"], true)] {
        let options = FilterOptions { ignore_file_names: strings(&names), ..Default::default() };
        let filter = Filter::new(options).unwrap();
        let (dir, _) = entered(&filter, &filter.above_root(1), folder.path());
        assert_eq!(reason(&filter, &dir, &folder.path().join("x.o")).is_some(), ignored);
    }
}

#[test]
fn many_layers_are_dropped_without_recursion() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".i"), "x\n").unwrap();
    let dir = SourceDir::open_root(folder.path()).unwrap();
    // Matching walks all of them: enough to overflow a thread's stack if dropping did so by recursion.
    let mut layer = None;
    for _ in 0..20_000 {
        layer = layers::read(layer, folder.path(), &dir, ".i", &mut no_warning);
    }
    std::thread::Builder::new().stack_size(64 * 1024).spawn(move || drop(layer)).unwrap().join().unwrap();
}

#[test]
fn of_a_cache_only_the_tag_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let signature = "Signature: 8a477f597d28d172789f06886806bc55";
    for (name, tag) in
        [("cache", format!("{signature}\n# more")), ("no-cache", signature.replace("55", "56"))]
    {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join("CACHEDIR.TAG"), tag).unwrap();
    }
    let filter = Filter::new(FilterOptions { exclude_caches: true, ..Default::default() }).unwrap();
    let above = filter.above_root(1);
    assert_eq!(reason(&filter, &above, &root.join("cache")), None, "the directory itself is kept");
    let (cache, _) = entered(&filter, &above, &root.join("cache"));
    let (no_cache, _) = entered(&filter, &above, &root.join("no-cache"));
    assert_eq!(reason(&filter, &cache, &root.join("cache/x")).unwrap(), "its directory is tagged as a cache");
    assert_eq!(reason(&filter, &cache, &root.join("cache/CACHEDIR.TAG")), None);
    assert!(!filter.keeps_all(&cache));
    assert_eq!(reason(&filter, &no_cache, &root.join("no-cache/x")), None);
    assert!(filter.keeps_all(&no_cache));
}

#[test]
fn markers_tag_by_presence_or_header() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    for (name, file, text) in [("a", ".nobackup", ""), ("b", ".tag", "skip: this"), ("c", ".tag", "other")] {
        fs::create_dir(root.join(name)).unwrap();
        fs::write(root.join(name).join(file), text).unwrap();
    }
    let markers = strings(&[".nobackup", ".tag:skip:"]);
    let filter = Filter::new(FilterOptions { exclude_if_present: markers, ..Default::default() }).unwrap();
    let why = |path: &str| {
        let path = root.join(path);
        let (dir, warnings) = entered(&filter, &filter.above_root(1), path.parent().unwrap());
        assert!(warnings.is_empty(), "{warnings:?}");
        reason(&filter, &dir, &path)
    };
    assert_eq!(why("a/x").unwrap(), "its directory holds a file \".nobackup\"");
    assert_eq!(why("a/.nobackup"), None);
    assert_eq!(why("b/x").unwrap(), "its directory holds a file \".tag\"");
    assert_eq!(why("c/x"), None, "the header differs");
    for bad in ["", ":x", "a/b", ".."] {
        let text = error_of(FilterOptions { exclude_if_present: strings(&[bad]), ..Default::default() });
        assert!(text.contains("cannot be the name of a marker"), "{bad:?}: {text}");
    }
}

#[test]
fn other_file_systems_are_not_entered() {
    let stat = SourceDir::open_root(Path::new("/")).unwrap().stat_self().unwrap();
    let filter = Filter::new(FilterOptions { one_file_system: true, ..Default::default() }).unwrap();
    assert!(filter.not_entered(&filter.above_root(stat.device), &stat).is_none());
    let why = filter.not_entered(&filter.above_root(stat.device + 1), &stat).unwrap();
    assert_eq!(why.to_string(), "another file system");
    let filter = Filter::new(FilterOptions::default()).unwrap();
    assert!(filter.not_entered(&filter.above_root(stat.device + 1), &stat).is_none());
}

#[test]
fn no_options_keep_everything() {
    let filter = Filter::new(FilterOptions::default()).unwrap();
    assert!(filter.keeps_all(&filter.above_root(1)));
    assert!(!hits(&filter, b"/any\xffthing"));
}
