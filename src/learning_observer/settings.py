"""Another name of `lo_kvs.settings`: `load_settings`, and `settings` as loaded."""

from typing import TYPE_CHECKING

from lo_kvs import facade

if TYPE_CHECKING:
    from lo_kvs.settings import *

facade.forward(__name__, "lo_kvs.settings")
