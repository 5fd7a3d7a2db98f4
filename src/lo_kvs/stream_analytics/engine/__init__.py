"""The engine: runs reducers on cached states and commits them in groups. Compiled.

Internal; public are `helpers`, `pipeline` and `query` one folder up. Each module is compiled from
its `.py` with the types of its `.pxd`, and runs as it is where there is no compiler. It may
import `kvs`, and from `stream_analytics` what is below it: `fields`, `keys`, `limits`, `errors`.
"""
