"""Keys, and the names that they have in Redis.

On a single server the name of a key is the key. On a cluster a change can put several keys
only where they lie in one slot, and a slot is chosen by what stands in the first braces of a
name, the hash tag. So the keys of reducers get braces around what they have in common:

    Internal,mod.fn,STUDENT:S    Internal,mod.fn,{STUDENT:S}    the usual reducer
    Internal,mod.fn              Internal,{mod.fn}              a reducer without a scope
    Internal,a{b,STUDENT:S       Internal,{a{b,STUDENT:S}       braces before the scope
    any other key                the same

Internal and External state of one entity then lie in one slot, with those of all other
reducers of that entity. Each key has a name of its own, and a name says its key. A name that
no key has (another program's, or data copied as it was on a single server) has none.
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
    """The key that has this name on a cluster, or `None` where no key has it."""
    kind, comma, rest = name.partition(",")
    if not comma or kind not in KINDS:
        return name
    before, brace, tag = rest.partition("{")
    if not brace or not tag.endswith("}"):
        return None
    key = f"{kind},{before}{tag[:-1]}"
    # Only one of the forms is the name of this key: `Internal,{a,b}` is that of none.
    return key if cluster_name(key) == name else None


def single_pattern(prefix: str, key_prefix: str) -> str:
    """The pattern of SCAN for the keys that begin with `key_prefix`, on a single server."""
    return _literal(prefix + key_prefix) + "*"


def cluster_pattern(prefix: str, key_prefix: str) -> str:
    """The same for a cluster; some other names match it as well, so look at each key again."""
    kind, comma, rest = key_prefix.partition(",")
    if not comma or kind not in KINDS:
        return single_pattern(prefix, key_prefix)
    reducer, comma, selector = rest.partition(",")
    # A brace may stand in both places, and the text before it is the same with and without.
    pattern = f"{_literal(prefix + kind)},*{_literal(reducer)}"
    return f"{pattern},*{_literal(selector)}*" if comma else f"{pattern}*"


def _is_tag(selector: str) -> bool:
    # `{}` is no hash tag, so neither is what begins with its second half.
    return bool(selector) and not selector.startswith("}")


def _literal(text: str) -> str:
    return "".join(f"\\{c}" if c in "*?[]\\^-" else c for c in text)
