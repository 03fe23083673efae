"""`comity broker`: keys that fit the configuration, and errors before anything starts."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from broker.commands import main
from schemas.errors import ConfigurationError


def test_a_new_key_and_the_digest_for_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key"]) == 0
    printed = capsys.readouterr().out
    match = re.fullmatch(r'key: (cmt_[\w-]{43})\nkeys = \["([0-9a-f]{64})"\]\n', printed)
    assert match is not None
    assert hashlib.sha256(match[1].encode()).hexdigest() == match[2]


def test_a_configuration_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml"):
        main(["serve", "--config", str(tmp_path / "none.toml")])


@pytest.mark.parametrize("arguments", [[], ["serve"], ["dance"]])
def test_wrong_usage_is_exit_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: comity broker" in capsys.readouterr().err
