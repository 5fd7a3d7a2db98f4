"""TLS: certificates of a CA, of clients, host names, and `rediss://`."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

import pytest
from tests.kvs.children import run_in_child
from tests.redis_connection.conftest import Certificates
from tests.redis_connection.places import PASSWORD, USER, one_more, tls_settings, use

from lo_kvs.kvs import OutcomeUnknown, PersistentRedisKVS, Refused, Unavailable
from lo_kvs.redis_connection import RedisSettings, factory
from lo_kvs.testing.servers.server import RedisServer
from lo_kvs.testing.servers.tls import TLSProxy


def test_store_behind_tls_password_and_acl(tls_port: int, certificates: Certificates) -> None:
    asyncio.run(use(tls_settings(tls_port, ca=certificates.ca)))


def test_client_certificate(mutual_port: int, certificates: Certificates) -> None:
    asyncio.run(
        use(
            tls_settings(
                mutual_port,
                ca=certificates.ca,
                certificate=certificates.client,
                key=certificates.client_key,
            )
        )
    )


@pytest.mark.parametrize("files", [True, False])
def test_rediss_url(tls_port: int, certificates: Certificates, files: bool) -> None:
    url = f"rediss://{USER}:{PASSWORD}@localhost:{tls_port}/0"
    where = (
        RedisSettings(url=url, ca=certificates.ca)
        if files
        else RedisSettings(url=f"{url}?ssl_ca_certs={certificates.ca}")
    )
    asyncio.run(use(where))
    at = where.at("127.0.0.1", tls_port)
    assert (at.url, at.tls, at.ca, at.username) == (None, True, certificates.ca, USER)
    asyncio.run(use(at))


def test_blocking_client(mutual_port: int, certificates: Certificates) -> None:
    where = tls_settings(
        mutual_port,
        ca=certificates.ca,
        certificate=certificates.client,
        key=certificates.client_key,
    )
    with factory.blocking_client(where, 5.0) as client:
        assert client.ping()


def refusal_of(where: RedisSettings) -> str:
    async def read() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.get("key")

    with pytest.raises(Unavailable) as unavailable:
        asyncio.run(read())
    return str(unavailable.value)


def test_untrusted_certificate(tls_port: int, certificates: Certificates) -> None:
    where = tls_settings(tls_port, ca=certificates.other_ca, retry_for=0.5)
    assert "certificate verify failed" in refusal_of(where)
    assert "certificate verify failed" in refusal_of(tls_settings(tls_port, retry_for=0.5))


def test_client_without_a_certificate(mutual_port: int, certificates: Certificates) -> None:
    # TLS 1.3 tells the client no sooner than with the first reply.
    where = tls_settings(mutual_port, ca=certificates.ca, retry_for=0.5)

    async def write() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            await store.set("key", 1)

    refusal_of(where)
    with pytest.raises((Unavailable, OutcomeUnknown)):
        asyncio.run(write())


def test_name_of_the_host(
    redis_server: RedisServer, redis_url: str, certificates: Certificates
) -> None:
    with TLSProxy(
        redis_server.port, certificate=certificates.elsewhere, key=certificates.elsewhere_key
    ) as proxy:
        options = {"host": "localhost", "port": proxy.port, "tls": True, "ca": certificates.ca}
        where = RedisSettings.from_mapping(
            {f"redis_{name}": value for name, value in options.items()} | {"redis_retry_for": 0.5}
        )
        assert "Hostname mismatch" in refusal_of(where)
        lax = {f"redis_{name}": value for name, value in options.items()}
        asyncio.run(use(RedisSettings.from_mapping(lax | {"redis_check_hostname": False})))


def test_plain_client_at_a_tls_port_and_the_other_way_round(
    tls_port: int, redis_server: RedisServer, certificates: Certificates
) -> None:
    refusal_of(tls_settings(tls_port, tls=False, retry_for=0.5))
    refusal_of(tls_settings(redis_server.port, ca=certificates.ca, retry_for=0.5))


@pytest.mark.parametrize("user", [USER, None])
def test_wrong_password(tls_port: int, certificates: Certificates, user: str | None) -> None:
    where = tls_settings(tls_port, ca=certificates.ca, username=user, password="wrong-hunter3")

    async def main() -> None:
        async with PersistentRedisKVS(connection=where) as store:
            with pytest.raises(Refused) as refused:
                await store.get("key")
            assert "hunter" not in f"{refused.value} {refused.value!r} {store!r}"

    asyncio.run(main())


# -- event loops, threads, forks -------------------------------------------------------------


@pytest.fixture(params=["plain", "tls"])
def anywhere(
    request: pytest.FixtureRequest, redis_url: str, tls_port: int, certificates: Certificates
) -> RedisSettings:
    if request.param == "plain":
        return RedisSettings(url=redis_url)
    return tls_settings(tls_port, ca=certificates.ca)


def fresh(where: RedisSettings) -> PersistentRedisKVS:
    store = PersistentRedisKVS(prefix="loops:", connection=where)
    asyncio.run(store.clear())
    return store


async def count(store: PersistentRedisKVS, times: int) -> None:
    for _ in range(times):
        await store.update("counter", one_more)


def test_loops_one_after_another(anywhere: RedisSettings) -> None:
    store = fresh(anywhere)
    for _ in range(6):
        asyncio.run(count(store, 5))
    assert asyncio.run(store["counter"]) == 30
    gc.collect()  # a socket left open is reported now, and fails the test


def test_loops_at_once_in_threads(anywhere: RedisSettings) -> None:
    store = fresh(anywhere)
    failures: list[BaseException] = []

    def run() -> None:
        try:
            for _ in range(2):  # the second one may get the memory of the first one's loop
                asyncio.run(count(store, 20))
        except BaseException as error:  # noqa: BLE001 - the test raises it
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert asyncio.run(store["counter"]) == 160
    gc.collect()


def test_loop_closed_while_a_call_waits(anywhere: RedisSettings) -> None:
    store = fresh(anywhere)

    async def leave() -> None:
        tasks = [asyncio.create_task(count(store, 1_000)) for _ in range(3)]
        await asyncio.wait(tasks, timeout=0.2)

    asyncio.run(leave())
    asyncio.run(count(store, 1))
    asyncio.run(store.aclose())
    gc.collect()


def test_loop_that_is_closed_by_hand(anywhere: RedisSettings) -> None:
    store = fresh(anywhere)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(count(store, 3))
    loop.run_until_complete(store.aclose())
    loop.close()
    gc.collect()


def test_both_sides_of_a_fork(anywhere: RedisSettings) -> None:
    store = fresh(anywhere)
    asyncio.run(count(store, 5))
    pids = [run_in_child(count(store, 10)) for _ in range(2)]
    asyncio.run(count(store, 10))
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]
    assert asyncio.run(store["counter"]) == 35


def test_fork_within_a_running_loop(anywhere: RedisSettings) -> None:
    """The child begins a loop of its own, while the parent's connections are open."""
    store = fresh(anywhere)

    async def main() -> None:
        await count(store, 3)
        pid = os.fork()
        if pid == 0:
            asyncio._set_running_loop(None)
            code = 1
            try:
                asyncio.run(count(store, 3))
                code = 0
            finally:
                os._exit(code)
        await count(store, 3)
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        assert status == 0
        assert await store["counter"] == 9

    asyncio.run(main())
    gc.collect()
