"""Encode and decode the values of keys, with errors that name the key."""

from __future__ import annotations

from collections.abc import Coroutine

from lo_kvs.kvs import codec
from lo_kvs.kvs.batching.turns import Turns
from lo_kvs.kvs.codec import Json
from lo_kvs.kvs.codec._write import write_all
from lo_kvs.kvs.codec.pieces import PIECE_BYTES, decode_pieces
from lo_kvs.kvs.errors import CorruptValue, NotJSON

__all__ = ["PIECE_BYTES", "decode", "decode_in_turns", "encode", "encode_old", "value_in_turns"]


def encode(key: str, value: object) -> bytes:
    """The JSON text of a value. `NotJSON` names the key and the path of the invalid part."""
    try:
        return codec.encode(value)
    except NotJSON as error:
        reason = error.reason
        if isinstance(value, Coroutine):
            value.close()  # nobody else can await it
            reason = "a coroutine is not JSON: await it first (`update` takes no async function)"
        raise NotJSON(error.path, reason, key) from None


def decode(key: str, data: bytes) -> Json:
    """The value of the JSON text `data`, stored under `key`. Raises `CorruptValue`."""
    try:
        return codec.decode(data)
    except ValueError as error:
        raise CorruptValue(key, str(error)) from None


async def decode_in_turns(key: str, data: bytes, turns: Turns | None = None) -> Json:
    """`decode`; for large texts, it lets other tasks run in between."""
    if len(data) < PIECE_BYTES:
        return decode(key, data)
    try:
        return await value_in_turns(data, turns or Turns())
    except ValueError as error:
        raise CorruptValue(key, str(error)) from None


async def value_in_turns(data: bytes, turns: Turns) -> Json:
    """`codec.decode(data)`; it lets other tasks run in between. Raises ValueError."""
    pieces = decode_pieces(data)
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            value: Json = end.value
            return value
        if turns.due():
            await turns.pause()


def encode_old(value: Json) -> bytes:
    """The text of a value that was read, even if `encode` no longer accepts it."""
    try:
        return codec.encode(value)
    except NotJSON:
        return write_all(value)
