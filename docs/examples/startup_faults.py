"""What startup says about a configuration with faults in it: all of them, at once."""

from lo_kvs import kvs  # noqa: F401 - registers the check
from lo_kvs.prestartup import StartupCheck, startup_checks_and_init
from lo_kvs.settings import load_settings

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
    load_settings(settings)
    try:
        startup_checks_and_init()
    except StartupCheck as fault:
        print(fault)
