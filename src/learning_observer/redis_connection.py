"""Another name of `lo_kvs.redis_connection`: the default connection to Redis."""

from typing import TYPE_CHECKING

from lo_kvs import facade

if TYPE_CHECKING:
    from lo_kvs.redis_connection import *

facade.forward(__name__, "lo_kvs.redis_connection")
