"""Keys, headers, sealed messages, payloads and record objects (01-keys.md, 02-objects.md)."""

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

import x25519
from refusal import Refused

MAGIC = b"SROOMv1\n"
HEADER_LEN, TAG_LEN = 80, 16
RECORD_LEN_MAX = 64 << 20

COMMIT, STATE, DATA_PACK, METADATA_PACK, SEGMENT, LEDGER = 3, 4, 5, 6, 7, 8
KEYSLOT = 2

CONTEXTS = {
    "data-id": "strongroom v1 2026-11-22 data blob id",
    "tree-id": "strongroom v1 2026-11-22 tree blob id",
    "snapshot-id": "strongroom v1 2026-11-22 snapshot blob id",
    "chunker": "strongroom v1 2026-11-22 chunker",
    "data": "strongroom v1 2026-11-22 data packs",
    "metadata": "strongroom v1 2026-11-22 metadata packs",
    "index": "strongroom v1 2026-11-22 index segments",
    "log": "strongroom v1 2026-11-22 commit log",
    "state": "strongroom v1 2026-11-28 states of the log",
    "data-recipient": "strongroom v1 2026-11-28 data recipient",
    "metadata-recipient": "strongroom v1 2026-11-28 metadata recipient",
}
PACK_CONTEXT = "strongroom v1 2026-11-28 pack for a recipient"
PASSWORD_MODE, RECIPIENT_MODE = 1, 2
APPEND_ONLY = 1
RECIPIENT_OF_KIND = {DATA_PACK: "data-recipient", METADATA_PACK: "metadata-recipient"}
PURPOSE_OF_KIND = {
    COMMIT: "log",
    STATE: "state",
    DATA_PACK: "data",
    METADATA_PACK: "metadata",
    SEGMENT: "index",
    LEDGER: "log",
}
BLOB_KINDS = ("data", "tree", "snapshot")


def hash_of(data):
    return blake3(data).digest()


def keyed(key, data, length=32):
    return blake3(data, key=key).digest(length=length)


def derive_key(context, material):
    return blake3(material, derive_key_context=context).digest()


def purpose_key(root, context, epoch=0):
    return derive_key(context, root + epoch.to_bytes(4, "little"))


class Keys:
    """All keys of a root secret, and the repository they are for."""

    def __init__(self, root, repository):
        self.repository = repository
        self.keys = {purpose: purpose_key(root, context) for purpose, context in CONTEXTS.items()}

    def blob_id(self, kind, plaintext):
        return keyed(self.keys[f"{BLOB_KINDS[kind]}-id"], plaintext)

    def open_header(self, data, kind):
        """The cipher of the object that begins with `data` and has to be of `kind`."""
        check_header(data, kind)
        key = self.keys[PURPOSE_OF_KIND[kind]]
        if data[9] == RECIPIENT_MODE:
            key = recipient_key(self.keys[RECIPIENT_OF_KIND[kind]], data[16:48])
        return Cipher(key, self.repository, data[:HEADER_LEN])


def recipient_key(secret, ephemeral):
    """What takes the place of the purpose's key in a pack that was sealed for a recipient (11-append-only.md)."""
    shared = x25519.multiply(secret, ephemeral)
    if not any(shared):
        raise Refused("commitment", "the pack's public key is of small order")
    return derive_key(PACK_CONTEXT, shared + ephemeral + x25519.multiply(secret, x25519.BASE))


def check_magic(data):
    if len(data) < 8 or data[:6] != MAGIC[:6] or data[7:8] != MAGIC[7:]:
        raise Refused("header", "it does not begin with Strongroom's magic bytes")
    if data[6:7] != MAGIC[6:7]:
        raise Refused("version", f"format version {chr(data[6])!r}: a newer program is needed")


def check_header(data, kind):
    if len(data) < HEADER_LEN:
        raise Refused("header", f"{len(data)} bytes are less than a header")
    check_magic(data)
    if data[8] != kind:
        raise Refused("header", f"object of kind {data[8]}, expected {kind}")
    modes = {KEYSLOT: (PASSWORD_MODE,), DATA_PACK: (0, RECIPIENT_MODE), METADATA_PACK: (0, RECIPIENT_MODE)}
    flags = (0, APPEND_ONLY) if kind == KEYSLOT else (0,)
    if data[9] not in modes.get(kind, (0,)) or data[10] not in flags or any(data[11:16]):
        raise Refused("header", "key mode, flags or epoch that this reader does not know: a newer program is needed")


def object_keys(key, repository, prefix):
    """Key, commitment and padding seed of an object."""
    output = keyed(key, repository + prefix, 96)
    return output[:32], output[32:64], output[64:]


class Cipher:
    def __init__(self, key, repository, header, mismatch="commitment"):
        key, commitment, _ = object_keys(key, repository, header[:48])
        if commitment != header[48:80]:
            raise Refused(mismatch, "the key commitment does not match")
        self.aead, self.binding = ChaCha20Poly1305(key), repository + header[8:16]

    def open(self, position, raw_length, sealed):
        if len(sealed) < TAG_LEN:
            raise Refused("authentication", "a sealed message shorter than its tag")
        place = position.to_bytes(8, "little")
        associated = self.binding + place + raw_length.to_bytes(8, "little")
        try:
            return self.aead.decrypt(place + bytes(4), bytes(sealed), associated)
        except InvalidTag:
            raise Refused("authentication", f"the message at {position} does not open") from None


def payload(data, raw_length):
    """What a payload stands for."""
    if len(data) >= raw_length:
        if len(data) > raw_length:
            raise Refused("codec", "the payload is longer than what it stands for")
        return data
    try:
        # A magic number of a skippable frame, or none at all, is refused here too.
        if data[:4] != b"\x28\xb5\x2f\xfd":
            raise Refused("codec", "the payload is no zstd frame")
        frame = zstandard.get_frame_parameters(data)
        known = frame.content_size not in (zstandard.CONTENTSIZE_UNKNOWN, zstandard.CONTENTSIZE_ERROR)
        if frame.dict_id or (known and frame.content_size != raw_length):
            raise Refused("codec", "the zstd frame is of another length, or needs a dictionary")
        raw = zstandard.ZstdDecompressor().decompress(data, max_output_size=raw_length, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Refused("codec", f"the zstd frame is damaged: {error}") from None
    if len(raw) != raw_length:
        raise Refused("codec", f"the payload decompresses to {len(raw)} bytes, expected {raw_length}")
    return raw


def open_record(keys, kind, data):
    """Bytes of the record in a record object."""
    cipher = keys.open_header(data, kind)
    message = cipher.open(HEADER_LEN, max(len(data) - HEADER_LEN - TAG_LEN, 0), data[HEADER_LEN:])
    if len(message) < 8:
        raise Refused("record", "no lengths")
    raw_length, stored = int.from_bytes(message[:4], "little"), int.from_bytes(message[4:8], "little")
    if raw_length > RECORD_LEN_MAX:
        raise Refused("record", "the record is longer than 64 MiB")
    if 8 + stored > len(message):
        raise Refused("record", "the payload is cut short")
    if any(message[8 + stored :]):
        raise Refused("padding", "the padding is not zero")
    return payload(message[8 : 8 + stored], raw_length)


def padme(length):
    if length < 2:
        return length
    e = length.bit_length() - 1
    s = e.bit_length()
    mask = (1 << max(e - s, 0)) - 1
    total = length + mask
    return total & ~mask if total < 1 << 64 else length
