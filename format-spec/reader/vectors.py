"""Checks the test vectors of the specification."""

import json
import pathlib

from blake3 import blake3

import chunking
import mpack
import objects
import parity
import records
import sealing
import x25519
from refusal import Refused


def check_all(folder):
    """Checks every vector; returns (number, list of failures)."""
    failures, files = [], sorted(pathlib.Path(folder).glob("*.json"))
    for file in files:
        vector = json.loads(file.read_text(encoding="utf-8"))
        check = CHECKS.get(vector["kind"])
        if check is None:
            failures.append(f"{file.name}: no such kind {vector['kind']!r}")
            continue
        try:
            found = check(Inputs(vector["inputs"]))
        except Refused as refused:
            if refused.failure != vector.get("error"):
                failures.append(f"{file.name}: refused with {refused}, expected {vector.get('error', 'a value')}")
            continue
        if "error" in vector:
            failures.append(f"{file.name}: accepted, expected {vector['error']}")
        elif found != vector["expected"]:
            failures.append(f"{file.name}: found {str(found)[:300]}, expected {str(vector['expected'])[:300]}")
    return len(files), failures


class Inputs(dict):
    def hex(self, name):
        return bytes.fromhex(self[name])

    @property
    def keys(self):
        return sealing.Keys(self.hex("root"), bytes.fromhex(self.get("repository", "")))


def key(inputs):
    return {"key": sealing.purpose_key(inputs.hex("root"), inputs["context"], inputs["epoch"]).hex()}


def blob_id(inputs):
    kind = sealing.BLOB_KINDS.index(inputs["blob_kind"])
    return {"id": inputs.keys.blob_id(kind, inputs.hex("plaintext")).hex()}


def object_key(inputs):
    prefix, keys = inputs.hex("prefix"), inputs.keys
    parts = sealing.object_keys(keys.keys[sealing.PURPOSE_OF_KIND[prefix[8]]], keys.repository, prefix)
    return dict(zip(("key", "commitment", "padding_seed"), (part.hex() for part in parts)))


def header(inputs):
    data = inputs.hex("object")
    inputs.keys.open_header(data, inputs["kind"])
    return {"salt": data[16:48].hex()}


def message(inputs):
    cipher = inputs.keys.open_header(inputs.hex("object"), inputs["kind"])
    return {"plaintext": cipher.open(inputs["position"], inputs["raw_length"], inputs.hex("sealed")).hex()}


def config(inputs):
    data = inputs.hex("object")
    found = objects.read_config(data)
    return {**found, "repository": found["repository"].hex(), "hash": sealing.hash_of(data).hex()}


def keyslot(inputs):
    data = inputs.hex("object")
    slot = objects.open_keyslot(data, inputs.hex("repository"), inputs.hex("password"))
    keys = {name: slot[name].hex() for name in records.APPEND_KEYS if name in slot}
    return {
        "id": sealing.hash_of(data).hex(),
        **({"keys": keys} if keys else {"root": slot["root"].hex()}),
        "writer_seed": slot["writer"].hex(),
        "writer": objects.writer_of(slot["writer"]).hex(),
        "label": slot["label"],
    }


def recipient(inputs):
    secret = inputs.keys.keys[sealing.RECIPIENT_OF_KIND[inputs["kind"]]]
    key = sealing.recipient_key(secret, inputs.hex("ephemeral"))
    return {"public": x25519.multiply(secret, x25519.BASE).hex(), "key": key.hex()}


def record(inputs):
    raw = sealing.open_record(inputs.keys, inputs["kind"], inputs.hex("object"))
    records.read(records.STATE, raw, "state")
    return {"record": raw.hex()}


def payload(inputs):
    return {"raw": sealing.payload(inputs.hex("payload"), inputs["raw_length"]).hex()}


def shown(blobs):
    return [{**blob, "id": blob["id"].hex()} for blob in blobs]


def pack(inputs):
    data, keys = inputs.hex("object"), inputs.keys
    cipher, blobs = objects.open_pack(keys, data, inputs["kind"])
    for blob in blobs:
        end = blob["position"] + blob["sealed_length"]
        raw = objects.open_block(cipher, blob, data[blob["position"] : end])
        if keys.blob_id(blob["kind"], raw[blob["offset"] : blob["offset"] + blob["length"]]) != blob["id"]:
            raise Refused("blob-id", "a blob is not what its id says")
    return {"id": sealing.hash_of(data).hex(), "blobs": shown(blobs)}


def directory(inputs):
    return {"blobs": shown(objects.read_directory(inputs.hex("directory"), inputs["kind"], inputs["blocks_end"]))}


def place(segment, entry):
    place = {name: value for name, value in entry.items() if name != "id"}
    return {**place, "pack": segment.pack(entry["pack"])["id"].hex()}


def segment(inputs):
    data = inputs.hex("object")
    found = objects.Segment(inputs.keys, data)
    entries = [entry for leaf in range(found.leaves) for entry in found.leaf(leaf)]
    packs = []
    for index in range(found.pack_count):
        pack = found.pack(index)
        salt, commitment = pack["header"][16:48].hex(), pack["header"][48:80].hex()
        numbers = {name: pack[name] for name in ("kind", "size", "blobs")}
        packs.append({"id": pack["id"].hex(), "salt": salt, "commitment": commitment, **numbers})
    shown = [{"id": entry["id"].hex(), "place": place(found, entry)} for entry in entries]
    return {"id": sealing.hash_of(data).hex(), "entries": shown, "packs": packs}


def lookup(inputs):
    found = objects.Segment(inputs.keys, inputs.hex("object"))
    return {"places": [place(found, entry) for entry in found.find(inputs.hex("id"))]}


def tree(inputs):
    data = inputs.hex("record")
    records.read(records.TREE, data, "tree")
    return {"value": records.to_json(mpack.decode(data))}


def tree_rules(inputs):
    return records.read_tree(inputs.hex("record"))


def of_record(kind):
    def check(inputs):
        data = inputs.hex("record")
        records.read(kind, data, "record")
        return {"value": records.to_json(mpack.decode(data))}

    return check


def snapshot(inputs):
    data = inputs.hex("record")
    records.read_snapshot(data)
    return {"id": inputs.keys.blob_id(2, data).hex(), "value": records.to_json(mpack.decode(data))}


def chunk_table(inputs):
    unit = "length" if inputs["depth"] == 0 else "bytes"
    entries = records.read_table(inputs["depth"], inputs.hex("table"))
    return {"entries": [{"id": entry.hex(), unit: length} for entry, length in entries]}


def commit(inputs):
    data = inputs.hex("object")
    signed = objects.open_signed(inputs.keys, data)
    objects.read_commit(signed, inputs["seq"])
    value = records.to_json(mpack.decode(signed["body"]))
    return {"hash": sealing.hash_of(data).hex(), "writer": signed["writer"].hex(), "value": value}


def ledger(inputs):
    data = inputs.hex("object")
    entries = records.read_ledger(sealing.open_record(inputs.keys, sealing.LEDGER, data))
    names = ("pack", "method", "time", "intact")
    return {
        "id": sealing.hash_of(data).hex(),
        "entries": [{name: records.to_json(value) for name, value in zip(names, entry)} for entry in entries],
    }


def parity_sidecar(inputs):
    sidecar = parity.Sidecar(inputs.hex("sidecar"))
    head = sidecar.head
    return {
        "covered": head["covered"],
        "shard_length": head["shard"],
        "originals": head["originals"],
        "recovery": head["recovery"],
        "object": head["object"].hex(),
        "usable": sorted(sidecar.good_recovery()),
    }


def parity_repair(inputs):
    whole = parity.repair(parity.Sidecar(inputs.hex("sidecar")), inputs.hex("object"))
    data = {"generator": "blake3-xof", "input": "covered by parity", "length": len(whole)}
    return {"data": data if data_of(data) == whole else whole.hex()}


def data_of(description):
    length = description["length"]
    match description["generator"]:
        case "zeros":
            return bytes(length)
        case "lines":
            lines, total, n = [], 0, 0
            while total < length:
                lines.append(b"%d\n" % n)
                total, n = total + len(lines[-1]), n + 1
            return b"".join(lines)[:length]
        case "blake3-xof":
            return blake3(description["input"].encode()).digest(length=length)
    raise ValueError(description)


def chunker(inputs):
    return sealing.purpose_key(inputs.hex("root"), sealing.CONTEXTS["chunker"])


def split(inputs):
    weights = inputs["weights"]
    items = [(n.to_bytes(4, "big"), weights[n % len(weights)]) for n in range(inputs["items"])]
    return {"pieces": chunking.pieces(items, chunker(inputs), inputs["list"])}


CHECKS = {
    "key": key,
    "blob-id": blob_id,
    "object-key": object_key,
    "header": header,
    "message": message,
    "config": config,
    "keyslot": keyslot,
    "recipient": recipient,
    "record": record,
    "payload": payload,
    "padme": lambda inputs: {"padded": sealing.padme(inputs["length"])},
    "pack": pack,
    "directory": directory,
    "segment": segment,
    "segment-lookup": lookup,
    "tree": tree,
    "tree-rules": tree_rules,
    "chunk-list": of_record(records.CHUNK_LIST),
    "state": of_record(records.STATE),
    "snapshot": snapshot,
    "chunk-table": chunk_table,
    "commit": commit,
    "ledger": ledger,
    "parity": parity_sidecar,
    "parity-name": lambda inputs: {"id": parity.name_of(inputs["key"]).hex()},
    "parity-encode": lambda inputs: {"sidecar": parity.encode(data_of(inputs["data"]), inputs["overhead"]).hex()},
    "parity-repair": parity_repair,
    "gear": lambda inputs: {"gear": chunking.gear(chunker(inputs)).hex()},
    "cuts": lambda inputs: {"lengths": chunking.cut_all(data_of(inputs["data"]), chunker(inputs), inputs["grain"])},
    "split": split,
}
