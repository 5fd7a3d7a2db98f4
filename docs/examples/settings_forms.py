"""The forms of the `kvs` block: each one gives the same stores."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

import lo_kvs

STUB = {"type": "stub"}
CACHE = {"type": "filesystem", "path": "cache", "fsync": False}
CREDS = """
kvs:
  default:
    type: stub
  cache:
    type: filesystem
    path: cache
    fsync: false
"""


def main():
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        creds = Path("creds.yaml")
        creds.write_text(CREDS)
        for source in (
            creds,
            {"kvs": {"default": STUB, "cache": CACHE}},
            {"kvs": [["default", STUB], ["cache", CACHE]]},
            {"kvs": [("default", STUB), ("cache", CACHE)]},
            {"kvs": [{"default": STUB}, {"cache": CACHE}]},
        ):
            lo_kvs.configure(source)
            stores = lo_kvs.KVS(), lo_kvs.KVS.cache()
            print(lo_kvs.KVS.names(), *(type(store).__name__ for store in stores))
            asyncio.run(lo_kvs.KVS.aclose())


main()
