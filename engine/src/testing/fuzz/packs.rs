//! Blocks and packs: directories that are what they say, payloads that stand for what they say.

use super::input::Input;
use super::setup::{append, setup};
use crate::crypto::MessageContext;
use crate::crypto::keys::BlobKind;
use crate::format::block::BlockCodec;
use crate::format::header::{HEADER_LEN, ObjectKind};
use crate::format::pack::{
    self, BlockSpan, Directory, DirectoryBlob, DirectoryBlock, PackError, TRAILER_LEN,
};

/// Longest raw block that is tried: 1 MiB.
const RAW_LEN_MAX: usize = 1 << 20;

/// Payloads of blocks: any payload for any raw length, in no more memory than that; and every block comes back.
pub fn block(data: &[u8]) {
    let mut input = Input::new(data);
    let raw_len = input.u32() as usize % (RAW_LEN_MAX + 1);
    let level = i32::from(input.u8() % 9) - 5;
    let payload = input.rest();
    let mut codec = BlockCodec::new();
    let mut raw = Vec::new();
    if codec.decompress(payload, raw_len, &mut raw).is_ok() {
        assert_eq!(raw.len(), raw_len);
        assert!(payload.len() <= raw_len);
        if payload.len() < raw_len {
            is_one_frame(&mut codec, payload, raw_len);
        }
    }
    assert!(raw.capacity() <= raw_len + 64, "{} bytes for {raw_len}", raw.capacity());

    let mut compressed = Vec::new();
    codec.compress(data, level, &mut compressed);
    assert!(compressed.len() <= data.len());
    // A buffer that was used before holds nothing of that.
    codec.decompress(&compressed, data.len(), &mut raw).expect("what was just compressed");
    assert_eq!(raw, data);
}

/// A compressed payload is one ordinary frame: beside another, though empty, or cut short it is refused.
fn is_one_frame(codec: &mut BlockCodec, payload: &[u8], raw_len: usize) {
    const SKIPPABLE: &[u8] = b"\x50\x2a\x4d\x18\0\0\0\0";
    const EMPTY: &[u8] = b"\x28\xb5\x2f\xfd\x20\0\x01\0\0";
    assert_eq!(payload[..4], EMPTY[..4]);
    let others = [
        [payload, SKIPPABLE].concat(),
        [payload, EMPTY].concat(),
        [SKIPPABLE, payload].concat(),
        [EMPTY, payload].concat(),
        [payload, &[0]].concat(),
        payload[..payload.len() - 1].to_vec(),
    ];
    for other in others.iter().filter(|other| other.len() < raw_len) {
        assert!(codec.decompress(other, raw_len, &mut Vec::new()).is_err(), "{other:02x?}");
    }
}

/// Packs around the input: as a whole, as the directory, as the trailer.
pub fn pack(data: &[u8]) {
    let setup = setup();
    for kind in [ObjectKind::DataPack, ObjectKind::MetadataPack] {
        let open = |pack: &[u8]| pack::open(pack, kind, &setup.keys, &setup.repository);
        let _ = open(data);
        let end = blocks_end(data);
        let decoded = Directory::decode(data, kind, end);
        if let Ok(directory) = &decoded {
            assert_eq!(directory.encode(), data);
            assert!(Directory::decode(data, kind, end + 1).is_err());
            is_contiguous(directory, kind, end);
        }
        sealed_directory(data, kind, end, &decoded);

        let (mut object, cipher) = setup.begin(kind);
        let mut input = Input::new(data);
        let trailer = input.array::<16>();
        object.extend_from_slice(input.rest());
        append(&mut object, &cipher, &trailer);
        assert!(open(&object).is_err(), "there is no sealed directory in it");
    }
}

/// Where the blocks end if the directory's last block entry is to be believed.
fn blocks_end(directory: &[u8]) -> u64 {
    let count = Input::new(directory).u32() as usize;
    let last = count.checked_sub(1).and_then(|last| last.checked_mul(16)).and_then(|at| at.checked_add(8));
    match last.and_then(|at| directory.get(at..)) {
        Some(entry) => {
            let mut entry = Input::new(entry);
            u64::from(entry.u32()) + u64::from(entry.u32())
        }
        None => HEADER_LEN as u64,
    }
}

/// What the specification asks of a directory.
fn is_contiguous(directory: &Directory, kind: ObjectKind, end: u64) {
    let mut next = HEADER_LEN as u64;
    for DirectoryBlock { span, blobs } in &directory.blocks {
        assert_eq!(u64::from(span.position), next);
        assert!(span.raw_len <= 16 << 20 && span.sealed_len >= 16 && span.sealed_len <= span.raw_len + 16);
        next += u64::from(span.sealed_len);
        let mut offset = 0;
        for blob in blobs {
            assert_eq!((kind == ObjectKind::DataPack, blob.offset), (blob.kind == BlobKind::Data, offset));
            offset += blob.len;
        }
        assert_eq!((offset, blobs.is_empty()), (span.raw_len, false));
    }
    assert_eq!(next, end);
}

/// A pack whose blocks are rubbish and whose directory is `data` opens if the directory does; the blocks do not.
fn sealed_directory(data: &[u8], kind: ObjectKind, end: u64, decoded: &Result<Directory, PackError>) {
    let Ok(end @ HEADER_LEN..0x1_0000) = usize::try_from(end) else {
        return;
    };
    let setup = setup();
    let (mut object, cipher) = setup.begin(kind);
    object.resize(end, 0);
    append(&mut object, &cipher, data);
    let numbers = [end as u64, data.len() as u64].map(u64::to_le_bytes);
    append(&mut object, &cipher, numbers.as_flattened());
    let opened = pack::open(&object, kind, &setup.keys, &setup.repository).map(|(_, directory)| directory);
    assert_eq!(opened, *decoded);
    let (mut codec, mut raw) = (BlockCodec::new(), Vec::new());
    for block in opened.iter().flat_map(|directory| &directory.blocks) {
        let range =
            block.span.position as usize..block.span.position as usize + block.span.sealed_len as usize;
        let mut sealed = object[range].to_vec();
        assert!(pack::open_block(&cipher, &block.span, &mut sealed, &mut codec, &mut raw).is_err());
    }
}

/// Packs made of the input, which come back blob by blob; and a sealed block whose payload is the input.
pub fn pack_blocks(data: &[u8]) {
    let mut input = Input::new(data);
    let kind = [ObjectKind::DataPack, ObjectKind::MetadataPack][input.below(2)];
    let (object, blocks) = build(kind, &mut input);
    reads_back(kind, &object, &blocks);

    let mut input = Input::new(data);
    let raw_len = input.u32() % (RAW_LEN_MAX as u32 + 1);
    any_payload(raw_len, input.rest());
}

/// Blobs of one block.
type Blobs = Vec<(BlobKind, Vec<u8>)>;

fn build(kind: ObjectKind, input: &mut Input<'_>) -> (Vec<u8>, Vec<Blobs>) {
    let setup = setup();
    let (mut object, cipher) = setup.begin(kind);
    let (mut directory, mut blocks) = (Directory::default(), Vec::new());
    let mut codec = BlockCodec::new();
    while !input.is_empty() && blocks.len() < 64 {
        let shape = input.u8();
        let blobs: Blobs = (0..shape % 5 + 1)
            .map(|_| {
                let len = input.below(700);
                let blob_kind = match (kind, shape >> 7) {
                    (ObjectKind::DataPack, _) => BlobKind::Data,
                    (_, 0) => BlobKind::Tree,
                    _ => BlobKind::Snapshot,
                };
                (blob_kind, input.bytes(len).repeat(usize::from(shape >> 3 & 3)))
            })
            .collect();
        directory.blocks.push(seal_block(&mut object, &cipher, &mut codec, &blobs));
        blocks.push(blobs);
    }
    object.extend_from_slice(&pack::closing(object.len() as u64, &directory, &cipher));
    (object, blocks)
}

fn seal_block(
    object: &mut Vec<u8>,
    cipher: &crate::crypto::ObjectCipher,
    codec: &mut BlockCodec,
    blobs: &Blobs,
) -> DirectoryBlock {
    let len32 = |len: usize| u32::try_from(len).expect("fuzz inputs are short");
    let raw = blobs.iter().flat_map(|(_, bytes)| bytes).copied().collect::<Vec<u8>>();
    let mut payload = Vec::new();
    codec.compress(&raw, 1, &mut payload);
    let position = len32(object.len());
    pack::seal_block(cipher, position, len32(raw.len()), &mut payload);
    object.extend_from_slice(&payload);
    let mut offset = 0;
    let entries = blobs.iter().map(|(kind, bytes)| {
        offset += len32(bytes.len());
        let id = setup().keys.blob_id(*kind, bytes);
        DirectoryBlob { id, kind: *kind, offset: offset - len32(bytes.len()), len: len32(bytes.len()) }
    });
    let blobs = entries.collect();
    let span = BlockSpan { position, sealed_len: len32(payload.len()), raw_len: len32(raw.len()) };
    DirectoryBlock { span, blobs }
}

fn reads_back(kind: ObjectKind, object: &[u8], blocks: &[Blobs]) {
    let setup = setup();
    let (cipher, directory) =
        pack::open(object, kind, &setup.keys, &setup.repository).expect("what was just written");
    assert_eq!(directory.blocks.len(), blocks.len());
    let (mut codec, mut raw) = (BlockCodec::new(), Vec::new());
    for (DirectoryBlock { span, blobs }, written) in directory.blocks.iter().zip(blocks) {
        let start = span.position as usize;
        let sealed = &object[start..start + span.sealed_len as usize];
        pack::open_block(&cipher, span, &mut sealed.to_vec(), &mut codec, &mut raw).expect("written");
        assert_eq!(blobs.len(), written.len());
        for (blob, (_, bytes)) in blobs.iter().zip(written) {
            assert_eq!(raw[blob.offset as usize..][..blob.len as usize], **bytes);
            assert_eq!(setup.keys.blob_id(blob.kind, bytes), blob.id);
        }
        let moved = BlockSpan { position: span.position + 1, ..*span };
        let opened = pack::open_block(&cipher, &moved, &mut sealed.to_vec(), &mut codec, &mut raw);
        assert!(opened.is_err(), "a block opens only where it was sealed");
    }
    let mut cut = object.to_vec();
    cut.truncate(object.len() - TRAILER_LEN.min(blocks.len() + 1));
    assert!(pack::open(&cut, kind, &setup.keys, &setup.repository).is_err(), "cut short");
}

/// A block that opens and holds anything.
fn any_payload(raw_len: u32, payload: &[u8]) {
    let (_, cipher) = setup().begin(ObjectKind::DataPack);
    let span =
        BlockSpan { position: 80, sealed_len: u32::try_from(payload.len() + 16).expect("short"), raw_len };
    let mut sealed = payload.to_vec();
    cipher.seal(MessageContext { position: 80, raw_len: u64::from(raw_len) }, &mut sealed);
    let (mut codec, mut raw) = (BlockCodec::new(), Vec::new());
    let opened = pack::open_block(&cipher, &span, &mut sealed, &mut codec, &mut raw);
    assert_eq!(opened.is_ok(), {
        let mut expected = Vec::new();
        codec.decompress(payload, raw_len as usize, &mut expected).is_ok() && expected == raw
    });
}
