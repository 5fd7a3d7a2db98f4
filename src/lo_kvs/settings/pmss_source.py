"""Reads PMSS rule files as a mapping of settings.

The `pmss` package (the extra of that name) parses the file; the result is the mapping that a
YAML file would have given:

    kvs default { type: redis_ephemeral; expiry: 30; }      /* kvs: {default: {...}} */
    redis_connection { redis_host: localhost; }

- The type names of a selector are the path of its rules, in the given order, except that
  `kvs`, `redis_connection` and `redis_connections` come first: for PMSS, `default kvs` is
  `kvs default`.
- A rule without type names is a top-level setting. In PMSS it applies everywhere, so one
  whose name starts with `redis_` belongs to `redis_connection`.
- If two rules give the same setting, the more specific selector wins, then the earlier rule;
  a repeated selector replaces its earlier settings.
- Rules under a class or an attribute apply to some requests only. At startup, requests are not
  known, so these rules are skipped, and a warning in the log names them.
- A value is parsed like a word in YAML: `30` is a number, `true` a boolean, an empty value is
  `None`. Names such as `redis_password` keep their text. Quotes around a value are removed.
- `//` starts a comment, except in a URL inside a value (`redis_url: redis://host/0;`).
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import yaml

from lo_kvs.prestartup import StartupCheck
from lo_kvs.settings.pmss_parser import QUOTED, Refused, Rule, parse_pmss
from lo_kvs.settings.scalars import Place, parse_word

logger = logging.getLogger(__name__)

_FIRST = ("kvs", "redis_connection", "redis_connections")
_BLOCKS = ("redis_connection", "redis_connections")
_ALWAYS = {"TypeSelector", "UniversalSelector"}


class _Setting(NamedTuple):
    """What a rule sets `path` to."""

    path: tuple[str, ...]
    value: object
    selector: str
    specificity: int
    offset: int


def read_pmss(text: str, source: str) -> dict[str, Any]:
    """The settings that the rules in `text` define at startup.

    `source` names the file in messages. Raises `StartupCheck` if the text is not valid PMSS,
    or if the `pmss` package is missing.
    """
    try:
        rules = parse_pmss(text)
        always = [rule for rule in rules if _kinds(rule) <= _ALWAYS]
        settings = _nested([_setting(rule) for rule in always])
    except Refused as refused:
        fault = f"{source}, line {_line(text, refused.offset)}: {refused.reason}"
    except RecursionError:
        fault = f"{source}: is nested too deeply"
    else:
        if left_out := [rule for rule in rules if not _kinds(rule) <= _ALWAYS]:
            logger.warning(
                "%s: left out, because what holds for some requests only cannot be known at "
                "startup: %s",
                source,
                ", ".join(
                    f"`{_text(rule)} {{ {rule.name} }}` (line {_line(text, rule.offset)})"
                    for rule in left_out
                ),
            )
        return settings
    raise StartupCheck(fault)


def _kinds(rule: Rule) -> set[str]:
    return {type(selector).__name__ for selector in rule.selectors}


def _text(rule: Rule) -> str:
    """The selectors as the file has them; pmss would add the file's name to a class."""
    return " ".join(
        f".{selector.class_name}" if hasattr(selector, "class_name") else str(selector)
        for selector in rule.selectors
    )


def _setting(rule: Rule) -> _Setting:
    path = (*_path(rule.selectors, rule.name), rule.name)
    return _Setting(
        path=path,
        value=_value(path, rule.value, rule.offset),
        selector=_text(rule),
        specificity=sum(selector.css_specificity() for selector in rule.selectors),
        offset=rule.offset,
    )


def _path(selectors: tuple[Any, ...], key: str) -> tuple[str, ...]:
    names = [s.element_type for s in selectors if type(s).__name__ == "TypeSelector"]
    if not names and key.startswith("redis_") and key not in _BLOCKS:
        return ("redis_connection",)
    for first in _FIRST:
        if first in names:
            return (first, *(name for name in names if name != first))
    return tuple(names)


def _value(path: Place, text: str, offset: int) -> object:
    """The value that `text` stands for: a word, or what is between quotes."""
    name = path[-1]
    try:
        return yaml.safe_load(text) if QUOTED.fullmatch(text) else parse_word(path, text)
    except yaml.YAMLError:
        reason = f"the quoted value of `{name}` is not valid: does it contain a backslash?"
    except ValueError:  # 2026-02-31
        reason = (
            f"the value of `{name}` looks like a date but is not valid, or is a number of too "
            "many digits: put quotes around it"
        )
    raise Refused(offset, reason)


def _nested(settings: list[_Setting]) -> dict[str, Any]:
    """The settings as mappings within mappings, one value a path."""
    given: dict[tuple[str, ...], dict[str, _Setting]] = {}
    for setting in settings:
        given.setdefault(setting.path, {})[setting.selector] = setting
    nested: dict[str, Any] = {}
    for path, candidates in given.items():
        setting = max(candidates.values(), key=lambda candidate: candidate.specificity)
        block: Any = nested
        for name in path[:-1]:
            block = block.setdefault(name, {}) if isinstance(block, dict) else None
        if not isinstance(block, dict) or isinstance(block.get(path[-1]), dict):
            raise Refused(
                setting.offset,
                f"`{' '.join(path)}` clashes with a rule for a part of it or for more: "
                "a name has a value, or rules within it, but not both",
            )
        block[path[-1]] = setting.value
    return nested


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1
