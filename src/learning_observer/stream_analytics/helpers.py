"""Another name of `lo_kvs.stream_analytics.helpers`: the decorators, and keys."""

from typing import TYPE_CHECKING

from lo_kvs import facade

if TYPE_CHECKING:
    from lo_kvs.stream_analytics.helpers import *

facade.forward(__name__, "lo_kvs.stream_analytics.helpers")
