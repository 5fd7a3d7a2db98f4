"""Parses YAML settings: safe, strict about names, and careful with passwords.

- Only plain data is built, as by `yaml.safe_load`.
- Duplicate names in a mapping are rejected; YAML would silently keep the last one.
- The value of a text option is text, even if it looks like a number: see
  `lo_kvs.settings.scalars`.
- No message quotes a value: it may be a password.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from lo_kvs.prestartup import StartupCheck
from lo_kvs.settings.scalars import MERGE, construct, keep_text, kept_as_text
from lo_kvs.settings.shown import name_shown

#: Names in one mapping, including merged ones (`<<`): a chain of merges could grow without limit.
_NAMES_MAX = 10_000


class _Refused(Exception):
    """The document is invalid: the reason and the line, without values."""


class _Loader(yaml.SafeLoader):
    """The safe loader, which also rejects duplicate names and keeps passwords as text."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        # Here and not in construct_mapping, where the names from `<<` are already merged.
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, object], int] = {}
        for index, (key, value) in enumerate(node.value):
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                raise _Refused(
                    f"line {line}: duplicate name {_quoted(key.value)}, first on line "
                    f"{lines[name]}: keep one of the two"
                )
            lines[name] = line
            node.value[index] = (key, kept_as_text(value, (key.value,)))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        merges = any(key.tag == MERGE for key, _ in node.value)
        super().flatten_mapping(node)
        if not merges:
            return
        # The last of a name wins. Merges of merges would double what they have in common.
        last = {_identity(key): (key, value) for key, value in node.value}
        node.value = list(last.values())
        if len(last) > _NAMES_MAX:
            raise _Refused(f"line {node.start_mark.line + 1}: a mapping with too many names")

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) < len(node.value):  # 1 and 0x1
            raise _Refused(
                f"line {node.start_mark.line + 1}: two names of a mapping are equal: keep one"
            )
        return mapping

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep=deep)
        try:
            return construct(self, node)
        except ValueError:
            raise _Refused(
                f"line {node.start_mark.line + 1}: a value looks like a number or a date but is "
                "not valid, or has too many digits: put quotes around it"
            ) from None


def _identity(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _quoted(name: str) -> str:
    return f"`{name}`" if re.fullmatch(r"\w+", name, re.ASCII) else name_shown(name)


def parse_yaml(text: str, source: str) -> Any:
    """The content of the YAML `text`; `None` if it is empty.

    `source` names the file in messages. Raises `StartupCheck` if the text is not valid YAML, if
    a mapping has a duplicate name, or if a value looks like a number or a date but is not valid.
    """
    reason: str
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            keep_text(root)
            return None if root is None else loader.construct_document(root)
        finally:
            loader.dispose()
    except _Refused as refused:
        reason = str(refused)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reason = f"line {line} is not valid YAML: it contains a control character"
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1} is" if mark else "this is"
        # What PyYAML quotes is taken from the file, and may be a password.
        problem = re.sub(r"[\"'`].*[\"'`]", "...", error.problem or "", flags=re.DOTALL)
        reason = (
            f"{place} not YAML ({problem}): look for a missing colon, a tab, a wrong "
            "indentation, or a value that needs quotes around it, there or just before"
        )
    except RecursionError:
        reason = "is nested too deeply"
    raise StartupCheck(f"{source}: {reason}")  # out here, so that no traceback shows the file
