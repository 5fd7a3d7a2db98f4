"""A Redis cluster: requests to the nodes of its slots, redirections, a writer per slot.

Internal. `client` is what the stores use. It may import `server`, `protocol` and `batching`.
"""
