"""Copies one store's keys into another, byte for byte, and compares both afterwards.

    job = await copy(source, target)
    job.tally, job.checked, job.equal

Keys keep their names in the store's interface, so each store uses its own layout, such as a
cluster's. Values are not decoded and encoded: invalid JSON is copied unchanged as well. Expiry
times are not copied: copied keys get the target's own.

A key is written only if the target does not have it, or, with `overwrite`, only over the bytes
that were just read there. So a copy can be interrupted anywhere and repeated, and can run while
other programs use either store. The memory needed is one group of keys with their values, and
eight bytes per key, besides that of the stores' `scan`.
"""

from lo_kvs.copying.comparison import Checked, Comparison, Difference
from lo_kvs.copying.job import Copy, Tally, copy

__all__ = ["Checked", "Comparison", "Copy", "Difference", "Tally", "copy"]
