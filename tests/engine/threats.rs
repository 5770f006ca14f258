//! The threat model names tests: those have to exist.

use std::fs;
use std::path::{Path, PathBuf};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Whether `name` is `pattern`, in which each `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, rest)) => name.strip_prefix(head).is_some_and(|name| {
            (0..=name.len()).any(|at| name.is_char_boundary(at) && matches(rest, &name[at..]))
        }),
    }
}

/// Whether the engine has the test `module::…::test`.
fn is_test(path: &str) -> bool {
    let (module, test) = path.rsplit_once("::").expect("a path of modules");
    let file = project().join("engine/src").join(module.replace("::", "/")).with_extension("rs");
    fs::read_to_string(file).is_ok_and(|text| {
        text.contains(&format!("#[test]\n    fn {test}()")) || text.contains(&format!("#[test]\nfn {test}()"))
    })
}

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let text = fs::read_to_string(project().join("format-spec/09-threats.md")).expect("the threat model");
    let vectors: Vec<_> = fs::read_dir(project().join("format-spec/vectors"))
        .expect("the vectors")
        .map(|entry| {
            entry.expect("an entry").path().file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .collect();
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| Attacker"));
    let mut names = 0;
    for row in rows {
        let column = row.trim_end_matches(" |").rsplit(" | ").next().expect("a last column");
        for name in column.split('`').skip(1).step_by(2) {
            names += 1;
            let exists = match name.contains("::") {
                true => is_test(name),
                false => vectors.iter().any(|vector| matches(name, vector)),
            };
            assert!(exists, "the threat model names {name}, which does not exist");
        }
    }
    assert!(names > 30, "{names} names");
}
