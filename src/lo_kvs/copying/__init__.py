"""A copy of one store's keys into another, byte for byte, and a comparison afterwards.

    job = await copy(source, target)
    job.tally, job.checked, job.equal

Keys are copied as the stores name them, so a copy from a single server to a cluster, or to
files, lies there as that store lays it out. Values are never decoded and encoded: what is no
JSON comes out as it was, too. Expiries are not copied: what is put gets the target's own.

A key is put only where the target has none, or, with `overwrite`, only over the bytes that
were just seen there. So a copy may be broken off anywhere and begun again, and may run while
others use either store. What is held in memory is a group of keys with their values, and
eight bytes for each key, besides what `scan` of the stores holds.
"""

from lo_kvs.copying.comparison import Checked, Comparison, Difference
from lo_kvs.copying.job import Copy, Tally, copy

__all__ = ["Checked", "Comparison", "Copy", "Difference", "Tally", "copy"]
