"""Another name of `lo_kvs.prestartup`: startup checks and initializers."""

from typing import TYPE_CHECKING

from lo_kvs import facade

if TYPE_CHECKING:
    from lo_kvs.prestartup import *

facade.forward(__name__, "lo_kvs.prestartup")
