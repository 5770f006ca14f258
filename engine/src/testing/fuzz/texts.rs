//! What users and storages hand over as text: object names, lists of paths, exclude patterns.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::backend::{Folder, ObjectKey};
use crate::ids::PackId;
use crate::source::files_from::{self, Separator};
use crate::source::filter::{Filter, FilterOptions};
use crate::source::stat::SourceKind;

/// Names found in a storage, and ids in hex: what is accepted is what would have been written.
pub fn object_key(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = text.parse::<PackId>() {
        assert_eq!(id.to_string(), text);
    }
    for folder in Folder::ALL {
        let key = ObjectKey::in_folder(folder, text);
        let is_sequence = matches!(folder, Folder::Log | Folder::State);
        assert_eq!(key.is_well_formed(), folder.is_object_name(text), "{key}");
        if !key.is_well_formed() {
            continue;
        }
        assert_eq!(key.folder(), Some(folder));
        assert_eq!(key.name(), text);
        assert!(!key.as_str().contains("..") && !key.as_str().contains('\0'));
        if is_sequence {
            // Twenty digits can say more than 2^64: such a name is an object's, and no sequence number.
            let expected = text.parse().ok();
            assert_eq!(key.sequence(), expected);
            let made = if folder == Folder::Log { ObjectKey::log } else { ObjectKey::state };
            assert!(expected.is_none_or(|seq| made(seq) == key));
        } else {
            assert_eq!(key.pack_id().map(|id| id.to_string()).as_deref(), Some(text));
        }
    }
}

/// Lists of paths: what is read and written again with NULs reads as the same.
pub fn files_from(data: &[u8]) {
    for separator in [Separator::Line, Separator::Nul] {
        let Ok(paths) = files_from::parse(data, separator, "list") else {
            continue;
        };
        assert!(!paths.is_empty());
        assert!(paths.iter().all(|path| !path.as_os_str().is_empty()));
        let bytes: Vec<_> = paths.iter().map(|path| path.as_os_str().as_bytes()).collect();
        let again = files_from::parse(&bytes.join(&0), Separator::Nul, "list").expect("paths without NUL");
        assert_eq!(again, paths);
    }
}

/// Exclude patterns, one a line, and behind a blank line a path: the last pattern that matches decides.
pub fn exclude(data: &[u8]) {
    let (patterns, path) = match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &b"/home/a/x.o"[..]),
    };
    let path = PathBuf::from(std::ffi::OsString::from_vec(path.to_vec()));
    let patterns: Vec<_> = String::from_utf8_lossy(patterns).lines().take(8).map(str::to_owned).collect();
    for ignores_case in [false, true] {
        let Some(found) = is_excluded(&patterns, ignores_case, &path) else {
            continue;
        };
        let expected = patterns.iter().try_fold(false, |excluded, pattern| {
            let Some(kept) = pattern.strip_prefix('!') else {
                return Some(is_excluded(std::slice::from_ref(pattern), ignores_case, &path)? || excluded);
            };
            let below = format!("{}/**", kept.trim_end_matches('/'));
            let is_kept = is_excluded(&[kept.to_owned()], ignores_case, &path)?
                || is_excluded(&[below], ignores_case, &path)?;
            Some(excluded && !is_kept)
        });
        // A pattern behind `!` may itself begin with one: alone it then means something else.
        if !patterns.iter().any(|pattern| pattern.starts_with("!!")) {
            assert_eq!(expected, Some(found), "{patterns:?} {path:?}");
        }
    }
}

/// Whether the patterns exclude the path; `None` where they are not valid.
fn is_excluded(patterns: &[String], ignores_case: bool, path: &Path) -> Option<bool> {
    let mut options = FilterOptions::default();
    *(if ignores_case { &mut options.iexclude } else { &mut options.exclude }) = patterns.to_vec();
    let filter = Filter::new(options).ok()?;
    let parent = filter.above_root(0);
    Some(filter.excluded(&parent, path, SourceKind::File, 0).is_some())
}
