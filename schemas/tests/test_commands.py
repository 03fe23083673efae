from __future__ import annotations

import json

import pytest

from schemas.commands import SCHEMAS, listing, main, schema
from schemas.errors import ConfigurationError


def test_the_names_of_all_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCHEMAS)
    assert all(len(line.split()) > 2 for line in listing().splitlines())


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_closed_and_named(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name]) == 0
    stated = json.loads(capsys.readouterr().out)
    assert (stated["title"], stated["type"], stated["additionalProperties"]) == (name, "object", False)
    assert stated["$schema"].endswith("2020-12/schema")


def test_an_unknown_name_and_a_wrong_option() -> None:
    with pytest.raises(ConfigurationError, match="Charters"):
        schema("Charters")
    assert main(["--no-such-option"]) == 2
    assert main(["--help"]) == 0
