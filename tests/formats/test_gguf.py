"""GGUF files against the `gguf` package: its writer, and its numpy reference of every kind of block."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.formats.gguf import GgufFile
from bessemer.formats.gguf_blocks import BLOCKS, dequantize

gguf = pytest.importorskip("gguf")


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_kind_of_block_equals_the_reference_on_random_bytes(kind):
    block = BLOCKS[kind]
    theirs = gguf.GGMLQuantizationType[kind]
    assert (theirs.value, gguf.GGML_QUANT_SIZES[theirs]) == (block.number, (block.values, block.bytes))
    raw = np.random.default_rng(0).integers(0, 256, 300 * block.bytes, dtype=np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, theirs).astype(np.float32).reshape(-1)
        actual = dequantize(raw, kind)
    assert actual.dtype == np.float32
    assert np.isfinite(actual).mean() > 0.8
    np.testing.assert_allclose(actual, expected, rtol=1e-6, equal_nan=True)


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantised_weights_come_back_near_what_they_were(kind):
    weights = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    raw = gguf.quants.quantize(weights, gguf.GGMLQuantizationType[kind])
    error = np.abs(dequantize(raw.reshape(-1), kind).reshape(8, 64) - weights).max()
    assert error < {"4": 0.35, "5": 0.2, "8": 0.02}[kind[1]]


def write_file(path):
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint32("llama.block_count", 2)
    writer.add_float32("a.float", 0.5)
    writer.add_bool("a.bool", True)
    writer.add_int64("a.negative", -(2**40))
    writer.add_string("a.text", "Grüße")
    writer.add_array("some.texts", ["a", "", "ß"])
    writer.add_array("some.numbers", [1, 2, 3])
    writer.add_tensor("plain", np.arange(6, dtype=np.float32).reshape(2, 3))
    experts = np.random.default_rng(0).normal(size=(3, 4, 64)).astype(np.float32)
    for kind in ("Q8_0", "F16"):
        type = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(kind, gguf.quants.quantize(experts, type), raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return experts


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "whole.gguf"
    return path, write_file(path)


def test_metadata_and_tensors_are_read_as_they_were_written(whole):
    path, experts = whole
    file = GgufFile(path)
    assert file.metadata["general.architecture"] == "llama"
    expected = {
        "llama.block_count": 2,
        "a.float": 0.5,
        "a.bool": True,
        "a.negative": -(2**40),
        "a.text": "Grüße",
        "some.texts": ["a", "", "ß"],
        "some.numbers": [1, 2, 3],
    }
    assert {name: file.metadata[name] for name in expected} == expected
    assert file.read("plain").tolist() == [[0, 1, 2], [3, 4, 5]]
    assert file.tensors["Q8_0"].shape == experts.shape
    np.testing.assert_allclose(file.read("Q8_0"), experts, atol=0.02)
    np.testing.assert_allclose(file.read("F16"), experts, atol=2e-3)


@pytest.mark.parametrize("kind", ["Q8_0", "F16"])
def test_one_part_of_a_tensor_is_what_the_whole_has_there(whole, kind):
    file = GgufFile(whole[0])
    for index in range(3):
        assert np.array_equal(file.read(kind, index), file.read(kind)[index])


def read_bytes(data, folder):
    path = folder / "file.gguf"
    path.write_bytes(data)
    file = GgufFile(path)
    for name in file.tensors:
        file.read(name)


@given(share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_short_is_refused_wherever_it_ends(share, whole, tmp_path_factory):
    data = whole[0].read_bytes()
    tensor = GgufFile(whole[0]).tensors["F16"]
    end = int(share * (tensor.start + tensor.num_bytes))
    with pytest.raises(BessemerError, match=r"cut short|is empty|more than the file can hold|does not begin"):
        read_bytes(data[:end], tmp_path_factory.getbasetemp())


@given(place=st.integers(0, 700), value=st.integers(0, 255), width=st.integers(1, 8))
def test_no_damage_does_anything_but_a_clear_error(place, value, width, whole, tmp_path_factory):
    """Header and table lie in the first 700 bytes; flipped bits may also go unnoticed in a text."""
    data = bytearray(whole[0].read_bytes())
    data[place : place + width] = bytes([value] * width)
    with suppress(BessemerError):
        read_bytes(bytes(data), tmp_path_factory.getbasetemp())


def header(version=3, num_tensors=0, num_keys=0):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys)


def entry(name=b"w", dimensions=(32,), kind=8, offset=0):
    sizes = struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
    return struct.pack("<Q", len(name)) + name + sizes + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PK\3\4" + bytes(40), "does not begin with GGUF"),
        (header(version=1), "is GGUF version 1"),
        (header(version=3 << 24), "only versions 2 and 3, little endian"),
        (header(num_keys=2**60), "announces 1,152,921,504,606,846,976 entries"),
        (header(num_tensors=2**63), "more than the file can hold"),
        (header(num_keys=1) + struct.pack("<Q", 2**62) + bytes(64), "more than the file can hold"),
        (header(num_keys=1) + struct.pack("<Q", 1) + b"\xff" + bytes(64), "is not UTF-8"),
        (header(num_keys=1) + struct.pack("<Q1sI", 1, b"k", 77) + bytes(64), "names a type 77"),
        (header(num_keys=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 9, 1) + bytes(64), "list of type 9"),
        (header(num_keys=1) + struct.pack("<Q1sIIQ", 1, b"k", 9, 12, 2**61) + bytes(64), "can hold"),
        (header(num_tensors=1) + entry(dimensions=(32,) * 9), "has 9 dimensions"),
        (header(num_tensors=1) + entry(dimensions=(31,)) + bytes(64), "blocks of 32 .Q8_0."),
        (header(num_tensors=1) + entry(dimensions=(0, 32)[::-1]) + bytes(64), "does not divide"),
        (header(num_tensors=1) + entry(kind=16) + bytes(64), "type 16, which is not read"),
        (header(num_tensors=1) + entry(dimensions=(32, 2**50)) + bytes(64), "is cut short: tensor w"),
        (header(num_tensors=1) + entry(offset=2**63) + bytes(64), "is cut short: tensor w"),
        (header(num_tensors=2) + entry() * 2 + bytes(128), "the tensor w twice"),
    ],
)
def test_a_hostile_file_is_refused_with_its_fault(data, message, tmp_path):
    with pytest.raises(BessemerError, match=message):
        read_bytes(data, tmp_path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BessemerError, match="is missing"):
        GgufFile(tmp_path / "absent.gguf")
