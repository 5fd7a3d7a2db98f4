import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lo_kvs import settings
from lo_kvs.prestartup import StartupCheck
from lo_kvs.settings import is_loaded, load_settings

STORES: dict[str, dict[str, Any]] = {
    "default": {"type": "filesystem", "path": ".lo_kvs", "subdirs": True},
    "redis_cache": {"type": "redis_ephemeral", "expiry": 30},
}
PAIRS = [[name, options] for name, options in STORES.items()]

MAPPING_YAML = """
kvs:
  default: {type: filesystem, path: .lo_kvs, subdirs: true}
  redis_cache: {type: redis_ephemeral, expiry: 30}
"""
PAIRS_YAML = """
kvs:
  - [default, {type: filesystem, path: .lo_kvs, subdirs: true}]
  - - redis_cache
    - {type: redis_ephemeral, expiry: 30}
"""
NAMED_YAML = """
kvs:
  - default: {type: filesystem, path: .lo_kvs, subdirs: true}
  - redis_cache: {type: redis_ephemeral, expiry: 30}
"""
PMSS = """
/* The stores of this site. */
kvs default { type: filesystem; path: .lo_kvs; subdirs: true; }
kvs {
    redis_cache {
        type: redis_ephemeral;  // seconds:
        expiry: 30;
    }
}
"""

Write = Callable[[str, str], Path]


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "settings", {})
    monkeypatch.setattr(settings, "sources", [])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def entries(kvs: Any) -> dict[str, Any]:
    """The stores of a `kvs` block: a mapping, or a list of pairs or of one-entry mappings."""
    if isinstance(kvs, dict):
        return kvs
    return dict(next(iter(item.items())) if isinstance(item, dict) else item for item in kvs)


def fault_of(source: Any, overlays: Any = ()) -> str:
    with pytest.raises(StartupCheck) as raised:
        load_settings(source, overlays)
    assert raised.value.__context__ is None, "what is behind the fault shows the file's text"
    return str(raised.value)


class TestForms:
    @pytest.mark.parametrize(
        "kvs",
        [STORES, PAIRS, [tuple(pair) for pair in PAIRS], [{name: x} for name, x in PAIRS], None, 3],
    )
    def test_dict_comes_through_as_it_is(self, kvs: Any) -> None:
        load_settings({"kvs": kvs})
        assert settings.settings == {"kvs": kvs}

    @pytest.mark.parametrize("text", [MAPPING_YAML, PAIRS_YAML, NAMED_YAML])
    @pytest.mark.parametrize("path_type", [str, Path])
    def test_creds_yaml(self, write: Write, text: str, path_type: type) -> None:
        loaded = load_settings(path_type(write("creds.yaml", text)))
        assert entries(loaded["kvs"]) == STORES

    @pytest.mark.parametrize("name", ["site.yaml", "site.yml"])
    @pytest.mark.parametrize("text", [MAPPING_YAML, PAIRS_YAML, NAMED_YAML])
    def test_yaml_overlay(self, write: Write, name: str, text: str) -> None:
        loaded = load_settings({}, [write(name, text)])
        assert entries(loaded["kvs"]) == STORES

    def test_pmss_overlay(self, write: Write) -> None:
        assert load_settings({}, [write("site.pmss", PMSS)])["kvs"] == STORES

    def test_pmss_alone(self, write: Write) -> None:
        assert load_settings(write("site.pmss", PMSS))["kvs"] == STORES

    def test_overlay_without_a_list_around_it(self, write: Write) -> None:
        overlay = write("site.yaml", MAPPING_YAML)
        assert load_settings({}, overlay)["kvs"] == STORES
        assert load_settings({}, str(overlay))["kvs"] == STORES
        assert load_settings({}, {"kvs": STORES})["kvs"] == STORES

    def test_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "creds.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + MAPPING_YAML.encode())
        assert load_settings(path)["kvs"] == STORES

    def test_merge_keys_are_not_duplicates(self, write: Write) -> None:
        path = write(
            "creds.yaml",
            "deep: {er: {base: &base {<<: {type: stub, a: 1}, type: redis}}}\n"
            "kvs: {default: {<<: *base, type: filesystem, <<: {b: 2}}}\n",
        )
        assert load_settings(path)["kvs"] == {"default": {"type": "filesystem", "a": 1, "b": 2}}


class TestLoading:
    def test_before_any_load(self) -> None:
        assert settings.settings == {}
        assert not is_loaded()

    def test_empty_mapping_is_loaded(self) -> None:
        load_settings({})
        assert is_loaded()

    def test_settings_put_in_by_others_count_as_loaded(self) -> None:
        settings.settings["kvs"] = STORES
        assert is_loaded()

    def test_second_load_replaces_the_first_in_the_same_dict(self) -> None:
        first = load_settings({"kvs": STORES, "only": "first"})
        second = load_settings({"kvs": PAIRS})
        assert second is first is settings.settings
        assert first == {"kvs": PAIRS}

    def test_failed_load_leaves_the_settings_alone(self, tmp_path: Path) -> None:
        load_settings({"kvs": STORES})
        fault_of(tmp_path / "missing.yaml")
        assert settings.settings == {"kvs": STORES}
        assert settings.sources == ["the settings"]

    def test_settings_can_be_loaded_from_themselves(self) -> None:
        load_settings({"kvs": STORES})
        load_settings(settings.settings, {"kvs": {"default": {"path": "x"}}})
        assert settings.settings["kvs"]["default"]["path"] == "x"
        assert settings.settings["kvs"]["redis_cache"] == STORES["redis_cache"]

    def test_callers_dict_is_neither_kept_nor_changed(self) -> None:
        given: dict[str, Any] = {"kvs": {"default": {"type": "stub"}}, "list": [{"a": 1}]}
        load_settings(given, {"kvs": {"default": {"type": "redis"}}})
        assert given == {"kvs": {"default": {"type": "stub"}}, "list": [{"a": 1}]}
        given["list"][0]["a"] = 2
        assert settings.settings["list"] == [{"a": 1}]

    def test_sources_are_named_from_the_weakest_on(self, write: Write) -> None:
        creds, site, group = (write(f"{name}.yaml", "a: 1") for name in ("creds", "site", "class"))
        load_settings(creds, [site, group])
        assert settings.sources == [str(creds), str(group), str(site)]


class TestCascade:
    def test_first_overlay_wins_and_all_win_over_creds(self, write: Write) -> None:
        creds = write("creds.yaml", "{a: creds, b: creds, c: creds, deep: {a: creds, c: creds}}")
        site = write("site.pmss", "* { a: site; } deep { a: site; b: site; }")
        group = write("class.yaml", "{a: class, b: class, deep: {a: class, b: class, d: class}}")
        assert load_settings(creds, [site, group]) == {
            "a": "site",
            "b": "class",
            "c": "creds",
            "deep": {"a": "site", "b": "site", "c": "creds", "d": "class"},
        }

    FORMS: tuple[Callable[[dict[str, Any]], Any], ...] = (
        dict,
        lambda stores: [list(item) for item in stores.items()],
        lambda stores: list(stores.items()),
        lambda stores: [{name: options} for name, options in stores.items()],
    )

    @pytest.mark.parametrize("over", FORMS)
    @pytest.mark.parametrize("under", FORMS)
    def test_kvs_merges_by_name_in_any_two_forms(self, over: Any, under: Any) -> None:
        overlay = {"redis_cache": {"expiry": 60}, "scratch": {"type": "stub"}}
        loaded = load_settings({"kvs": under(STORES)}, {"kvs": over(overlay)})
        assert loaded["kvs"] == {
            "default": STORES["default"],
            "redis_cache": {"type": "redis_ephemeral", "expiry": 60},
            "scratch": {"type": "stub"},
        }
        assert list(loaded["kvs"]) == ["default", "redis_cache", "scratch"]

    def test_kvs_of_pmss_over_pairs(self, write: Write) -> None:
        creds = write("creds.yaml", PAIRS_YAML)
        site = write("site.pmss", "kvs redis_cache { expiry: 60; }")
        kvs = load_settings(creds, site)["kvs"]
        assert kvs["redis_cache"] == {"type": "redis_ephemeral", "expiry": 60}
        assert kvs["default"] == STORES["default"]

    def test_lists_are_replaced_as_a_whole(self) -> None:
        assert load_settings({"hosts": ["a", "b"]}, {"hosts": ["c"]}) == {"hosts": ["c"]}

    @pytest.mark.parametrize("below", [{"default": {"type": "stub"}}, [["default", {}]]])
    def test_null_over_a_block_changes_nothing(self, below: Any) -> None:
        assert load_settings({"kvs": below}, {"kvs": None}) == {"kvs": below}

    def test_null_over_a_value_replaces_it(self) -> None:
        over = {"redis_connection": {"redis_password": None}}
        loaded = load_settings({"redis_connection": {"redis_password": "x"}}, over)
        assert loaded == {"redis_connection": {"redis_password": None}}

    def test_null_removes_an_option_of_a_store(self, write: Write) -> None:
        site = write("site.pmss", "kvs default { type: redis; path: ; subdirs: null; }")
        assert load_settings({"kvs": STORES}, site)["kvs"]["default"] == {"type": "redis"}

    def test_empty_overlays_change_nothing(self, write: Write) -> None:
        overlays = [write("a.yaml", "# nothing\n"), write("a.pmss", "// nothing\n/* at all */")]
        assert load_settings({"kvs": STORES}, overlays) == {"kvs": STORES}

    def test_kvs_that_cannot_be_merged(self) -> None:
        for below in (
            ["default", "stub"],
            [*PAIRS, "stub"],
            [{"default": None, "type": "stub"}],
            [[1, {}]],
            [],
            3,
            "stub",
        ):
            text = fault_of({"kvs": below}, {"kvs": STORES})
            assert "the settings: `kvs` is neither a mapping" in text
        text = fault_of({"kvs": STORES}, {"kvs": [["a", {}], ["a", {}]]})
        assert "overlay 1: `kvs` has more than one entry `a`" in text


class TestValues:
    WORDS = (
        ("30", 30),
        ("-1", -1),
        ("1.5", 1.5),
        ("true", True),
        ("no", False),
        ("null", None),
        ("", None),
        ("0x10", 16),
        ("localhost", "localhost"),
        (".lo_kvs", ".lo_kvs"),
        ("None", "None"),
        ("/data/lo kvs", "/data/lo kvs"),
        ("'30'", "30"),
        ('"a\\tb"', "a\tb"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    )

    @pytest.mark.parametrize(("word", "value"), WORDS)
    def test_word_is_the_same_in_yaml_and_pmss(self, write: Write, word: str, value: Any) -> None:
        pmss = load_settings(write("a.pmss", f"kvs default {{ x: {word}; y: 1; }}"))["kvs"]
        yaml = load_settings(write("a.yaml", f"kvs:\n  default:\n    x: {word}\n    y: 1"))["kvs"]
        for found in (pmss["default"], yaml["default"]):
            assert found == {"x": value, "y": 1}
            assert type(found["x"]) is type(value)

    PASSWORDS = (
        ("0123", "0123"),
        ("1e5", "1e5"),
        ("yes", "yes"),
        ("2026-01-01", "2026-01-01"),
        ("'0123'", "0123"),
        ("'a;b'", "a;b"),
        ("a{b}#c", "a{b}#c"),
        ("null", None),
        ("", None),
    )

    @pytest.mark.parametrize("name", ["redis_password", "password", "redis_sentinel_password"])
    @pytest.mark.parametrize(("word", "value"), PASSWORDS)
    def test_password_is_text(self, write: Write, name: str, word: str, value: Any) -> None:
        expected = {"redis_connection": {name: value}}
        assert load_settings(write("a.yaml", f"redis_connection:\n  {name}: {word}")) == expected
        if ";" not in word:
            text = f"redis_connection {{ {name}: {word}; }}"
            assert load_settings(write("a.pmss", text)) == expected

    def test_name_similar_to_a_password_is_parsed_as_usual(self, write: Write) -> None:
        text = "{require_password: false, token_expiry: 30}"
        assert load_settings(write("a.yaml", text)) == {
            "require_password": False,
            "token_expiry": 30,
        }


class TestPmss:
    def load(self, write: Write, text: str) -> dict[str, Any]:
        return load_settings({}, write("site.pmss", text))

    def test_nothing_is_printed(
        self, write: Write, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        self.load(write, "redis_connection { redis_password: hunter2; }")
        fault_of({}, write("wrong.pmss", "redis_connection { redis_password: hunter2; $ }"))
        assert capfd.readouterr() == ("", "")
        assert caplog.text == ""

    @pytest.mark.parametrize(
        "text",
        [
            "kvs default { type: redis; }",
            "kvs { default { type: redis; } }",
            "default { kvs { type: redis; } }",
            "* { kvs { default { type: redis; } } }",
            "kvs default { type: stub; } kvs default { type: redis; }",
            "default kvs { type: redis; } kvs default { type: stub; }",
        ],
    )
    def test_selectors_are_the_path(self, write: Write, text: str) -> None:
        assert self.load(write, text) == {"kvs": {"default": {"type": "redis"}}}

    def test_more_specific_rule_wins(self, write: Write) -> None:
        text = "* { redis_host: everywhere; redis_port: 1; } redis_connection { redis_host: here; }"
        expected = {"redis_connection": {"redis_host": "here", "redis_port": 1}}
        assert self.load(write, text) == expected

    def test_setting_outside_any_selector(self, write: Write) -> None:
        assert self.load(write, "hostname: here;") == {"hostname": "here"}

    def test_urls_and_comments(self, write: Write) -> None:
        text = """// see https://example.org; for more
        redis_connection { // a: b
            redis_url: rediss://user@host:6380/0; // not redis://other
            redis_host:// the usual one
                localhost; /* http://example.org/; {
            */ redis_port: 6379;
        }"""
        assert self.load(write, text) == {
            "redis_connection": {
                "redis_url": "rediss://user@host:6380/0",
                "redis_host": "localhost",
                "redis_port": 6379,
            }
        }

    def test_conditional_rules_are_left_out_and_named(
        self, write: Write, caplog: pytest.LogCaptureFixture
    ) -> None:
        text = """kvs default { type: redis; }
        .dev kvs default { type: stub; }
        [school="north"] { redis_connection { redis_password: hunter2; } }
        [admin] { kvs { default { expiry: 1; } } }
        """
        with caplog.at_level(logging.WARNING):
            loaded = self.load(write, text)
        assert loaded == {"kvs": {"default": {"type": "redis"}}}
        (record,) = caplog.records
        message = record.getMessage()
        assert "site.pmss" in message
        assert "`.dev kvs default { type }` (line 2)" in message
        assert "`[school=north] redis_connection { redis_password }` (line 3)" in message
        assert "`[admin] kvs default { expiry }` (line 4)" in message
        assert "hunter2" not in message

    def test_second_file_is_read_like_the_first(self, write: Write) -> None:
        # The package's lexer keeps its state from one text to the next.
        fault_of({}, write("wrong.pmss", "a { b: c"))
        assert self.load(write, PMSS)["kvs"] == STORES

    @pytest.mark.parametrize("missing", ["pmss", "pkg_resources"])
    def test_missing_package(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, missing: str
    ) -> None:
        for name in [name for name in sys.modules if re.fullmatch(r"pmss(\..+)?", name)]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(StartupCheck, match=re.escape("pip install 'lo-kvs[pmss]'")):
            self.load(write, PMSS)

    def test_yaml_overlays_do_without_the_package(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "pmss", None)
        assert load_settings({}, write("site.yaml", MAPPING_YAML))["kvs"] == STORES

    FAULTS = (
        ("a { b: hunter2 }", 1, "`b` does not end where it should"),
        ("a {\n b: hunter2\n c: d;\n}", 2, "`b` does not end where it should"),
        ("a {\n b: hunter2\n}\nkvs { c: d; }", 2, "`b` does not end where it should"),
        ("a {\n b: hunter2//hunter2;\n c: d;\n}", 2, "`//` in the value began a comment"),
        ("a { b: 'hunter2;hunter2'; }", 1, "`b` does not end where it should"),
        ("a {\n b: c;\n hunter2-hunter2: d; }", 3, "a character that PMSS does not allow"),
        ("#hunter2 { a: b; }", 1, "a character that PMSS does not allow"),
        ("a, b { c: d; }", 1, "a character that PMSS does not allow"),
        ("a:hover { c: hunter2; }", 1, "`a` does not end where it should"),
        ("a {\n b:;\n}", 2, "not a rule of the form"),
        ("a {\n b: c;\n", 3, "the file ends within a rule"),
        ("a { b: c; } }", 1, "not a rule of the form"),
        ("a { b: c;\n hunter2; }", 2, "a value ends at the first `;`"),
        ("a { b: c; }\na b { d: e; }", 2, "`a b d` clashes"),
        ("a b { d: e; }\na { b: c; }", 2, "`a b` clashes"),
        ("a { b: 2026-02-31; }", 1, "looks like a date but is not valid"),
        ('a { b: "hunter2\\qhunter2"; }', 1, "backslash"),
    )

    @pytest.mark.parametrize(("text", "line", "reason"), FAULTS)
    def test_fault_names_file_line_and_reason(
        self, write: Write, text: str, line: int, reason: str
    ) -> None:
        path = write("site.pmss", text)
        fault = fault_of({}, path)
        assert fault.startswith(f"{path}, line {line}: ")
        assert reason in fault
        assert "hunter2" not in fault.removeprefix(str(path))


class TestFaults:
    YAML = (
        ("kvs:\n  a: 1\n  b: 2\n  a: 3\n", "line 4: duplicate name `a`, first on line 2"),
        ("kvs: {a: 1, a: 2}", "line 1: duplicate name `a`, first on line 1"),
        ("kvs:\n  - x: 1\n    'x': 2", "line 3: duplicate name `x`, first on line 2"),
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3, column 2 is not YAML"),
        ("a: 1\n\tb: 2\n", "line 2, column 1 is not YAML"),
        ("redis_password: *hunter2", "line 1, column 17 is not YAML"),
        ("a: 1\nredis_password: !hunter2 x", "line 2, column 17 is not YAML"),
        ('redis_password: "hunter2\n', "is not YAML"),
        ("redis_password: @hunter2", "line 1, column 17 is not YAML"),
        (
            "a: 1\nredis_password: hunter2\x00",
            "line 2 is not valid YAML: it contains a control character",
        ),
        ("a: !!python/object/apply:os.getcwd []", "line 1, column 4 is not YAML"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1 is not YAML"),
        ("? [a]\n: b\n", "is not YAML"),
        ("a: 1\nb: 2026-02-31", "line 2: a value looks like a number or a date but is not valid"),
        ("[" * 5000, "nested too deeply"),
        ("a: &a [*a]", "nested too deeply, or within itself"),
        ("- kvs\n- hunter2\n", "expected a mapping of names to settings at the top"),
        ("hunter2", "found a str"),
        ("", "found nothing"),
        ("# kvs:\n", "found nothing"),
    )

    @pytest.mark.parametrize(("text", "reason"), YAML)
    def test_creds_yaml(self, write: Write, text: str, reason: str) -> None:
        path = write("creds.yaml", text)
        fault = fault_of(path)
        assert fault.startswith(f"{path}: ")
        assert reason in fault
        assert "hunter2" not in fault.removeprefix(str(path))

    def test_missing_file(self, tmp_path: Path) -> None:
        assert "no such file" in fault_of(tmp_path / "creds.yaml")
        assert "no such file" in fault_of({}, tmp_path / "site.pmss")

    def test_unreadable_file(self, tmp_path: Path) -> None:
        assert "cannot be read: Is a directory" in fault_of(tmp_path)
        assert "cannot be read" in fault_of("creds\0.yaml")

    @pytest.mark.parametrize("name", ["creds.yaml", "creds.pmss"])
    def test_other_encoding(self, tmp_path: Path, name: str) -> None:
        path = tmp_path / name
        path.write_bytes("a: 1\nb: Jürgen\n".encode("latin-1"))
        assert "line 2 is not valid UTF-8" in fault_of(path)

    def test_overlay_of_another_kind(self, write: Write) -> None:
        path = write("site.json", "{}")
        assert f"{path}: an overlay must be a .yaml, .yml or .pmss file" in fault_of({}, path)

    @pytest.mark.parametrize("source", [None, 3, ["creds.yaml"], b"creds.yaml"])
    def test_source_of_another_type(self, source: Any) -> None:
        assert "expected a path or a mapping" in fault_of(source)

    def test_errors_of_all_files_are_reported_together(self, write: Write, tmp_path: Path) -> None:
        text = fault_of(
            write("creds.yaml", "[]"), [tmp_path / "missing.yaml", write("site.ini", "")]
        )
        assert [line.split(": ")[0] for line in text.splitlines()] == [
            str(tmp_path / name) for name in ("creds.yaml", "missing.yaml", "site.ini")
        ]
