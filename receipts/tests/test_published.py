"""Every statement's JSON Schema can be printed, and says no less than the parser demands."""

from __future__ import annotations

import json

import pytest

from receipts.published import PUBLISHED
from schemas.canonical import Wire
from schemas.commands import main


@pytest.mark.parametrize("model", PUBLISHED, ids=lambda model: model.__name__)
def test_a_schema_is_printed_and_closed(model: type[Wire], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([model.__name__], more=PUBLISHED) == 0
    stated = json.loads(capsys.readouterr().out)
    assert stated["additionalProperties"] is False
    assert (
        set(stated["required"])
        == {info.alias or name for name, info in model.model_fields.items() if info.is_required()}
        if "required" in stated
        else not any(info.is_required() for info in model.model_fields.values())
    )


def test_the_list_names_them_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([], more=PUBLISHED) == 0
    said = capsys.readouterr().out
    for model in PUBLISHED:
        assert model.__name__ in said
