"""Plain data and NumPy arrays as bytes and back: the only format that states, answers and kept values take.

msgpack with one extension for arrays (dtype, shape, little-endian bytes). No pickle: nothing in it can run.
Equal values give equal bytes, so that a resumed run can be compared bit for bit.
"""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np

_ARRAY = 1
_DTYPES = ("<f8", "<f4", "<i8", "<i4", "|u1", "|b1")


def pack(value: Any) -> bytes:
    """Bytes of nested dicts, lists, text, numbers, None and arrays; raises TypeError on anything else."""
    return bytes(msgpack.packb(value, default=_encode, strict_types=False))


def unpack(data: bytes) -> Any:
    """What `pack` was given (tuples come back as lists); raises ValueError on broken bytes."""
    try:
        return msgpack.unpackb(data, ext_hook=_decode, strict_map_key=False)
    except (msgpack.UnpackException, msgpack.ExtraData, TypeError, KeyError) as error:
        raise ValueError(f"these bytes cannot be read: {type(error).__name__}") from None


def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value).reshape(value.shape)
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype.str not in _DTYPES:
            raise TypeError(f"arrays of {array.dtype} do not travel")
        head = msgpack.packb([array.dtype.str, list(array.shape)])
        return msgpack.ExtType(_ARRAY, head + array.tobytes())
    raise TypeError(f"{type(value).__name__} does not travel")


def _decode(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension {code}")
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))  # its default ends at 100 MB
    unpacker.feed(data)
    dtype, shape = unpacker.unpack()
    if dtype not in _DTYPES:
        raise ValueError(f"unknown array type {dtype!r}")
    return np.frombuffer(data, dtype=dtype, offset=unpacker.tell()).reshape(shape).copy()
