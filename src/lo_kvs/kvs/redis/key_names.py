"""The names of keys in Redis.

On a single server the name of a key is the key. On a cluster, a change can put several keys only
if they are in one slot, and the text in the first braces of a name, the hash tag, determines the
slot. So the keys of reducers get braces around their common part:

    Internal,mod.fn,STUDENT:S    Internal,mod.fn,{STUDENT:S}    the usual reducer
    Internal,mod.fn              Internal,{mod.fn}              a reducer without a scope
    Internal,a{b,STUDENT:S       Internal,{a{b,STUDENT:S}       braces before the scope
    any other key                the same

The Internal and External states of one entity are then in one slot, together with those of all
other reducers of that entity. Each key has a unique name, and each name belongs to at most one
key: names of other programs, or copied unchanged from a single server, belong to none.
"""

from __future__ import annotations

from typing import Final

KINDS: Final = ("Internal", "External")


def cluster_name(key: str) -> str:
    """The name of `key` on a cluster, without the store's prefix."""
    kind, comma, rest = key.partition(",")
    if not comma or kind not in KINDS:
        return key
    reducer, comma, selector = rest.partition(",")
    if not comma or "{" in reducer or not _is_tag(selector):
        return f"{kind},{{{rest}}}"
    return f"{kind},{reducer},{{{selector}}}"


def key_of_cluster_name(name: str) -> str | None:
    """The key with this name on a cluster, or `None` if no key has it."""
    kind, comma, rest = name.partition(",")
    if not comma or kind not in KINDS:
        return name
    before, brace, tag = rest.partition("{")
    if not brace or not tag.endswith("}"):
        return None
    key = f"{kind},{before}{tag[:-1]}"
    # Each key has one form only: `Internal,{a,b}` belongs to no key.
    return key if cluster_name(key) == name else None


def single_pattern(prefix: str, key_prefix: str) -> str:
    """The SCAN pattern for keys that start with `key_prefix`, on a single server."""
    return _literal(prefix + key_prefix) + "*"


def cluster_pattern(prefix: str, key_prefix: str) -> str:
    """The same for a cluster. Other names can match as well, so check each key again."""
    kind, comma, rest = key_prefix.partition(",")
    if not comma or kind not in KINDS:
        return single_pattern(prefix, key_prefix)
    reducer, comma, selector = rest.partition(",")
    # The brace can be in either place; the text before it is the same.
    pattern = f"{_literal(prefix + kind)},*{_literal(reducer)}"
    return f"{pattern},*{_literal(selector)}*" if comma else f"{pattern}*"


def _is_tag(selector: str) -> bool:
    # `{}` is not a hash tag, so a selector that starts with `}` cannot be one.
    return bool(selector) and not selector.startswith("}")


def _literal(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in text)
