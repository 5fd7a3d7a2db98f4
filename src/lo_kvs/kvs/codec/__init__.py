"""The codec: JSON values to the bytes that are stored, and back.

    decode(encode(value)) == value, with the same types, for everything that is JSON

What `json.dumps` converts on the way is converted in the same way: tuples to arrays,
number, boolean and null keys to text, subclasses of the plain types to the plain types, the
two halves of one character to that character. Everything else is refused with `NotJSON`.
What `json` wrote in the past is read, NaN and Infinity included.

encode(value) -> bytes                compact UTF-8 text
encode_state(value) -> bytes, plain   the same, and whether nothing was converted
encode_plain(value) -> bytes          the same for what `plain_copy` returned
decode(data) -> value                 ValueError where `data` is no JSON
plain_copy(value) -> copy             NOT_PLAIN where a look cannot prove that it is plain
end_of_members(data, at, most)        where a large array or object can be cut: see `pieces`

There are two twins: `_c` is compiled, `_py` is pure; `LOKVS_PURE_CODEC=1` chooses the pure
one. COMPILED and IMPLEMENTATION say which one is active.
"""

import logging
import os
from typing import Final

from lo_kvs.kvs.codec._write import DEPTH_MAX, NOT_PLAIN, Json

__all__ = [
    "COMPILED",
    "DEPTH_MAX",
    "IMPLEMENTATION",
    "NOT_PLAIN",
    "Json",
    "decode",
    "encode",
    "encode_plain",
    "encode_state",
    "end_of_members",
    "plain_copy",
]

_reason = "LOKVS_PURE_CODEC=1"
_compiled = False
if os.environ.get("LOKVS_PURE_CODEC") != "1":
    try:
        from lo_kvs.kvs.codec._c import (
            decode,
            encode,
            encode_plain,
            encode_state,
            end_of_members,
            plain_copy,
        )

        _compiled = True
    except ImportError as error:
        _reason = f"the compiled one cannot be loaded: {error}"
if not _compiled:
    from lo_kvs.kvs.codec._py import (
        decode,
        encode,
        encode_plain,
        encode_state,
        end_of_members,
        plain_copy,
    )

#: Whether the compiled twin is active.
COMPILED: Final = _compiled
#: "compiled" or "pure".
IMPLEMENTATION: Final = "compiled" if COMPILED else "pure"

_logger = logging.getLogger(__name__)
if COMPILED:
    _logger.info("JSON codec: compiled")
else:
    _logger.info("JSON codec: pure Python (%s)", _reason)
