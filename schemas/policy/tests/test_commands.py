"""The command line: words, exit codes, and a decision that is made again."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas.descriptors.tests.test_profile import JAN_2026, JAN_2027, profile
from schemas.errors import ComityError, ConfigurationError, Refused, Undecided
from schemas.policy.commands import main
from schemas.policy.layers import ELSEWHERE, LayerVerdict
from schemas.policy.packs import default_layers, load_file
from schemas.policy.replay import DecisionRecord, record, replay
from schemas.policy.tests.cases import OPEN, asking, clinic, hyper
from schemas.policy.tests.generated import random_request, random_subject

AT = "2026-06-01T00:00:00Z"


def write(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.fixture
def profiles(tmp_path: Path) -> str:
    vouched = {"level": 2}
    evidence = dict.fromkeys(("jurisdictions", "exposed_to", "ownership"), vouched)
    common = {"evidence": evidence, "tee": [{"platform": "simulated", "assurance": 1}]}
    common |= {"retention_classes": [{"name": "none", "seconds": 0}]}
    places = {"clinic.de": "DE", "cloud.fr": "FR", "hyper.us": "US"}
    listed = [
        profile().as_json() | common | {"domain": domain, "jurisdictions": [place]}
        for domain, place in places.items()
    ]
    return write(tmp_path, "profiles.json", json.dumps(listed))


def test_check_accepts_and_refuses_with_the_codes_of_the_contract(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = write(tmp_path, "good.cedar", OPEN)
    bad = write(tmp_path, "bad.cedar", OPEN + OPEN)
    broken = write(tmp_path, "broken.cedar", "permit (")
    assert main(["check", good]) == 0
    assert "accepted, 1 rules, sha256:" in capsys.readouterr().out
    assert main(["check", good, bad, "--json"]) == 1
    files = json.loads(capsys.readouterr().out)["files"]
    assert [entry["verdict"] for entry in files] == ["accepted", "refused"]
    assert files[1]["code"] == "policy.id_duplicate"
    assert main(["check", broken]) == 2
    assert main(["check", str(tmp_path / "absent.cedar")]) == 2


def test_a_name_that_leaves_no_room_for_canaries_has_none(tmp_path: Path) -> None:
    """A file system takes 255 bytes: a set's name may fit where its canaries' would not."""
    long = write(tmp_path, f"{'x' * 245}.cedar", OPEN)
    with pytest.raises(ConfigurationError, match="no canary of these files"):
        main(["check", long, "--override", "a"])


def test_files_are_read_bounded_and_called_what_a_record_can_call_them(
    tmp_path: Path, profiles: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device has no size and no end; a set that no record can name could not be replayed."""
    assert main(["check", "/dev/zero"]) == 2
    assert main(["check", write(tmp_path, "our rules.cedar", OPEN)]) == 2
    assert "visible ASCII" in capsys.readouterr().out
    for arguments in (
        ["replay", "/dev/zero"],
        ["explain", "--tags", "/dev/zero", "--profiles", profiles],
        ["explain", "--tags", "{}", "--profiles", "/dev/zero"],
    ):
        with pytest.raises(ComityError) as caught:
            main(arguments)
        assert (caught.value.exit_code, caught.value.code) == (2, "policy.too_long")


def test_check_runs_the_canaries_beside_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "own.cedar", OPEN)
    write(tmp_path, "own.canaries.json", '{"canaries": [{"name": "closed", "expect": "deny"}]}')
    assert main(["check", path]) == 1
    assert main(["check", path, "--override", "closed"]) == 0


def test_canaries_that_are_named_and_not_there_are_no_canaries_that_hold(tmp_path: Path) -> None:
    """A link that leads nowhere says that there were some: nothing passes for want of them."""
    path = write(tmp_path, "own.cedar", OPEN)
    (tmp_path / "own.canaries.json").symlink_to(tmp_path / "gone.json")
    assert main(["check", path]) == 2
    with pytest.raises(ConfigurationError, match=r"own\.canaries\.json: No such file"):
        load_file(Path(path))


def test_an_override_of_no_canary_is_a_mistake_and_passes_not_in_silence(tmp_path: Path) -> None:
    path, other = write(tmp_path, "own.cedar", OPEN), write(tmp_path, "other.cedar", OPEN)
    write(tmp_path, "own.canaries.json", '{"canaries": [{"name": "closed", "expect": "deny"}]}')
    assert main(["check", other, path, "--override", "closed"]) == 0, "one of the files has it"
    for arguments in (["check", path, "--override", "close"], ["check", other, "--override", "closed"]):
        with pytest.raises(ConfigurationError, match="no canary of these files is called 'close") as caught:
            main(arguments)
        assert (caught.value.exit_code, caught.value.code) == (2, "policy.override")


def test_explain_names_verdict_rules_and_layer(profiles: str, capsys: pytest.CaptureFixture[str]) -> None:
    tags = '{"data_class": "personal", "residency": ["EU"]}'
    assert main(["explain", "--tags", tags, "--profiles", profiles, "--at", AT]) == 0
    out = capsys.readouterr().out
    assert "cloud.fr: allow" in out
    assert "hyper.us: deny (DAT-002-transfer-needs-basis, RES-001-inside-residency)" in out
    assert "  charter/charter: deny" in out


def test_explain_says_what_would_have_to_give(profiles: str, capsys: pytest.CaptureFixture[str]) -> None:
    tags = '{"data_class": "public", "require_certs": ["C5"]}'
    assert main(["explain", "--tags", tags, "--profiles", profiles, "--at", AT, "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert answer["infeasible"]["relaxations"] == [{"rules": ["CRT-001-certificates"], "candidates": 3}]


def test_explain_unattested_and_expired(profiles: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "--tags", "{}", "--profiles", profiles, "--at", AT, "--unattested"]) == 1
    assert "TEE-007-not-attested" in capsys.readouterr().out
    late = datetime.fromtimestamp(JAN_2027, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert main(["explain", "--tags", "{}", "--profiles", profiles, "--at", late]) == 1
    assert "clinic.de: deny (PROFILE-EXPIRED)" in capsys.readouterr().out
    assert JAN_2026 < JAN_2027


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "--tags", '{"data_class": "secret"}'],
        ["explain", "--tags", "absent.json"],
        ["explain", "--tags", "{}", "--consumer", "who.example"],
        ["explain", "--tags", "{}", "--at", "yesterday"],
    ],
)
def test_what_cannot_be_read_is_exit_2(arguments: list[str], profiles: str) -> None:
    with pytest.raises(ComityError) as caught:
        main([*arguments, "--profiles", profiles])
    assert caught.value.exit_code == 2


def test_usage_is_exit_2() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["no-such-thing"])
    assert caught.value.code == 2


def test_a_stored_decision_is_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers = default_layers(provider=ELSEWHERE)
    draw = random.Random(7)
    for request, subject in [(asking(), hyper()), (asking(), clinic())] + [
        (random_request(draw), random_subject(draw)) for _ in range(10)
    ]:
        decision = layers.decide(request, subject)
        stored = DecisionRecord.read(record(layers, request, subject, decision).write())
        assert replay(stored).as_json() == decision.as_json()
    veto = LayerVerdict("provider", "hyper.us", "0" * 64, "deny", ("PRV-001-no",))
    joined = layers.decide(asking(data_class="public"), hyper()).joined(veto)
    assert len(record(layers, asking(data_class="public"), hyper(), joined).sets) == len(layers.units)
    path = tmp_path / "decision.json"
    path.write_bytes(stored.write())
    assert main(["replay", str(path)]) == 0
    assert "the decision holds" in capsys.readouterr().out


def test_a_record_that_was_altered_does_not_replay() -> None:
    layers, request, subject = default_layers(), asking(), hyper()
    stored = record(layers, request, subject, layers.decide(request, subject))
    forged = stored.model_copy(update={"verdict": "allow", "reasons": ["MEM-001-active-member"]})
    with pytest.raises(Refused, match="replay_differs"):
        replay(forged)
    softened = stored.sets[0].model_copy(update={"text": OPEN})
    with pytest.raises(Refused, match="digest_differs"):
        replay(stored.model_copy(update={"sets": [softened, *stored.sets[1:]]}))
    with pytest.raises(Undecided, match="engine_other"):
        replay(stored.model_copy(update={"engine_version": "1.0"}))
