"""Another name of `lo_kvs.stream_analytics.fields`: the parts of a key."""

from typing import TYPE_CHECKING

from lo_kvs import facade

if TYPE_CHECKING:
    from lo_kvs.stream_analytics.fields import *

facade.forward(__name__, "lo_kvs.stream_analytics.fields")
