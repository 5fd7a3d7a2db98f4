"""The errors of a faulty configuration: startup reports all of them at once."""

import lo_kvs

FAULTY = {
    "default": None,
    "names": {"type": "stub"},
    "states": {"type": "postgres"},
    "files": {"type": "filesystem", "subdir": True},
    "cache": {"type": "redis_ephemeral", "expiry": 0},
    "notes": {"path": ".lo_kvs"},
    "memos": {"type": "redis", "path": "old"},
}
TYPOS = {"redis_hots": "localhost", "redis_port": "none"}
VALUES = {"redis_port": 70000, "redis_timeout": 0}
URL = {"redis_url": "http://host"}
CONTRADICTIONS = {
    "redis_url": "rediss://redis.school.example",
    "redis_host": "redis.school.example",
    "redis_certificate": "client.crt",
    "redis_sentinel_service": "states",
}

for settings in (
    {},
    {"kvs": {"cache": {"type": "stub"}}},
    {"kvs": FAULTY},
    {"kvs": {"default": {"type": "redis"}}, "redis_connection": TYPOS},
    {"kvs": {"default": {"type": "redis"}}, "redis_connection": VALUES},
    {"kvs": {"default": {"type": "redis"}}, "redis_connection": URL},
    {"kvs": {"default": {"type": "redis"}}, "redis_connection": CONTRADICTIONS},
    {
        "kvs": {"default": {"type": "redis", "connection": "sates"}},
        "redis_connections": {"states": {}},
    },
):
    try:
        lo_kvs.configure(settings)
    except lo_kvs.StartupCheck as error:
        print(error)
