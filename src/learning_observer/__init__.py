"""Names for programs written for the Learning Observer. The code is in the package `lo_kvs`.

    learning_observer.kvs                        lo_kvs.kvs
    learning_observer.redis_connection           lo_kvs.redis_connection
    learning_observer.settings, .prestartup      lo_kvs.settings, lo_kvs.prestartup
    learning_observer.stream_analytics.helpers   lo_kvs.stream_analytics.helpers
    learning_observer.stream_analytics.fields    lo_kvs.stream_analytics.fields

Raises `ImportError` where `lo_kvs` is not installed, or the Learning Observer itself is.
"""

from importlib import metadata, util


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _refuse_the_real_one() -> None:
    found = _version("learning-observer")
    if found is None:
        return
    # Installed from source, lo-kvs has these files too.
    ours = "lo-kvs" if _version("learning-observer-kvs") is None else "learning-observer-kvs"
    raise ImportError(
        f"The Learning Observer {found} is installed here too, and {ours} has files of the same "
        f"names. Run `pip uninstall {ours}`, reinstall the Learning Observer (`pip install "
        "--force-reinstall --no-deps ...`), then `pip install lo-kvs` and import lo_kvs instead. "
        "To use lo_kvs inside the Learning Observer, see docs/differences.md"
    )


def _require_lo_kvs() -> None:
    found = util.find_spec("lo_kvs")
    if found is None or found.origin is None:  # None: an empty folder of that name
        raise ImportError(
            "learning-observer-kvs has only names for lo_kvs, which is not installed: run "
            "`pip install lo-kvs`",
            name="lo_kvs",
        )


_refuse_the_real_one()
_require_lo_kvs()
