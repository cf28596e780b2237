"""The SPAWNX_* variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from spawnx import settings

CHOICES = [setting for setting in settings.ALL if isinstance(setting, settings.Choice)]


@pytest.mark.parametrize("setting", CHOICES, ids=lambda setting: setting.name)
def test_unset_or_empty_variable_is_the_default(
    setting: settings.Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first choice is the default."""
    monkeypatch.delenv(setting.name, raising=False)
    unset = setting.read()
    monkeypatch.setenv(setting.name, " ")
    empty = setting.read()

    assert (setting.choices[0], setting.choices[0]) == (unset, empty)


@pytest.mark.parametrize("setting", CHOICES, ids=lambda setting: setting.name)
def test_unknown_value_is_refused_with_the_choices(
    setting: settings.Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the variable and what it may be."""
    monkeypatch.setenv(setting.name, "nonsense")
    with pytest.raises(ValueError, match=setting.name) as raised:
        setting.read()

    assert all(choice in str(raised.value) for choice in setting.choices)


def test_case_and_spaces_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a shell script is likely to get wrong is understood."""
    monkeypatch.setenv("SPAWNX_LAUNCHER", " Stdlib ")

    assert settings.LAUNCHER.read() == "stdlib"


@pytest.mark.parametrize(
    ("text", "seconds"), [("", 10.0), (" ", 10.0), ("0", 0.0), (" 2.5 ", 2.5), ("Off", None), ("1e3", 1000.0)]
)
def test_time_is_seconds_or_off(text: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unset or empty it is the default; a fraction will do."""
    monkeypatch.setenv("SPAWNX_ORPHAN_GRACE", text)

    assert settings.ORPHAN_GRACE.read() == seconds


@pytest.mark.parametrize("text", ["nonsense", "-1", "nan", "inf", "3000000", "10s"])
def test_what_is_no_time_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable and what it takes."""
    monkeypatch.setenv("SPAWNX_ORPHAN_GRACE", text)

    with pytest.raises(
        ValueError, match=r"SPAWNX_ORPHAN_GRACE='.*' is no time: set it to seconds .* or to off"
    ):
        settings.ORPHAN_GRACE.read()


@pytest.mark.parametrize("setting", settings.ALL, ids=lambda setting: setting.name)
def test_every_variable_is_documented(setting: settings.Choice | settings.Seconds) -> None:
    """The page of settings names each variable, and each choice or default."""
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{setting.name}` |"))
    if isinstance(setting, settings.Seconds):
        choices = ["off"] if setting.may_be_off else []
        choices += [] if setting.default is None else [f"{setting.default:g}"]
    else:
        choices = list(setting.choices)

    assert all(f"`{choice}`" in row for choice in choices)


def test_wait_of_a_teardown_can_not_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have no end."""
    monkeypatch.setenv("SPAWNX_KILL_AFTER", "off")

    with pytest.raises(
        ValueError, match=r"SPAWNX_KILL_AFTER='off' is no time: set it to seconds \(0 or more\), or unset"
    ):
        settings.check()


def test_time_of_a_run_is_off_where_it_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the reference, which has none."""
    monkeypatch.delenv("SPAWNX_TIMEOUT", raising=False)

    assert settings.TIMEOUT.read() is None
