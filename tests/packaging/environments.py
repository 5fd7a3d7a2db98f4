"""Fresh environments to install into, and a stand-in for the Learning Observer."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
#: What no environment may have from ours: the package under test.
OURS = ("lo_kvs", "learning_observer", "__editable__", "__pycache__", "_lo_kvs")


def environment(**changes: str) -> dict[str, str]:
    """Our own environment without what points into the checkout or asks for what is compiled."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name
        not in {
            "PYTHONPATH",
            "LOKVS_PURE",
            "LOKVS_PURE_CODEC",
            "LOKVS_REQUIRE_EXTENSION",
            "CI",
        }
    }
    return {**kept, "CFLAGS": "-O0", **changes}


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment() if env is None else env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,  # what is defective may hang
    )
    if done.returncode:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout}")
    return done.stdout


class Installed:
    """A fresh environment to install into. It has our own environment's dependencies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        self.elsewhere = folder / "elsewhere"
        venv.create(folder, symlinks=True, with_pip=False)
        self.elsewhere.mkdir()
        self.library = Path(
            self.python_says("import sysconfig; print(sysconfig.get_path('purelib'))")
        )
        # Links to all but the package under test, whose files and versions would be found there.
        dependencies = folder / "dependencies"
        dependencies.mkdir()
        for path in Path(sysconfig.get_path("purelib")).iterdir():
            if not path.name.startswith(OURS) and path.suffix != ".pth":
                (dependencies / path.name).symlink_to(path)
        (self.library / "dependencies.pth").write_text(f"{dependencies}\n")

    def python_says(self, program: str, *arguments: str | Path) -> str:
        command = [self.python, "-c", textwrap.dedent(program), *arguments]
        return run(*command, cwd=self.elsewhere).strip()

    def python_fails(self, program: str) -> str:
        """What a program that must end with an error says at last."""
        done = subprocess.run(
            [self.python, "-c", program],
            cwd=self.elsewhere,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 1, done.stdout
        return done.stderr.strip().splitlines()[-1]

    def pip(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> None:
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", self.python]
        run(*pip, *arguments, cwd=self.elsewhere, env=env)

    def install(self, *what: str | Path, env: Mapping[str, str] | None = None) -> None:
        offline = ["--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed"]
        self.pip("install", "--quiet", *offline, *what, env=env)

    def uninstall(self, name: str) -> None:
        self.pip("uninstall", "--quiet", "--yes", name)

    def files_of(self, *names: str) -> dict[str, bytes]:
        """All files below the folders of the environment's library that begin with a name."""
        return {
            str(path.relative_to(self.library)): path.read_bytes()
            for path in sorted(self.library.rglob("*"))
            if path.is_file() and path.relative_to(self.library).parts[0].startswith(names)
        }


def the_only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


#: Files of the Learning Observer, those whose names are ours too among them.
STAND_IN_FILES = {
    **{
        name: f"NAME = {name!r}\n"
        for name in (
            "main.py",
            "module_loader.py",
            "kvs.py",
            "redis_connection.py",
            "stream_analytics/__init__.py",
            "stream_analytics/fields.py",
            "stream_analytics/helpers.py",
        )
    },
    "__init__.py": "",
    "settings.py": "settings = None\n",
    "prestartup.py": textwrap.dedent(
        """
        class StartupCheck(Exception):
            pass

        def register_startup_check(check):
            pass
        """
    ),
    "creds.yaml.example": "kvs:\n",
}


def stand_in(folder: Path) -> Path:
    """A wheel of a distribution `learning-observer` that has the real one's file names."""
    about = "learning_observer-1.2.3.dist-info"
    files = {f"learning_observer/{name}": text for name, text in STAND_IN_FILES.items()}
    files[f"{about}/METADATA"] = "Metadata-Version: 2.1\nName: learning-observer\nVersion: 1.2.3\n"
    files[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = ""
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        record += f"{name},sha256={digest.decode().rstrip('=')},{len(text.encode())}\n"
    files[f"{about}/RECORD"] = f"{record}{about}/RECORD,,\n"
    path = folder / "learning_observer-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def report_of(installed: Installed, program: str) -> dict[str, object]:
    """What a program prints as JSON, in its last line: warnings come before."""
    report: dict[str, object] = json.loads(installed.python_says(program).splitlines()[-1])
    return report
