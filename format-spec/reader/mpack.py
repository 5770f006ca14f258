"""MessagePack as the specification restricts it (02-objects.md, "Records"): shortest encodings only."""

import struct

from refusal import Refused

DEPTH_MAX = 64


def decode(data):
    """The value that fills `data` exactly: int, bool, str, bytes, list, or list of pairs wrapped in Map."""
    decoder = _Decoder(bytes(data))
    value = decoder.value(0)
    if decoder.at != len(data):
        raise Refused("record", f"{len(data) - decoder.at} bytes follow the record")
    return value


class Map(list):
    """Entries of a map, in order, as (key, value)."""


class _Decoder:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        end = self.at + count
        if end > len(self.data):
            raise Refused("record", "the record is cut short")
        part = self.data[self.at : end]
        self.at = end
        return part

    def number(self, form, shortest_above):
        value = struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]
        if shortest_above is not None and value <= shortest_above:
            raise Refused("record", "a number or length is not in its shortest encoding")
        return value

    def value(self, depth):
        if depth > DEPTH_MAX:
            raise Refused("record", "values nest too deep")
        byte = self.take(1)[0]
        if byte <= 0x7F:
            return byte
        if byte <= 0x8F:
            return self.map(byte & 0x0F, depth)
        if byte <= 0x9F:
            return self.array(byte & 0x0F, depth)
        if byte <= 0xBF:
            return self.text(byte & 0x1F)
        if byte >= 0xE0:
            return byte - 0x100
        if byte in (0xC2, 0xC3):
            return byte == 0xC3
        lengths = {0xC4: ("B", None), 0xC5: ("H", 0xFF), 0xC6: ("I", 0xFFFF)}
        if byte in lengths:
            return self.take(self.number(*lengths[byte]))
        unsigned = {0xCC: ("B", 0x7F), 0xCD: ("H", 0xFF), 0xCE: ("I", 0xFFFF), 0xCF: ("Q", 0xFFFFFFFF)}
        if byte in unsigned:
            return self.number(*unsigned[byte])
        signed = {0xD0: ("b", -32), 0xD1: ("h", -0x80), 0xD2: ("i", -0x8000), 0xD3: ("q", -0x80000000)}
        if byte in signed:
            form, limit = signed[byte]
            value = self.number(form, None)
            if value >= limit:
                raise Refused("record", "a number is not in its shortest encoding")
            return value
        texts = {0xD9: ("B", 0x1F), 0xDA: ("H", 0xFF), 0xDB: ("I", 0xFFFF)}
        if byte in texts:
            return self.text(self.number(*texts[byte]))
        arrays = {0xDC: ("H", 0x0F), 0xDD: ("I", 0xFFFF)}
        if byte in arrays:
            return self.array(self.number(*arrays[byte]), depth)
        maps = {0xDE: ("H", 0x0F), 0xDF: ("I", 0xFFFF)}
        if byte in maps:
            return self.map(self.number(*maps[byte]), depth)
        raise Refused("record", f"MessagePack type {byte:#04x} does not occur in records")

    def text(self, length):
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("record", "a text is not UTF-8") from None

    def array(self, count, depth):
        return [self.value(depth + 1) for _ in range(self.possible(count))]

    def map(self, count, depth):
        return Map((self.value(depth + 1), self.value(depth + 1)) for _ in range(self.possible(count)))

    def possible(self, count):
        if count > len(self.data) - self.at:
            raise Refused("record", "more elements than bytes")
        return count
