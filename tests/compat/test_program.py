"""One program, unchanged, on every kind of store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.compat.support import creds, run_program

PROGRAM = Path(__file__).with_name("program.py")

STORES: dict[str, dict[str, Any]] = {
    "stub": {"type": "stub"},
    "filesystem": {"type": "filesystem", "path": "PATH", "subdirs": False},
    "filesystem with subdirs": {"type": "filesystem", "path": "PATH", "subdirs": True},
    "redis": {"type": "redis"},
    "redis_ephemeral": {"type": "redis_ephemeral", "expiry": 60},
}

ACTIVITY = "__main__.activity"
EXPECTED = {
    "NLP_CACHE_17": {"tuple": [1, 2], "3": "three"},
    "email-studentID-mapping:a@b.c": "s1",
    f"Internal,{ACTIVITY},STUDENT:s1": {"saves": 101, "by": {"save": 1}},
    f"External,{ACTIVITY},STUDENT:s1": {"saves": 101, "by": {"save": 1}},
    f"Internal,{ACTIVITY},STUDENT:[guest]": {"saves": 0, "by": {}},
    "Internal,__main__.last_document,EventField.doc_id:D,STUDENT:s1": None,
    "External,__main__.last_document,EventField.doc_id:D,STUDENT:s1": {"last": "D"},
    "Internal,__main__.last_document,EventField.doc_id:E/1,STUDENT:s1": None,
    "External,__main__.last_document,EventField.doc_id:E/1,STUDENT:s1": {"last": "E/1"},
    "Internal,__main__.last_document,EventField.doc_id:E%2CSTUDENT:s2,STUDENT:s1": None,
    "External,__main__.last_document,EventField.doc_id:E%2CSTUDENT:s2,STUDENT:s1": {
        "last": "E,STUDENT:s2"
    },
    "Internal,__main__.last_document,EventField.doc_id:None,STUDENT:s1": {"last": None},
    "Internal,old.module.tally": 3,
    "External,old.module.tally": None,
    "Internal,__main__.plain,STUDENT:s2": 13,
    "External,__main__.plain,STUDENT:s2": None,
}


@pytest.mark.parametrize("kind", STORES)
def test_program_of_an_existing_caller(kind: str, tmp_path: Path, redis_url: str) -> None:
    default = {
        option: str(tmp_path / "kvs") if value == "PATH" else value
        for option, value in STORES[kind].items()
    }
    settings = creds(tmp_path, redis_url, default)
    assert run_program(PROGRAM, str(settings), str(tmp_path)) == EXPECTED
