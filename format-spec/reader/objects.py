"""Config, keyslots, packs, segments and commits (03, 04, 05, 07 of the specification)."""

from argon2.low_level import Type, hash_secret_raw
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import mpack
import records
import sealing
from refusal import Refused
from sealing import HEADER_LEN, TAG_LEN

KNOWN_FEATURES = 0
KEYSLOT_CONTEXT = "strongroom v1 2026-11-22 keyslot"
SIGNATURE_CONTEXT = b"strongroom v1 commit"
PACK_LEN_MIN, PACK_LEN_MAX, DIRECTORY_LEN_MAX = 112, 256 << 20, 32 << 20
PAGE, PAGE_PLAIN = 4096, 4080


def number(data, at, size=4):
    return int.from_bytes(data[at : at + size], "little")


def read_config(data):
    if len(data) > 64 << 10:
        raise Refused("length", "the config is longer than 64 KiB")
    sealing.check_magic(data)
    # A later version may have more fields: its bits say so, whatever else it holds.
    fields = mpack.decode(data[8:])
    is_map = type(fields) is mpack.Map and all(type(name) is str for name, _ in fields)
    found = dict(fields) if is_map else {}
    unknown = found.get("must_understand", 0)
    unknown = unknown & ~KNOWN_FEATURES if type(unknown) is int and 0 <= unknown < 1 << 64 else 0
    if unknown:
        raise Refused("features", f"the repository needs features {unknown:#x}: a newer program is needed")
    try:
        return records.read(records.CONFIG, data[8:], "config")
    except Refused as refused:
        known = mpack.Map((name, found[name]) for name, *_ in records.CONFIG.fields if name in found)
        if len(found) == len(fields) and len(known) < len(found):
            records.CONFIG.read(known, "config")
            raise Refused("version", f"the config of a later version: {refused}") from None
        raise


def open_keyslot(data, repository, password):
    sealing.check_header(data, sealing.KEYSLOT)
    if len(data) != 1024:
        raise Refused("length", f"a keyslot of {len(data)} bytes")
    memory, passes, lanes, reserved = (number(data, at) for at in (80, 84, 88, 92))
    if reserved:
        raise Refused("record", "reserved bytes are not zero")
    if not (19_456 <= memory <= 1_048_576 and 2 <= passes <= 64 and 1 <= lanes <= 16):
        raise Refused("kdf-bounds", f"Argon2id with {memory} KiB, {passes} passes, {lanes} lanes is not accepted")
    stretched = hash_secret_raw(
        password, data[16:48], time_cost=passes, memory_cost=memory, parallelism=lanes, hash_len=32, type=Type.ID, version=0x13
    )
    key = sealing.derive_key(KEYSLOT_CONTEXT, stretched + data[80:96])
    message = sealing.Cipher(key, repository, data[:HEADER_LEN], "wrong-password").open(96, 912, data[96:])
    length = number(message, 0)
    if 4 + length > len(message):
        raise Refused("record", "the keyslot's record is cut short")
    if any(message[4 + length :]):
        raise Refused("padding", "the padding is not zero")
    kind = records.APPEND_KEYSLOT if data[10] == sealing.APPEND_ONLY else records.KEYSLOT
    return records.read(kind, message[4 : 4 + length], "keyslot")


def writer_of(seed):
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


# Packs


def check_span(position, sealed, raw, failure, end_max=PACK_LEN_MAX):
    possible = position >= HEADER_LEN and raw <= records.BLOB_LEN_MAX and TAG_LEN <= sealed <= raw + TAG_LEN
    if not possible or position + sealed > end_max:
        raise Refused(failure, f"a block at {position} of {sealed} bytes for {raw} is impossible")


def read_directory(data, kind, blocks_end):
    """Blobs of a pack directory's plaintext, with their places."""

    def lie(message):
        raise Refused("directory", f"the pack's directory is wrong: {message}")

    if len(data) < 8:
        lie("no counts")
    blocks, count = number(data, 0), number(data, 4)
    if 8 + 16 * blocks + 40 * count != len(data):
        lie("counts do not match its length")
    at, position, blobs = 8 + 16 * blocks, HEADER_LEN, []
    for entry in range(8, 8 + 16 * blocks, 16):
        start, sealed, raw, inside = (number(data, entry + i) for i in (0, 4, 8, 12))
        check_span(start, sealed, raw, "directory")
        if start != position:
            lie("a gap between blocks")
        position, offset = start + sealed, 0
        if not 1 <= inside <= (len(data) - at) // 40:
            lie("a block's blob count")
        for _ in range(inside):
            length, blob_kind = number(data, at + 32), data[at + 36]
            if any(data[at + 37 : at + 40]) or blob_kind not in ((0,) if kind == sealing.DATA_PACK else (1, 2)):
                lie("a blob kind that does not belong in such a pack")
            blobs.append(
                {
                    "id": data[at : at + 32],
                    "kind": blob_kind,
                    "position": start,
                    "sealed_length": sealed,
                    "raw_length": raw,
                    "offset": offset,
                    "length": length,
                }
            )
            offset, at = offset + length, at + 40
        if offset != raw:
            lie("blobs do not fill their block")
    if at != len(data) or position != blocks_end:
        lie("blobs or bytes that no block holds")
    return blobs


def open_pack(keys, data, kind):
    """Cipher and blobs of a whole pack."""
    cipher = keys.open_header(data, kind)
    if not PACK_LEN_MIN <= len(data) <= PACK_LEN_MAX:
        raise Refused("length", f"a pack of {len(data)} bytes")
    trailer_at = len(data) - 32
    trailer = cipher.open(trailer_at, 16, data[trailer_at:])
    start, length = number(trailer, 0, 8), number(trailer, 8, 8)
    if start < HEADER_LEN or start + length + TAG_LEN > trailer_at:
        raise Refused("directory", "the trailer points outside the pack")
    if length > DIRECTORY_LEN_MAX:
        raise Refused("directory", f"a directory of {length} bytes")
    directory = cipher.open(start, length, data[start : start + length + TAG_LEN])
    return cipher, read_directory(directory, kind, start)


def open_block(cipher, place, sealed):
    check_span(place["position"], place["sealed_length"], place["raw_length"], "directory")
    return sealing.payload(cipher.open(place["position"], place["raw_length"], sealed), place["raw_length"])


# Segments


class Segment:
    """A segment, searched in place."""

    def __init__(self, keys, data):
        self.data, self.cipher = data, keys.open_header(data, sealing.SEGMENT)
        pages = len(data) // PAGE
        if len(data) % PAGE or pages < 2:
            raise Refused("segment", "the length is not that of whole pages")
        summary = self.page(pages - 1)
        if summary[:8] != b"SEGMENT1" or any(summary[20:]):
            raise Refused("segment", "the last page is no summary")
        self.count, self.pack_count = number(summary, 8, 8), number(summary, 16)
        self.leaves = -(-self.count // 72)
        self.groups = -(-self.leaves // 26)
        self.packs_at = 1 + self.leaves + self.groups + -(-self.groups // 510)
        if self.packs_at + -(-self.pack_count // 34) + 1 != pages:
            raise Refused("segment", "the summary does not match the length")

    def page(self, index):
        at = PAGE * index
        return self.cipher.open(at, PAGE_PLAIN, self.data[at : at + PAGE])

    def leaf_number(self, leaf):
        group = leaf // 26
        return number(self.page(1 + min(26 * (group + 1), self.leaves) + group), 8 * (leaf % 26), 8)

    def leaf(self, leaf):
        page = self.page(1 + leaf + leaf // 26)
        entries = [self.entry(page[at : at + 56]) for at in range(0, 56 * min(72, self.count - 72 * leaf), 56)]
        if any(a["id"] > b["id"] for a, b in zip(entries, entries[1:])):
            raise Refused("segment", "entries out of order")
        return entries

    def entry(self, data):
        names = ("pack", "position", "sealed_length", "raw_length", "offset", "length")
        entry = {name: number(data, 32 + 4 * i) for i, name in enumerate(names)}
        if entry["pack"] >= self.pack_count or entry["offset"] + entry["length"] > entry["raw_length"]:
            raise Refused("segment", "an impossible entry")
        check_span(entry["position"], entry["sealed_length"], entry["raw_length"], "segment")
        return {"id": data[:32], **entry}

    def pack(self, index):
        at = 120 * (index % 34)
        data = self.page(self.packs_at + index // 34)[at : at + 120]
        header = sealing.MAGIC + data[32:104]
        kind = header[8]
        if kind not in (sealing.DATA_PACK, sealing.METADATA_PACK):
            raise Refused("header", "a pack of impossible kind")
        sealing.check_header(header, kind)
        if any(data[116:]):
            raise Refused("segment", "reserved bytes are not zero")
        return {"id": data[:32], "header": header, "kind": kind, "size": number(data, 104, 8), "blobs": number(data, 112)}

    def find(self, blob_id):
        """Entries of a blob."""
        wanted = int.from_bytes(blob_id[:8], "big")
        low, high = 0, self.leaves
        while low < high:  # the first leaf whose number is not less
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.leaf_number(middle) < wanted else (low, middle)
        leaf, found = max(low - 1, 0), []
        while leaf < self.leaves and (leaf < low or self.leaf_number(leaf) <= wanted):
            found += [entry for entry in self.leaf(leaf) if entry["id"] == blob_id]
            leaf += 1
        for entry in found:
            if entry["position"] + entry["sealed_length"] > self.pack(entry["pack"])["size"]:
                raise Refused("segment", "a block beyond its pack's end")
        return found


# Commits

# y coordinates of the points of small order, and their other encodings; bit 255 is the sign of x.
_P = 2**255 - 19
_Y8 = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD83D3D706A17C7
_SMALL = {0, 1, _P - 1, _P, _P + 1, _Y8, _P - _Y8}


def is_small_order(point):
    return int.from_bytes(point, "little") & ~(1 << 255) in _SMALL


def verify(signed, repository):
    key, signature = signed["writer"], signed["signature"]
    bad = len(signature) != 64 or is_small_order(key) or is_small_order(signature[:32])
    try:
        if bad:
            raise InvalidSignature
        Ed25519PublicKey.from_public_bytes(key).verify(signature, SIGNATURE_CONTEXT + repository + signed["body"])
    except (InvalidSignature, ValueError):
        raise Refused("signature", f"the signature does not verify under the key of writer {key.hex()}") from None


def open_signed(keys, data):
    """The signed record of a commit, its signature verified."""
    signed = records.read(records.SIGNED_COMMIT, sealing.open_record(keys, sealing.COMMIT, data), "commit")
    verify(signed, keys.repository)
    return signed


def read_commit(signed, seq):
    commit = records.read(records.COMMIT, signed["body"], "commit")
    if commit["seq"] != seq:
        raise Refused("sequence", f"the commit says it is number {commit['seq']}, but stands at {seq}")
    return commit
