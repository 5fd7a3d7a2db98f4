"""Stream analytics: reducers, which fold events into state, and the engine that runs them.

Public are the decorators and names of `helpers`, `fields` and `keys`, `pipeline.Pipeline` and
`query.states`; all are offered by `lo_kvs`. `engine` is internal. It may import `lo_kvs.kvs`.
"""
