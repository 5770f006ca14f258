//! Generated directories to back up, and what happens to one in a night.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::support::data::{Dice, Kind};

/// Makes `directories` directories of `files` small files each in `root`: 100 bytes to 8 KiB of text.
pub fn small_files(root: &Path, directories: usize, files: usize) {
    let text = Kind::Text.bytes(1 << 20, 2);
    let mut dice = Dice(3);
    for directory in 0..directories {
        let path = root.join(format!("{}/{directory}", directory % 10));
        fs::create_dir_all(&path).expect("room for generated files");
        for file in 0..files {
            let start = dice.below(text.len() - (8 << 10));
            let len = 100 + dice.below(8 << 10);
            let content = &text[start..text.len().min(start + len)];
            fs::write(path.join(format!("{file}.txt")), content).expect("room for generated files");
        }
    }
}

/// Bytes of everything that [`mixed`] makes of one `unit`.
pub fn mixed_len(unit: usize) -> u64 {
    4 * unit as u64
}

/// Makes a tree of four equal parts in `root`, each of `unit` bytes: small sources, programs, a database, and something
/// that does not compress.
pub fn mixed(root: &Path, unit: usize) {
    let write = |path: &str, bytes: &[u8]| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("room for generated files");
        fs::write(path, bytes).expect("room for generated files");
    };
    let text = Kind::Text.bytes(unit, 1);
    let (mut dice, mut at) = (Dice(4), 0);
    for number in 0.. {
        let end = text.len().min(at + 200 + dice.below(24 << 10));
        write(&format!("source/{}/{number}.rs", number / 50), &text[at..end]);
        if end == text.len() {
            break;
        }
        at = end;
    }
    let program = Kind::Binary.bytes(unit, 2);
    for (number, part) in program.chunks(unit / 8).enumerate() {
        write(&format!("bin/{number}"), part);
    }
    write("database/relation", &Kind::Pages.bytes(unit, 3));
    write("media/film", &Kind::Random.bytes(unit, 4));
}

/// What a night does to such a tree: one page in twenty of the database is another, and one small file in fifty. Other ones
/// for each `night`.
pub fn night(root: &Path, unit: usize, night: u64) {
    let mut dice = Dice(night ^ 0x5eed);
    let relation = OpenOptions::new().write(true).open(root.join("database/relation")).expect("the database");
    const PAGE_LEN: usize = 8192;
    for page in 0..unit / PAGE_LEN {
        if dice.below(20) == 0 {
            let changed = Kind::Pages.bytes(PAGE_LEN, dice.next());
            relation.write_all_at(&changed, (page * PAGE_LEN) as u64).expect("room for a page");
        }
    }
    for folder in fs::read_dir(root.join("source")).expect("generated folders") {
        let folder = folder.expect("a generated folder").path();
        let changed = fs::read_dir(&folder).expect("generated files").next().expect("a file");
        let path = changed.expect("a generated file").path();
        let len = fs::metadata(&path).expect("a generated file").len();
        fs::write(&path, Kind::Text.bytes(len as usize, dice.next())).expect("room for a file");
    }
}
