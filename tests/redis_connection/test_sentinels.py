"""Sentinel: the primary is found, found again after a failover, and dead Sentinels are passed."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from tests.busy import late
from tests.kvs.redis_places import closed_port
from tests.redis_connection.conftest import Certificates
from tests.redis_connection.places import use

from lo_kvs.kvs import PersistentRedisKVS, Refused, Unavailable
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.redis_connection.sentinels import Sentinels
from lo_kvs.testing.servers.sentinel import SentinelServer, SentinelSetup
from lo_kvs.testing.servers.server import HOST, RedisServer
from lo_kvs.testing.servers.tls import TLSProxy

PASSWORD, SENTINEL_PASSWORD = "hunter2", "hunter3"


@pytest.fixture(scope="module")
def setup() -> Iterator[SentinelSetup]:
    with SentinelSetup(replicas=1, password=PASSWORD, sentinel_password=SENTINEL_PASSWORD) as setup:
        yield setup


def settings_of(setup: SentinelSetup, **options: object) -> RedisSettings:
    block = {
        "redis_sentinels": list(setup.addresses),
        "redis_sentinel_service": setup.service,
        "redis_sentinel_password": SENTINEL_PASSWORD,
        "redis_password": PASSWORD,
    }
    return RedisSettings.from_mapping(block | {f"redis_{k}": v for k, v in options.items()})


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_store_finds_the_primary(setup: SentinelSetup) -> None:
    where = settings_of(setup)
    asyncio.run(use(where))
    with factory.blocking_client(where, 2.0) as client:
        assert client.role()[0] == b"master"


def test_dead_sentinels_are_passed(setup: SentinelSetup, black_hole: int) -> None:
    dead = [f"127.0.0.1:{closed_port()}", f"127.0.0.1:{black_hole}"]
    where = settings_of(setup, sentinels=[*dead, *setup.addresses])
    started = time.monotonic()
    asyncio.run(use(where))
    # The black hole costs a second once; a store has several connections, opened side by side.
    assert time.monotonic() - started < 5
    with factory.blocking_client(where, 0.5) as client:
        assert client.ping()


def test_deadline_is_kept_if_no_sentinel_answers(black_hole: int) -> None:
    where = RedisSettings(
        sentinels=(f"127.0.0.1:{black_hole}",) * 3,
        sentinel_service="states",
        timeout=1.0,
        retry_for=1.5,
    )

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            for use in (lambda: store.set("key", 1), lambda: store.get("key")):
                started = time.monotonic()
                # Unavailable, not OutcomeUnknown: nothing can have been sent.
                with pytest.raises(Unavailable, match=r"states of the Sentinels .*gave up"):
                    await use()
                assert time.monotonic() - started < 2.0 + late(1.0)

    asyncio.run(main())


def test_unknown_service(setup: SentinelSetup) -> None:
    where = settings_of(setup, sentinel_service="stats", retry_for=0.5)

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(Unavailable, match=r"127.0.0.1:\d+ does not know stats; "):
                await store.set("key", 1)

    asyncio.run(main())


@pytest.mark.parametrize(
    "options", [{"sentinel_password": "wrong"}, {"sentinel_password": None}, {"password": "wrong"}]
)
def test_wrong_password_fails_at_once(setup: SentinelSetup, options: dict[str, object]) -> None:
    async def main() -> None:
        async with PersistentRedisKVS(connection=settings_of(setup, **options)) as store:
            started = time.monotonic()
            with pytest.raises(Refused, match=r"password|Authentication"):
                await store.set("key", 1)
            assert time.monotonic() - started < 5

    asyncio.run(main())


def test_server_that_is_not_a_sentinel(setup: SentinelSetup) -> None:
    where = settings_of(
        setup,
        sentinels=[f"127.0.0.1:{setup.servers[0].port}"],
        sentinel_password=PASSWORD,
    )

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(Refused, match=r"(?i)unknown (sub)?command"):
                await store.get("key")

    asyncio.run(main())


def test_nothing_of_the_sentinels_stays_open(setup: SentinelSetup) -> None:
    asyncio.run(use(settings_of(setup)))
    sentinel = setup.sentinels[0]
    with redis.Redis.from_url(sentinel.url) as client:
        ours = client.client_id()
        deadline = time.monotonic() + 10
        while True:
            # Sentinels call each other by name; ours have none.
            nameless = [c for c in client.client_list() if not c["name"] and int(c["id"]) != ours]
            if not nameless:
                break
            assert time.monotonic() < deadline, nameless
            time.sleep(0.05)


def test_question_that_is_cancelled_leaves_nothing_open(setup: SentinelSetup) -> None:
    """At every step: a disconnect cancels it, a deadline does, and a loop that ends."""

    async def main(steps: int) -> bool:
        options = {"password": SENTINEL_PASSWORD, "retry": Retry(NoBackoff(), 0)}
        asked = Sentinels([(HOST, setup.sentinels[0].port)], setup.service, options, timeout=1.0)
        question = asyncio.create_task(asked.primary())
        for _ in range(steps):
            await asyncio.sleep(0)
        if not question.cancel():
            return True
        await asyncio.wait([question])
        assert question.cancelled()  # nothing that it awaits swallows it
        return False

    steps = 0
    while not asyncio.run(main(steps)):
        steps += 1
        gc.collect()  # a connection that was left open is a warning, and so a failure
    assert steps > 10


def test_last_answering_sentinel_is_asked_first(setup: SentinelSetup) -> None:
    async def main() -> None:
        good = setup.sentinels[0].port
        options = {"password": SENTINEL_PASSWORD, "retry": Retry(NoBackoff(), 0)}
        asked = Sentinels(
            [("127.0.0.1", closed_port()), ("127.0.0.1", good)],
            setup.service,
            options,
            timeout=1.0,
        )
        found = await asked.primary()
        assert repr(asked).index(str(good)) < repr(asked).rindex("127.0.0.1")
        assert await asked.primary() == found
        assert not await asked.have_moved(*found)
        assert await asked.have_moved("127.0.0.1", found[1] + 1)

    asyncio.run(main())


def test_isolated_sentinel_does_not_move_connections(setup: SentinelSetup) -> None:
    """It still tells of an old primary; a connection that is open stays where it is."""
    setup.fail_over()  # so that the others know better
    with (
        RedisServer() as old,
        SentinelServer(
            old.port,
            quorum=1,
            down_after_ms=60_000,
            failover_timeout_ms=60_000,
            password=SENTINEL_PASSWORD,
        ) as cut_off,
    ):
        options = {"password": SENTINEL_PASSWORD, "retry": Retry(NoBackoff(), 0)}

        async def main() -> None:
            addresses = [(HOST, setup.sentinels[0].port), (HOST, cut_off.port)]
            asked = Sentinels(addresses, setup.service, options, timeout=1.0)
            found = await asked.primary()
            assert found == (HOST, setup.primary().port)
            asked._addresses.reverse()  # the one that answered is gone
            asked._asked_at = 0.0
            assert not await asked.have_moved(*found)
            # Who has no connection takes what there is.
            assert await asked.primary() == (HOST, old.port)

        asyncio.run(main())


def test_sentinel_and_servers_behind_tls(certificates: Certificates) -> None:
    """Both speak TLS: the Sentinel tells of the primary where its proxy is."""
    with SentinelSetup(replicas=0, sentinels=1) as setup, ExitStack() as stack:
        primary, sentinel = setup.primary(), setup.sentinels[0]
        files = {"certificate": certificates.server, "key": certificates.server_key}
        proxies = [
            stack.enter_context(TLSProxy(port, **files, client_ca=certificates.ca))
            for port in (primary.port, sentinel.port)
        ]
        # It shall watch the server by its own address, and name the proxy's to clients: a
        # second service does that, which this Sentinel holds to be up for the time of the test.
        with redis.Redis.from_url(sentinel.url) as client:
            client.execute_command("SENTINEL", "MONITOR", "tls", "127.0.0.1", proxies[0].port, 1)
            client.execute_command("SENTINEL", "SET", "tls", "down-after-milliseconds", 600_000)
        where = RedisSettings.from_mapping(
            {
                "redis_sentinels": f"localhost:{proxies[1].port}",
                "redis_sentinel_service": "tls",
                "redis_tls": True,
                "redis_ca": certificates.ca,
                "redis_certificate": certificates.client,
                "redis_key": certificates.client_key,
            }
        )
        asyncio.run(use(where))
        with factory.blocking_client(where, 5.0) as blocking:
            assert blocking.ping()
        assert proxies[0].connections > 0
        assert proxies[1].connections > 0
