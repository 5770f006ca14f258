//! Vectors of packs, directories and segments.

use serde_json::{Value, json};
use strongroom::crypto::ObjectCipher;
use strongroom::crypto::keys::BlobKind;
use strongroom::format::block::BlockCodec;
use strongroom::format::header::{Header, ObjectKind};
use strongroom::format::pack::{self, BlockSpan, Directory, DirectoryBlob, DirectoryBlock};
use strongroom::format::segment::{self, IndexEntry, PackEntry, SegmentBuilder};
use strongroom::ids::{BlobId, PackId};

use super::support::{Context, Vector, bad, flipped, good, hex, object_inputs};

/// Makes a pack block by block; its directory may be changed into a lie before it is sealed.
pub struct PackMaker<'a> {
    pub context: &'a Context,
    pub header: Header,
    cipher: ObjectCipher,
    object: Vec<u8>,
    pub directory: Directory,
}

impl<'a> PackMaker<'a> {
    pub fn new(context: &'a Context, kind: ObjectKind) -> Self {
        let (header, cipher) = pack::start(kind, &context.sealer());
        Self { context, header, cipher, object: header.encode().to_vec(), directory: Directory::default() }
    }

    pub fn block(&mut self, blobs: &[(BlobKind, &[u8])]) {
        let raw: Vec<u8> = blobs.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let mut payload = Vec::new();
        BlockCodec::new().compress(&raw, 3, &mut payload);
        let len32 = |len: usize| u32::try_from(len).expect("small");
        let position = len32(self.object.len());
        pack::seal_block(&self.cipher, position, len32(raw.len()), &mut payload);
        self.object.extend_from_slice(&payload);
        let mut offset = 0;
        let blobs = blobs
            .iter()
            .map(|(kind, bytes)| {
                let len = len32(bytes.len());
                offset += len;
                DirectoryBlob {
                    id: self.context.keys.blob_id(*kind, bytes),
                    kind: *kind,
                    offset: offset - len,
                    len,
                }
            })
            .collect();
        let span = BlockSpan { position, sealed_len: len32(payload.len()), raw_len: len32(raw.len()) };
        self.directory.blocks.push(DirectoryBlock { span, blobs });
    }

    pub fn finish(mut self) -> Vec<u8> {
        let closing = pack::closing(self.object.len() as u64, &self.directory, &self.cipher);
        self.object.extend_from_slice(&closing);
        self.object
    }

    /// The pack, its row of a segment's pack table and its entries there, as pack number `number`.
    pub fn indexed(mut self, number: u32) -> (Vec<u8>, PackEntry, Vec<IndexEntry>) {
        let closing = pack::closing(self.object.len() as u64, &self.directory, &self.cipher);
        self.object.extend_from_slice(&closing);
        let entries = self
            .directory
            .blocks
            .iter()
            .flat_map(|block| {
                block.blobs.iter().map(|blob| IndexEntry {
                    id: blob.id,
                    pack: number,
                    block: block.span,
                    offset: blob.offset,
                    len: blob.len,
                })
            })
            .collect::<Vec<_>>();
        let entry = PackEntry {
            id: pack::id(&self.object),
            header: self.header,
            size: self.object.len() as u64,
            blobs: u32::try_from(entries.len()).expect("few"),
        };
        (self.object, entry, entries)
    }
}

pub fn all() -> Vec<Vector> {
    [packs(), directories(), segments()].into_iter().flatten().collect()
}

fn filled(context: &Context) -> PackMaker<'_> {
    let mut maker = PackMaker::new(context, ObjectKind::DataPack);
    let alpha = b"alpha ".repeat(60);
    maker.block(&[(BlobKind::Data, &alpha), (BlobKind::Data, b"beta")]);
    maker.block(&[(BlobKind::Data, b"gamma, and a little more")]);
    maker
}

pub fn blobs_json(directory: &Directory) -> Value {
    let blobs = directory.blocks.iter().flat_map(|block| {
        block.blobs.iter().map(|blob| {
            json!({
                "id": blob.id.to_string(),
                "kind": blob.kind as u8,
                "position": block.span.position,
                "sealed_length": block.span.sealed_len,
                "raw_length": block.span.raw_len,
                "offset": blob.offset,
                "length": blob.len,
            })
        })
    });
    blobs.collect()
}

fn packs() -> Vec<Vector> {
    let context = Context::new(40);
    let (data_directory, data_pack) = {
        let maker = filled(&context);
        (maker.directory.clone(), maker.finish())
    };
    let mut maker = PackMaker::new(&context, ObjectKind::MetadataPack);
    maker.block(&[
        (BlobKind::Tree, b"\x81\xa5nodes\x90"),
        (BlobKind::Snapshot, b"not a record, but that is not checked here"),
    ]);
    let (tree_directory, tree_pack) = (maker.directory.clone(), maker.finish());
    let empty = PackMaker::new(&context, ObjectKind::DataPack).finish();
    let appender = Context::append_only(41);
    let (for_data, for_metadata) = {
        let mut maker = PackMaker::new(&appender, ObjectKind::MetadataPack);
        maker.block(&[(BlobKind::Tree, b"\x81\xa5nodes\x90")]);
        (filled(&appender), maker)
    };
    let directories = [for_data.directory.clone(), for_metadata.directory.clone()];
    let (for_data, for_metadata) = (for_data.finish(), for_metadata.finish());
    let mut small_order = for_data.clone();
    small_order[16..48].fill(0);
    let lying = |lie: &dyn Fn(&mut Directory)| {
        let mut maker = filled(&context);
        lie(&mut maker.directory);
        object_inputs(5, &maker.finish())
    };
    let expected = |object: &[u8], directory: &Directory| json!({"id": pack::id(object).to_string(), "blobs": blobs_json(directory)});
    let inputs = |object: &[u8]| object_inputs(5, object);
    let directory_at = data_directory.blocks[1].span.end() as usize;
    let padding_at = directory_at + data_directory.encode().len() + 16;
    assert!(padding_at < data_pack.len() - 32, "this pack has padding");
    let padded = flipped(&data_pack, padding_at);
    vec![
        good(
            "pack-data",
            "pack",
            "two blocks of three data blobs",
            inputs(&data_pack),
            expected(&data_pack, &data_directory),
        ),
        good(
            "pack-metadata",
            "pack",
            "a block of a tree and a snapshot",
            object_inputs(6, &tree_pack),
            expected(&tree_pack, &tree_directory),
        ),
        good(
            "pack-empty",
            "pack",
            "no block at all",
            inputs(&empty),
            expected(&empty, &Directory::default()),
        ),
        good(
            "pack-flipped-padding",
            "pack",
            "padding is ignored, but counts for the id",
            inputs(&padded),
            expected(&padded, &data_directory),
        ),
        good(
            "pack-recipient-data",
            "pack",
            "a data pack that an appender made",
            inputs(&for_data),
            expected(&for_data, &directories[0]),
        ),
        good(
            "pack-recipient-metadata",
            "pack",
            "a metadata pack that an appender made",
            object_inputs(6, &for_metadata),
            expected(&for_metadata, &directories[1]),
        ),
        bad(
            "pack-recipient-flipped",
            "pack",
            "a flipped bit of the public key that X25519 ignores",
            inputs(&flipped(&for_data, 47)),
            "commitment",
        ),
        bad(
            "pack-recipient-small-order",
            "pack",
            "a public key of small order",
            inputs(&small_order),
            "commitment",
        ),
        bad(
            "pack-flipped-block",
            "pack",
            "a flipped bit of the first block",
            inputs(&flipped(&data_pack, 85)),
            "authentication",
        ),
        bad(
            "pack-flipped-directory",
            "pack",
            "a flipped bit of the directory",
            inputs(&flipped(&data_pack, directory_at + 9)),
            "authentication",
        ),
        bad(
            "pack-flipped-trailer",
            "pack",
            "a flipped bit of the trailer",
            inputs(&flipped(&data_pack, data_pack.len() - 20)),
            "authentication",
        ),
        bad(
            "pack-flipped-salt",
            "pack",
            "a flipped bit of the salt",
            inputs(&flipped(&data_pack, 30)),
            "commitment",
        ),
        bad(
            "pack-cut",
            "pack",
            "one byte short",
            inputs(&data_pack[..data_pack.len() - 1]),
            "authentication",
        ),
        bad("pack-cut-to-header", "pack", "nothing but a header", inputs(&data_pack[..80]), "length"),
        bad(
            "pack-other-kind",
            "pack",
            "a data pack where a metadata pack has to be",
            object_inputs(6, &data_pack),
            "header",
        ),
        bad(
            "pack-directory-span",
            "pack",
            "a directory that puts a block elsewhere",
            lying(&|d| d.blocks[1].span.position += 1),
            "directory",
        ),
        bad(
            "pack-directory-raw-length",
            "pack",
            "blobs that do not fill their block",
            lying(&|d| d.blocks[1].span.raw_len += 1),
            "directory",
        ),
        bad(
            "pack-directory-gap",
            "pack",
            "a block that no entry names",
            lying(&|d| {
                d.blocks.pop();
            }),
            "directory",
        ),
        bad(
            "pack-directory-kind",
            "pack",
            "a tree in a data pack",
            lying(&|d| d.blocks[0].blobs[0].kind = BlobKind::Tree),
            "directory",
        ),
        bad(
            "pack-directory-no-blobs",
            "pack",
            "a block without blobs",
            lying(&|d| {
                d.blocks[1].blobs.clear();
            }),
            "directory",
        ),
        bad(
            "pack-blob-id",
            "pack",
            "a blob that is not what its id says",
            lying(&|d| d.blocks[0].blobs[1].id = BlobId::from_bytes([7; 32])),
            "blob-id",
        ),
    ]
}

fn directories() -> Vec<Vector> {
    let context = Context::new(41);
    let maker = filled(&context);
    let end = maker.directory.blocks[1].span.end();
    let plain = maker.directory.encode();
    let inputs = |plain: &[u8], end: u64| json!({"kind": 5, "directory": hex(plain), "blocks_end": end});
    let with = |at: usize, value: &[u8]| {
        let mut altered = plain.clone();
        altered[at..at + value.len()].copy_from_slice(value);
        inputs(&altered, end)
    };
    let lie = |name: &str, what: &str, inputs| bad(name, "directory", what, inputs, "directory");
    let first_blob = 8 + 2 * 16;
    vec![
        good(
            "directory-good",
            "directory",
            "a directory's plaintext",
            inputs(&plain, end),
            json!({"blobs": blobs_json(&maker.directory)}),
        ),
        lie("directory-short", "shorter than its counts", inputs(&plain[..7], end)),
        lie("directory-trailing", "a byte too many", inputs(&[&plain[..], &[0]].concat(), end)),
        lie("directory-block-count", "2^32 − 1 blocks", with(0, &[0xff; 4])),
        lie("directory-blob-count", "one blob fewer", with(4, &[2])),
        lie("directory-first-position", "a first block inside the header", with(8, &79u32.to_le_bytes())),
        lie("directory-sealed-length", "a sealed length below a tag's", with(12, &15u32.to_le_bytes())),
        lie(
            "directory-raw-length",
            "a raw length above 16 MiB",
            with(16, &((16u32 << 20) + 1).to_le_bytes()),
        ),
        lie(
            "directory-blob-sum",
            "a block that takes more blobs than there are",
            with(20, &9u32.to_le_bytes()),
        ),
        lie("directory-blob-length", "a blob length that does not fit", with(first_blob + 32, &[0xff; 4])),
        lie("directory-blob-kind", "blob kind 3", with(first_blob + 36, &[3])),
        lie("directory-reserved", "reserved bytes not zero", with(first_blob + 37, &[1])),
        lie("directory-end", "the directory is one byte further on", inputs(&plain, end + 1)),
    ]
}

fn rows_of(context: &Context, count: u32, packs: u32) -> (Vec<IndexEntry>, Vec<PackEntry>) {
    let (header, _) = Header::create(ObjectKind::DataPack, &context.sealer());
    let mut entries: Vec<IndexEntry> = (0..count)
        .map(|i| IndexEntry {
            id: BlobId::from_bytes(blake3::hash(&i.to_le_bytes()).into()),
            pack: i % packs,
            block: BlockSpan { position: 80 + i * 100, sealed_len: 100, raw_len: 300 },
            offset: i % 200,
            len: 100,
        })
        .collect();
    entries.sort();
    let packs: Vec<_> = (0..packs)
        .map(|i| PackEntry {
            id: PackId::from_bytes(blake3::hash(format!("pack {i}").as_bytes()).into()),
            header,
            size: 1 << 20,
            blobs: count / packs,
        })
        .collect();
    (entries, packs)
}

fn build(context: &Context, entries: &[IndexEntry], packs: &[PackEntry]) -> Vec<u8> {
    let mut builder = SegmentBuilder::new(&context.sealer());
    entries.iter().for_each(|entry| builder.push(entry));
    builder.finish(packs).0
}

pub fn place_json(entry: &IndexEntry, packs: &[PackEntry]) -> Value {
    json!({
        "pack": packs[entry.pack as usize].id.to_string(),
        "position": entry.block.position,
        "sealed_length": entry.block.sealed_len,
        "raw_length": entry.block.raw_len,
        "offset": entry.offset,
        "length": entry.len,
    })
}

fn segments() -> Vec<Vector> {
    let context = Context::new(42);
    let (mut entries, packs) = rows_of(&context, 200, 3);
    // One id at the end of the first leaf and all through the second, and on into the third.
    for i in 70..150 {
        entries[i].id = entries[70].id;
    }
    entries[70..150].sort();
    let object = build(&context, &entries, &packs);
    let lookup = |id: BlobId, what: &str| {
        let places: Vec<_> = entries.iter().filter(|e| e.id == id).map(|e| place_json(e, &packs)).collect();
        let inputs = {
            let mut inputs = object_inputs(7, &object);
            inputs["id"] = id.to_string().into();
            inputs
        };
        let name = what.replace(' ', "-");
        good(&format!("segment-lookup-{name}"), "segment-lookup", what, inputs, json!({"places": places}))
    };
    let (few, one_pack) = rows_of(&context, 2, 1);
    // One id at the end of the first group and at the beginning of the second.
    let groups = {
        let (mut entries, packs) = rows_of(&context, 26 * 72 + 30, 2);
        for i in 1860..1875 {
            entries[i].id = entries[1860].id;
        }
        entries[1860..1875].sort();
        let mut inputs = object_inputs(7, &build(&context, &entries, &packs));
        inputs["id"] = entries[1860].id.to_string().into();
        let places: Value = entries[1860..1875].iter().map(|e| place_json(e, &packs)).collect();
        let what = "id in two groups";
        good("segment-lookup-id-in-two-groups", "segment-lookup", what, inputs, json!({"places": places}))
    };
    let small = build(&context, &few, &one_pack);
    let empty = build(&context, &[], &[]);
    let expected = |object: &[u8], entries: &[IndexEntry], packs: &[PackEntry]| {
        json!({
            "id": segment::id(object).to_string(),
            "entries": entries.iter().map(|e| json!({"id": e.id.to_string(), "place": place_json(e, packs)})).collect::<Value>(),
            "packs": packs.iter().map(|p| json!({
                "id": p.id.to_string(), "kind": p.header.kind as u8, "size": p.size, "blobs": p.blobs,
                "salt": hex(p.header.salt), "commitment": hex(p.header.commitment),
            })).collect::<Value>(),
        })
    };
    let inputs = |object: &[u8]| object_inputs(7, object);
    let lying = |lie: &dyn Fn(&mut IndexEntry)| {
        let mut entry = few[0];
        lie(&mut entry);
        build(&context, &[entry], &one_pack)
    };
    let bad_entry = |name: &str, what: &str, lie: &dyn Fn(&mut IndexEntry)| {
        bad(&format!("segment-entry-{name}"), "segment", what, inputs(&lying(lie)), "segment")
    };
    let beyond_pack = {
        let mut inputs = object_inputs(7, &lying(&|entry| entry.block.position = (1 << 20) - 99));
        inputs["id"] = few[0].id.to_string().into();
        inputs
    };
    let longer = [&small[..], &small[4096..8192]].concat();
    let mut swapped = small.clone();
    let (leaf, fanout) = (small[4096..8192].to_vec(), small[8192..12288].to_vec());
    swapped[4096..8192].copy_from_slice(&fanout);
    swapped[8192..12288].copy_from_slice(&leaf);
    vec![
        good(
            "segment-good",
            "segment",
            "two entries in one pack",
            inputs(&small),
            expected(&small, &few, &one_pack),
        ),
        good(
            "segment-empty",
            "segment",
            "no entries and no packs",
            inputs(&empty),
            expected(&empty, &[], &[]),
        ),
        lookup(entries[0].id, "first entry"),
        lookup(entries[199].id, "last entry"),
        lookup(entries[72].id, "id on three leaves"),
        lookup(entries[160].id, "entry of third leaf"),
        groups,
        lookup(BlobId::from_bytes([0; 32]), "before all"),
        lookup(BlobId::from_bytes([0xff; 32]), "after all"),
        lookup(BlobId::from_bytes([0x80; 32]), "absent"),
        bad(
            "segment-cut",
            "segment",
            "a page short: the last one opens, and is no summary",
            inputs(&small[..small.len() - 4096]),
            "segment",
        ),
        bad("segment-cut-byte", "segment", "a byte short", inputs(&small[..small.len() - 1]), "segment"),
        bad("segment-one-page", "segment", "nothing but a header page", inputs(&small[..4096]), "segment"),
        bad("segment-longer", "segment", "a page too many", inputs(&longer), "authentication"),
        bad(
            "segment-flipped",
            "segment",
            "a flipped bit of a leaf",
            inputs(&flipped(&small, 5000)),
            "authentication",
        ),
        bad("segment-swapped", "segment", "two pages swapped", inputs(&swapped), "authentication"),
        bad_entry("pack", "an entry of a pack that is not listed", &|entry| entry.pack = 1),
        bad_entry("offset", "a blob beyond its block's end", &|entry| entry.offset = 201),
        bad_entry("position", "a block inside the header", &|entry| entry.block.position = 79),
        bad_entry("sealed-length", "a block longer than its contents and a tag", &|entry| {
            entry.block.sealed_len = 317;
        }),
        bad(
            "segment-lookup-beyond-pack",
            "segment-lookup",
            "a block that ends beyond its pack",
            beyond_pack,
            "segment",
        ),
    ]
}
