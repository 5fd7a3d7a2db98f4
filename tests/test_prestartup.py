import pytest

from lo_kvs import prestartup
from lo_kvs.prestartup import (
    StartupCheck,
    register_init_function,
    register_startup_check,
    startup_checks_and_init,
)


@pytest.fixture(autouse=True)
def no_other_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other modules registered on import stays out of these tests."""
    monkeypatch.setattr(prestartup, "_checks", [])
    monkeypatch.setattr(prestartup, "_initializers", [])


def test_all_checks_run_before_any_initializer() -> None:
    ran: list[str] = []
    register_init_function(lambda: ran.append("first initializer"))
    register_startup_check(lambda: ran.append("first check"))
    register_init_function(lambda: ran.append("second initializer"))
    register_startup_check(lambda: ran.append("second check"))

    startup_checks_and_init()

    assert ran == ["first check", "second check", "first initializer", "second initializer"]


def test_faults_of_all_checks_are_raised_together_and_nothing_is_initialized() -> None:
    ran: list[str] = []

    @register_startup_check
    def no_store() -> None:
        raise StartupCheck("no store is configured")

    @register_startup_check
    def fine() -> None:
        ran.append("fine")

    @register_startup_check
    def no_redis() -> None:
        raise StartupCheck("no Redis answers")

    register_init_function(lambda: ran.append("initializer"))

    with pytest.raises(StartupCheck) as raised:
        startup_checks_and_init()

    assert str(raised.value) == "no store is configured\nno Redis answers"
    assert ran == ["fine"]


def test_one_fault_is_raised_as_it_is() -> None:
    class Particular(StartupCheck):
        pass

    fault = Particular("no store is configured")

    @register_startup_check
    def no_store() -> None:
        raise fault

    with pytest.raises(StartupCheck) as raised:
        startup_checks_and_init()

    assert raised.value is fault


def test_what_is_registered_twice_runs_once() -> None:
    ran: list[str] = []

    def check() -> None:
        ran.append("check")

    def initializer() -> None:
        ran.append("initializer")

    for _ in range(2):
        register_startup_check(check)
        register_init_function(initializer)
    startup_checks_and_init()

    assert ran == ["check", "initializer"]


def test_registering_gives_the_function_back() -> None:
    def check() -> str:
        return "of use to others too"

    assert register_startup_check(check) is check
    assert register_init_function(check) is check


def test_an_initializer_may_register_another_one() -> None:
    ran: list[str] = []
    register_init_function(lambda: register_init_function(lambda: ran.append("late")))

    startup_checks_and_init()

    assert ran == ["late"]


def test_a_defect_of_a_check_ends_the_start_and_keeps_the_faults_found_before() -> None:
    @register_startup_check
    def no_store() -> None:
        raise StartupCheck("no store is configured")

    @register_startup_check
    def defect() -> None:
        raise KeyError("type")

    with pytest.raises(KeyError) as raised:
        startup_checks_and_init()

    assert any("no store is configured" in note for note in raised.value.__notes__)


def test_nothing_registered_is_nothing_to_do() -> None:
    startup_checks_and_init()
