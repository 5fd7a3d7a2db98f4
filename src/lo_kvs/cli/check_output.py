"""Prints the report of `lo-kvs check` as text, with colours on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import typer

from lo_kvs.cli.common import DONE
from lo_kvs.plain_text import harmless

COLOURS: Final = {"ok": "green", "unknown": "cyan", "warning": "yellow", "error": "red"}
#: Where the second column starts.
COLUMN: Final = 24


def show_report(report: Mapping[str, Any]) -> None:
    """Print a report of `lo-kvs check`."""
    report = _harmless(report)
    _line("python", report["python"])
    for package, version in report["versions"].items():
        _line(package, version or "not installed")
    _line("JSON codec", report["codec"])
    _line("engine", report["engine"])
    if report["pure_because"] is not None:
        _line("", report["pure_because"])
        _line("", "install a C compiler and the package again: 2-5 times faster")
    _line("settings", report["settings"] or "no creds.yaml here: the built-in default")
    if report["faults"] is not None:
        _line("faults", report["faults"])
        return
    for store in report["stores"]:
        answer = store["error"]
        if store["answers"]:
            answer = f"answers, {store['round_trip_ms']:.2f} ms a round trip"
        typer.echo(f"store {store['name']} ({store['type']}, {store['where']}): {answer}")
    for server in report["servers"]:
        stores = ", ".join(server["stores"])
        typer.echo(f"Redis at {server['place']}, database {server['db']}, for {stores}:")
        for finding in server["findings"]:
            _finding(finding, server["stores"])
    if report["exit_code"] == DONE:
        typer.echo("no problems found")


def _line(name: str, what: str) -> None:
    typer.echo(f"{name:<{COLUMN}}{what}".rstrip())


def _finding(finding: Mapping[str, Any], stores: list[str]) -> None:
    severity = finding["severity"]
    mark = typer.style(f"{severity:<8}", fg=COLOURS[severity])
    some = "" if finding["stores"] == stores else f" ({', '.join(finding['stores'])})"
    typer.echo(f"  {mark} {finding['check']:<13}{finding['what']}{some}")
    if finding["fix"]:
        typer.echo(f"{'':<{COLUMN}}-> {finding['fix']}")


def _harmless(value: Any) -> Any:
    """The report with terminal control characters escaped: some texts come from servers."""
    if isinstance(value, str):
        return harmless(value, keep="\n")
    if isinstance(value, Mapping):
        return {name: _harmless(each) for name, each in value.items()}
    return [_harmless(each) for each in value] if isinstance(value, list) else value
