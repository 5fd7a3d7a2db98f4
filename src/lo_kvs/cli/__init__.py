"""The command line `lo-kvs`, with one module for each group of commands.

The modules import stores and reducers only when a command runs, so that `lo-kvs --help` is fast.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from lo_kvs.cli import bench, check, copy, demo, ingest, stores


class Command(TyperCommand):
    """A command that rejects an option that is given twice: only one of them would apply."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _, _, order = self.make_parser(ctx).parse_args(args=list(args))
        for param in order:
            takes_one = (
                param.nargs == 1 and not param.multiple and param.param_type_name == "option"
            )
            if takes_one and not getattr(param, "is_flag", False) and order.count(param) > 1:
                ctx.fail(f"{param.opts[0]} is given twice; give it once")
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="lo-kvs",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # the same plain text on every terminal
    pretty_exceptions_enable=False,  # they show the values of variables, including passwords
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(version("lo-kvs"))
        raise typer.Exit


def _help(command: Callable[..., object]) -> str:
    """A command's docstring as its help: paragraphs with indented lines keep their line breaks."""
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    return "\n\n".join(f"\b\n{part}" if "\n  " in f"\n{part}" else part for part in paragraphs)


def lo_kvs(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Run event logs through reducers into a key-value store.

      Try it, without a server:  lo-kvs demo
      Your own logs:             lo-kvs ingest *.study.log.gz --reducers lo_kvs.reducers
      The results:               lo-kvs keys External

    Which store: --config names a settings file with a `kvs` section. Without it, creds.yaml
    in the current directory is used. If there is none, a filesystem store .lo_kvs in the
    current directory is used.

      Exit codes of all commands:
        0    success
        1    finished with problems, which the command reports
        2    wrong usage or settings, or a file that cannot be read or written; nothing was done
        3    stopped by --strict
        4    the store cannot be reached, or rejected the request
        130  interrupted with Ctrl-C
    """


app.callback(help=_help(lo_kvs))(lo_kvs)
for command in (
    demo.demo,
    ingest.ingest,
    ingest.simulate,
    stores.keys,
    stores.get,
    stores.dump,
    stores.load,
    copy.copy,
    check.check,
    bench.bench,
):
    app.command(cls=Command, help=_help(command))(command)
