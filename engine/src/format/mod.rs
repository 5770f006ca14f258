//! Byte layouts: the one place that knows what stored bytes look like, reading and writing side by side.
//! Its twin is `format-spec/`; the vectors there are made and checked by these modules.

pub mod block;
pub mod chunk_list;
pub mod commit;
pub mod config;
pub mod header;
pub mod keyslot;
pub mod ledger;
pub mod note;
pub mod pack;
pub mod padme;
pub mod parity;
pub mod provenance;
pub mod record;
pub mod remains;
mod search;
pub mod segment;
pub mod snapshot;
pub mod state;
pub mod tree;
pub mod tree_rules;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::chunk::split::{CHUNK_RULE, PIECE_WEIGHT_MAX, SplitRule, TREE_RULE};
    use crate::crypto::{KdfParams, TAG_LEN};

    /// A size in the largest unit that fits it.
    fn size(n: u64) -> String {
        let (shift, unit) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(shift, _)| n.trailing_zeros() >= *shift)
            .expect("limits are whole units");
        format!("{} {unit}", n >> shift)
    }

    /// A number with its thousands set off.
    fn commas(n: u64) -> String {
        match n {
            0..1000 => n.to_string(),
            _ => format!("{},{:03}", commas(n / 1000), n % 1000),
        }
    }

    fn rule(rule: SplitRule) -> String {
        format!("| {} | {} | {} | {} |", rule.whole_max, rule.min, rule.one_in, rule.max)
    }

    #[test]
    fn sizes_are_those_of_the_specification() {
        let len = |n: usize| size(n as u64);
        let number = |n: usize| commas(n as u64);
        let memory = [KdfParams::MEMORY_KIB_MIN, KdfParams::MEMORY_KIB_MAX].map(|n| commas(n.into()));
        let phrases = [
            ("02-objects.md", format!("begins with {} bytes", header::HEADER_LEN)),
            ("02-objects.md", format!("at most {}", len(record::RECORD_LEN_MAX))),
            ("02-objects.md", format!("length = message + {TAG_LEN}")),
            ("README.md", format!("| log key | {} |", size(record::RECORD_OBJECT_LEN_MAX))),
            ("README.md", format!("metadata key | {} |", size(pack::PACK_LEN_MAX))),
            ("README.md", format!("| index key | {} |", size(segment::SEGMENT_LEN_MAX))),
            ("README.md", format!("must-understand bits | no | {} |", size(config::CONFIG_LEN_MAX))),
            ("03-config-keyslots.md", format!("A keyslot is always {} bytes", keyslot::KEYSLOT_LEN)),
            ("03-config-keyslots.md", format!("at most {} bytes, for people", keyslot::LABEL_LEN_MAX)),
            ("03-config-keyslots.md", format!("| memory in KiB | {} | {} |", memory[0], memory[1])),
            (
                "03-config-keyslots.md",
                format!("| passes | {} | {} |", KdfParams::PASSES_MIN, KdfParams::PASSES_MAX),
            ),
            ("03-config-keyslots.md", format!("| lanes | 1 | {} |", KdfParams::LANES_MAX)),
            (
                "04-blocks-packs.md",
                format!("longest blob, longest raw block | {} |", len(block::BLOB_LEN_MAX)),
            ),
            (
                "04-blocks-packs.md",
                format!(
                    "grows beyond {} raw, of metadata {}",
                    len(block::DATA_BLOCK_LEN),
                    len(block::METADATA_BLOCK_LEN)
                ),
            ),
            ("05-index.md", format!("sequence of {}-byte pages", segment::PAGE_LEN)),
            ("05-index.md", format!("sealed message of {} bytes", segment::PAGE_PLAIN_LEN)),
            ("05-index.md", format!("### Entry ({} bytes)", segment::ENTRY_LEN)),
            ("05-index.md", format!("ceil(n / {})", segment::LEAF_ENTRIES)),
            ("05-index.md", format!("ceil(a / {})", segment::FANOUT_LEAVES)),
            ("05-index.md", format!("ceil(f / {})", segment::ROOT_ENTRIES)),
            ("05-index.md", format!("ceil(m / {})", segment::PACK_ENTRIES)),
            ("05-index.md", format!("### Pack ({} bytes)", segment::PACK_ENTRY_LEN)),
            ("06-trees.md", format!("1 to {} bytes, no `/`", tree_rules::NAME_LEN_MAX)),
            ("06-trees.md", format!("nested deeper than {};", tree_rules::PART_DEPTH_MAX)),
            ("06-trees.md", format!("more than {} holes", number(tree::HOLES_MAX))),
            ("06-trees.md", format!("weigh at most {} together", size(tree::XATTRS_WEIGHT_MAX))),
            ("06-trees.md", format!("depth of `chunks`, at most {}", chunk_list::DEPTH_MAX)),
            ("06-trees.md", format!("one {}-byte entry per chunk", chunk_list::CHUNK_ENTRY_LEN)),
            ("06-trees.md", format!("{}-byte entries:", chunk_list::LIST_ENTRY_LEN)),
            ("README.md", format!("| no | {} + {} |", size(parity::COVERED_LEN_MAX), size(2 << 20))),
            ("10-parity.md", format!("Head ({} bytes)", parity::HEAD_LEN)),
            ("10-parity.md", format!("at most {}", number(parity::ORIGINALS_MAX as usize))),
            ("10-parity.md", format!("the first {} bytes of `H(shard)`", parity::CHECK_LEN)),
            ("10-parity.md", format!("`s` is a multiple of {}", parity::SHARD_UNIT)),
            ("08-chunking.md", format!("nodes of a directory {}", rule(TREE_RULE))),
            ("08-chunking.md", format!("parts of a tree {}", rule(TREE_RULE))),
            ("08-chunking.md", format!("chunk table, depth 0 {}", rule(CHUNK_RULE))),
            ("08-chunking.md", format!("chunk table, deeper {}", rule(CHUNK_RULE))),
            ("08-chunking.md", format!("when it weighs {} or more", size(PIECE_WEIGHT_MAX))),
            ("08-chunking.md", format!("weight of a part            = {}", tree::PART_WEIGHT)),
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../format-spec");
        for (file, phrase) in phrases {
            let text = std::fs::read_to_string(folder.join(file)).expect("a part of the specification");
            assert!(text.contains(&phrase), "{file} does not say {phrase:?}");
        }
    }
}
