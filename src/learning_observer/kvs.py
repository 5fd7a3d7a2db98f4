"""Another name of `lo_kvs.kvs`: the stores, the router `KVS`, their errors."""

from typing import TYPE_CHECKING

from lo_kvs import facade

if TYPE_CHECKING:
    from lo_kvs.kvs import *

facade.forward(__name__, "lo_kvs.kvs")
