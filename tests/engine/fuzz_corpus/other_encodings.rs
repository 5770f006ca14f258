//! Encodings of a record that no writer makes (02-objects.md, Records): other types that stand for the same value. Whoever reads them
//! reads that value.

use strongroom::format::config::Config;
use strongroom::format::record;
use strongroom::format::tree::Tree;
use strongroom::ids::RepositoryId;

/// MessagePack of `parts` one after the other.
fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

#[test]
fn records_in_other_encodings_are_refused_or_mean_the_same() {
    let id = [3; 16];
    let config =
        Config { repository: RepositoryId::from_bytes(id), must_understand: 0, created_by: "x".into() };
    let encoded =
        joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\x00\xaacreated_by\xa1x"]);
    assert_eq!(record::encode(&config), encoded, "the one encoding there is");
    let part = joined(&[b"\xa5first\xc4\x01a\xa7entries\x01\xa4tree\xc4\x20", &[7; 32]]);
    let others = [
        ("an array for a map", 0, joined(&[b"\x93\xc4\x10", &id, b"\x00\xa1x"])),
        ("an array of integers for an id", 0, {
            joined(&[b"\x83\xaarepository\xdc\x00\x10", &id, b"\xafmust_understand\x00\xaacreated_by\xa1x"])
        }),
        ("text for an id", 0, {
            joined(&[b"\x83\xaarepository\xb0", &id, b"\xafmust_understand\x00\xaacreated_by\xa1x"])
        }),
        ("a binary for text", 0, {
            joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\x00\xaacreated_by\xc4\x01x"])
        }),
        ("binaries for field names", 0, {
            joined(&[b"\x83\xc4\x0arepository\xc4\x10", &id, b"\xafmust_understand\x00\xaacreated_by\xa1x"])
        }),
        ("integers for field names", 0, { joined(&[b"\x83\x00\xc4\x10", &id, b"\x01\x00\x02\xa1x"]) }),
        ("a signed form", 0, {
            joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\xd0\x00\xaacreated_by\xa1x"])
        }),
        ("an integer not the shortest", 0, {
            joined(&[
                b"\x83\xaarepository\xc4\x10",
                &id,
                b"\xafmust_understand\xcd\x00\x00\xaacreated_by\xa1x",
            ])
        }),
        ("fields in another order", 0, {
            joined(&[b"\x83\xafmust_understand\x00\xaarepository\xc4\x10", &id, b"\xaacreated_by\xa1x"])
        }),
        ("an integer for a variant", 1, joined(&[b"\x81\x01\x91\x83", &part])),
        ("text for a name", 1, {
            joined(&[b"\x81\xa5parts\x91\x83\xa5first\xa1a\xa7entries\x01\xa4tree\xc4\x20", &[7; 32]])
        }),
        ("an array for a name", 1, {
            joined(&[b"\x81\xa5parts\x91\x83\xa5first\x91\x61\xa7entries\x01\xa4tree\xc4\x20", &[7; 32]])
        }),
        ("an array for a part", 1, joined(&[b"\x81\xa5parts\x91\x93\xc4\x01a\x01\xc4\x20", &[7; 32]])),
    ];
    let tree: Tree =
        record::decode(&joined(&[b"\x81\xa5parts\x91\x83", &part])).expect("the encoding that there is");
    for (what, which, bytes) in others {
        match which {
            0 => {
                if let Ok(read) = record::decode::<Config>(&bytes) {
                    assert_eq!(read, config, "{what}");
                }
            }
            _ => {
                if let Ok(read) = record::decode::<Tree>(&bytes) {
                    assert_eq!(read, tree, "{what}");
                }
            }
        }
    }
    // What cannot be the value is refused, whatever its type.
    let wrong = [
        joined(&[b"\x83\xaarepository\xc4\x0f", &id[..15], b"\xafmust_understand\x00\xaacreated_by\xa1x"]),
        joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\xff\xaacreated_by\xa1x"]),
        joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\xa10\xaacreated_by\xa1x"]),
        joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\x00\xaacreated_by\xc0"]),
        joined(&[b"\x83\xaarepository\xc4\x10", &id, b"\xafmust_understand\x00\xaacreated_by\xa1\xff"]),
        joined(&[b"\x92\xc4\x10", &id, b"\x00"]),
    ];
    for bytes in wrong {
        assert!(record::decode::<Config>(&bytes).is_err(), "{bytes:x?}");
    }
}
