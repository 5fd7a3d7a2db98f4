"""Values and the texts that are stored, with errors that name the key."""

from __future__ import annotations

import json

from learning_observer.kvs import codec
from learning_observer.kvs.codec import Json
from learning_observer.kvs.errors import CorruptValue, NotJSON


def encode(key: str, value: object) -> bytes:
    """The JSON text of a value for `key`; `NotJSON` names the place and the key."""
    try:
        return codec.encode(value)
    except NotJSON as error:
        raise NotJSON(error.path, error.reason, key) from None


def decode(key: str, data: bytes) -> Json:
    """The value that `data`, stored under `key`, is the JSON text of, or `CorruptValue`."""
    try:
        return codec.decode(data)
    except ValueError as error:
        raise CorruptValue(key, str(error)) from None


def encode_old(value: Json) -> bytes:
    """The text of a value that was read, even of one that `encode` refuses by now."""
    try:
        return codec.encode(value)
    except NotJSON:
        return json.dumps(value).encode()
