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

There are two twins: `_c` is compiled, `_py` is pure. `lo_kvs.compiled` chooses; `LOKVS_PURE=1`
asks for pure Python. COMPILED and IMPLEMENTATION say which one is active.

Imports `kvs/errors` and nothing else of the stores. `pieces` cuts large values; `_write` and
`_read` handle what orjson would convert inexactly.
"""

import logging
from typing import Final

from lo_kvs import compiled
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

#: Whether the compiled twin is active; then everything that is compiled runs compiled.
COMPILED: Final = compiled.is_used()
#: "compiled" or "pure".
IMPLEMENTATION: Final = "compiled" if COMPILED else "pure"

if COMPILED:
    from lo_kvs.kvs.codec._c import (
        decode,
        encode,
        encode_plain,
        encode_state,
        end_of_members,
        plain_copy,
    )
else:
    from lo_kvs.kvs.codec._py import (
        decode,
        encode,
        encode_plain,
        encode_state,
        end_of_members,
        plain_copy,
    )

_logger = logging.getLogger(__name__)
if COMPILED:
    _logger.info("JSON codec: compiled")
else:
    _logger.info("JSON codec: pure Python (%s)", compiled.reason())
