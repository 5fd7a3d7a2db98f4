"""The forms of the `kvs` block: all of them give the same stores."""

import asyncio
import contextlib
import tempfile
from pathlib import Path

from lo_kvs.kvs import KVS
from lo_kvs.prestartup import startup_checks_and_init
from lo_kvs.settings import load_settings

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
            load_settings(source)
            startup_checks_and_init()
            print(KVS.names(), type(KVS()).__name__, type(KVS.cache()).__name__)
            asyncio.run(KVS.aclose())


main()
