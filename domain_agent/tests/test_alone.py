"""Two agents of one domain never serve from the same books."""

from __future__ import annotations

from pathlib import Path

import pytest

from domain_agent.alone import LOCK, alone
from schemas.errors import ConfigurationError


def test_a_second_agent_is_told_where_the_first_is(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with alone(state), pytest.raises(ConfigurationError, match=f"{state}: another agent"), alone(state):
        pass


def test_the_next_agent_may_follow(tmp_path: Path) -> None:
    for _ in range(2):
        with alone(tmp_path):
            assert (tmp_path / LOCK).exists()


def test_a_folder_that_cannot_be_had_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file/state"), alone(tmp_path / "file" / "state"):
        pass
