"""Names for programs written against the Learning Observer. The package itself is `lo_kvs`.

    learning_observer.kvs                        lo_kvs.kvs
    learning_observer.redis_connection           lo_kvs.redis_connection
    learning_observer.settings, .prestartup      lo_kvs.settings, lo_kvs.prestartup
    learning_observer.stream_analytics.helpers   lo_kvs.stream_analytics.helpers
    learning_observer.stream_analytics.fields    lo_kvs.stream_analytics.fields

Raises `ImportError` where the Learning Observer itself is installed in the same environment.
"""

from importlib import metadata


def _refuse_the_real_one() -> None:
    for name in ("learning-observer", "learning_observer"):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        raise ImportError(
            f"The Learning Observer {found} is installed here, and learning-observer-kvs has a "
            "package of the same name for programs that run without it. Run `pip uninstall "
            "learning-observer-kvs`, reinstall the Learning Observer, and import lo_kvs"
        )


_refuse_the_real_one()
