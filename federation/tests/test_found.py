"""Founding: what it makes holds against its pin, and each domain has its own secrets alone."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from federation import found as founding
from federation.commands import main
from federation.found import PORTS, Founded, found, free_port, rules
from federation.founding.plan import read_plan
from federation.status import Standing
from schemas.errors import ComityError, ConfigurationError
from schemas.keys import SigningKey
from schemas.policy.packs import load_file

NOW = datetime.now(UTC)
ROOT = Path(__file__).parents[2]
PLAN = """
federation = "test"
currency = "EUR"
threshold = 2
valid_days = 30
policy = "charter"
publisher = "images"
vendor_roots = ["amd-sev-snp"]

[[images]]
measurement = "{m}"
image_digest = "{d}"
engine_digests = ["{d}"]
provenance = "built for a test"

[[domains]]
name = "a.example"
operator = "Operator \\"A\\""
jurisdictions = ["DE"]
exposed_to = []
evidence = 2
credential = "register"
certifications = ["C5"]
retention_s = 0
national = "national-de"
provider = "provider-default"
k_min = 1

[[domains.capabilities]]
name = "chat.small"
variant = "test"
version = "1"
digest = "{d}"
task = "chat"
quality = {{ tier = 1, context_limit = 2048 }}
rates = {{ input = 1, output = 2, cached = 0 }}

[[domains.nodes]]
id = "n1"
capability = "chat.small/test"
model = "model.gguf"
platforms = ["{d}"]

[[domains.tenants]]
name = "ward"
floor = {{ data_class = "personal" }}
policy = "tenant-hospital"

[[domains]]
name = "b.example"
operator = "B"
jurisdictions = ["US"]
exposed_to = ["US-CLOUD-Act"]
evidence = 1
credential = "contract"
retention_s = 86400
national = "any"
provider = "any"
capabilities = []
nodes = []
""".format(m="ab" * 48, d="cd" * 32)


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN, "utf-8")
    return path


@pytest.fixture
def founded(plan_file: Path, tmp_path: Path) -> Founded:
    return found(read_plan(plan_file), tmp_path / "made", NOW)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_papers_hold_against_the_pin_in_every_folder(founded: Founded) -> None:
    for domain in ("a.example", "b.example"):
        trust = Standing.read(founded.domain(domain)).trust
        assert trust.members == ("a.example", "b.example")
        for member in trust.members:
            for role in ("message", "receipt", "promise", "advert", "attestation-verifier"):
                (key,) = trust.keys(member, role, NOW + timedelta(seconds=1))
                path = founded.domain(member) / "keys" / f"{role}.pem"
                assert SigningKey.load(path).thumbprint == key.thumbprint
        assert trust.enrolments()["a.example"] == frozenset({"cd" * 32})
        assert len(trust.reference_values_at(NOW + timedelta(seconds=1))) == 1


def test_the_charter_names_the_rules_that_every_member_holds(founded: Founded) -> None:
    trust = Standing.read(founded.domain("b.example")).trust
    held = load_file(founded.domain("b.example") / "shared" / "policies" / "charter.cedar")
    assert held.digest == trust.charter.policy_digest == rules("charter").digest


def test_a_domain_holds_its_own_secrets_alone(founded: Founded) -> None:
    a, b = (founded.domain(name) for name in ("a.example", "b.example"))
    roles = {f"{role}.pem" for role in ("root", "log", "witness", "message", "receipt", "promise", "advert")}
    logins = {"broker.nk", "agent.nk"}
    assert files(b / "keys") == roles | logins | {"attestation-verifier.pem"}
    assert files(a / "keys") == files(b / "keys") | {"node.n1.nk", "api-ward.txt"}
    secrets_of_a = [path.read_bytes() for path in (a / "keys").iterdir()]
    elsewhere = [
        path.read_bytes() for path in founded.folder.rglob("*") if path.is_file() and a not in path.parents
    ]
    assert not [secret for secret in secrets_of_a for other in elsewhere if secret in other]
    assert list((founded.bus.path / "users").rglob("*.nk")) == [founded.bus.path / "users" / "system.nk"]


def test_secrets_are_their_owners_alone(founded: Founded) -> None:
    secret = [path for path in founded.folder.rglob("*") if path.is_file() and path.parent.name == "keys"]
    assert len(secret) > 10
    for path in [*secret, *(founded.folder / "publisher").iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((founded.domain("a.example")).stat().st_mode) == 0o700


def test_every_setting_is_toml_and_every_path_in_it_exists(founded: Founded) -> None:
    for path in founded.folder.glob("*/*.toml"):
        stated = tomllib.loads(path.read_text("utf-8"))
        bus = stated.get("bus")
        if bus is None:
            continue
        assert bus["url"] == f"tls://127.0.0.1:{founded.bus_port}"
        papers = {key: name for key, name in stated["federation"].items() if key != "pin"}
        for name in (*papers.values(), bus["seed"], bus["ca"], *stated.get("keys", {}).values()):
            assert (path.parent / name).exists(), (path, name)
    tenant = tomllib.loads((founded.domain("a.example") / "broker.toml").read_text())["tenants"][0]
    assert tenant["floor"]["data_class"] == "personal"
    assert founded.api_keys["a.example", "ward"] not in json.dumps(tenant)


def test_nothing_is_overwritten(plan_file: Path, founded: Founded) -> None:
    before = files(founded.folder)
    with pytest.raises(ConfigurationError, match=r"found\.folder"):
        found(read_plan(plan_file), founded.folder, NOW)
    assert files(founded.folder) == before


def test_two_foundings_share_no_key(plan_file: Path, tmp_path: Path) -> None:
    one, other = (found(read_plan(plan_file), tmp_path / name, NOW) for name in ("one", "other"))
    assert one.pin != other.pin
    assert one.api_keys != other.api_keys


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("threshold = 2", "threshold = 3"), "threshold"),
        (("threshold = 2", "threshold = 0"), "threshold"),
        (("valid_days = 30", "valid_days = 30\nvalid = 1"), "valid: Extra"),
        (('jurisdictions = ["DE"]', 'jurisdictions = ["Germany"]'), "jurisdictions"),
        (('policy = "charter"', 'policy = "no-such-pack"'), "no-such-pack"),
        (('exposed_to = ["US-CLOUD-Act"]', 'exposed_to = ["CLOUD"]'), "exposed_to"),
        (('capability = "chat.small/test"', 'capability = "chat.large/test"'), "chat.large/test"),
        (('name = "b.example"', 'name = "a.example"'), "twice"),
        (("valid_days = 30", "valid_days = 30.5"), "fraction"),
        (("valid_days = 30", "valid_days ="), "plan.toml"),
    ],
)
def test_a_wrong_plan_makes_nothing(
    plan_file: Path, tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    plan_file.write_text(PLAN.replace(*change), "utf-8")
    with pytest.raises(ComityError, match=named):
        found(read_plan(plan_file), tmp_path / "made", NOW)
    assert not (tmp_path / "made").exists()


def test_the_commands(plan_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made"
    assert main(["init", str(plan_file), "--dir", str(folder)]) == 0
    pin = (folder / "a.example" / "shared" / "pin").read_text().strip()
    assert pin in capsys.readouterr().out
    assert main(["status", "--dir", str(folder)]) == 0
    assert "the same charter" in capsys.readouterr().out
    assert main(["status", "--dir", str(folder / "b.example"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["holds"], shown["domains"][0]["pin"]) == (True, pin)
    assert main(["init"]) == 2


def test_a_reader_who_leaves_the_table_gets_no_verdict(founded: Founded) -> None:
    """`comity federation status … | head` must not end as "it does not hold"."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "comity", "federation", "status", "--dir", str(founded.folder)],
            stdout=writing, stderr=subprocess.PIPE, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert ended.returncode == 141


def test_status_says_what_does_not_hold(founded: Founded, capsys: pytest.CaptureFixture[str]) -> None:
    a = founded.domain("a.example")
    (a / "shared" / "manifests" / "b.example.json").unlink()
    assert main(["status", "--dir", str(a), "--json"]) == 1
    members = json.loads(capsys.readouterr().out)["domains"][0]["members"]
    assert [bool(member["fault"]) for member in members] == [False, True]
    (a / "shared" / "pin").write_text("00" * 32)
    with pytest.raises(ComityError, match=r"charter\.pin"):
        main(["status", "--dir", str(a)])
    with pytest.raises(ConfigurationError, match=r"status\.folder"):
        main(["status", "--dir", str(a / "keys")])


def test_an_expired_charter_does_not_hold(founded: Founded) -> None:
    standing = Standing.read(founded.domain("a.example"))
    assert standing.as_json(NOW)["expired"] is False
    assert standing.as_json(NOW + timedelta(days=31))["expired"] is True


@pytest.mark.parametrize("days", [30, 3650])
def test_the_bus_lasts_as_long_as_the_charter(plan_file: Path, tmp_path: Path, days: int) -> None:
    """Nobody can renew its certificate: the authority's key was dropped, and members pin that authority."""
    plan_file.write_text(plan_file.read_text().replace("valid_days = 30", f"valid_days = {days}"))
    made = found(read_plan(plan_file), tmp_path / "lasting", NOW)
    ends = Standing.read(made.domain("a.example")).trust.charter.expires
    for name in ("ca.pem", "server.pem"):
        certificate = x509.load_pem_x509_certificate((made.bus.path / name).read_bytes())
        assert certificate.not_valid_after_utc.timestamp() >= ends


def test_a_planned_port_is_used_and_otherwise_one_that_can_be_had(plan_file: Path, tmp_path: Path) -> None:
    plan = read_plan(plan_file).model_copy(update={"bus_port": 4222})
    assert found(plan, tmp_path / "fixed", NOW).bus_port == 4222
    assert free_port() in PORTS


def test_a_port_that_somebody_has_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        monkeypatch.setattr(founding, "PORTS", range(port, port + 1))
        with pytest.raises(ConfigurationError, match=r"bus\.no_port"):
            free_port()
    assert free_port() == port


MAKER = '{{ name = "demo", product = "nvidia-{}", sha256 = "{}" }}'
NVIDIA_TOO = 'vendor_roots = ["amd-sev-snp", "nvidia"]'
WITH_GPUS = (
    PLAN.replace('model = "model.gguf"\n', 'model = "model.gguf"\ngpus = "nvml"\n')
    .replace('provenance = "built for a test"', 'provenance = "built for a test"\ngpus = 8')
    .replace('vendor_roots = ["amd-sev-snp"]', NVIDIA_TOO)
)


@pytest.mark.parametrize(
    "stated",
    [
        'allowed_jurisdictions = ["DE"]',
        'scope = "domain"',
        "security = { min_assurance = 3 }",
        f'lineage = [{{ base = "x", method = "adapter", digest = "{"00" * 32}", licence = "MIT" }}]',
    ],
)
def test_a_limit_that_nobody_would_keep_is_refused(plan_file: Path, stated: str) -> None:
    plan_file.write_text(PLAN.replace('task = "chat"\n', f'task = "chat"\n{stated}\n'), "utf-8")
    with pytest.raises(ConfigurationError, match=f"nothing keeps {stated.split(maxsplit=1)[0]} yet"):
        read_plan(plan_file)


def test_a_task_that_agents_do_not_serve_is_refused(plan_file: Path) -> None:
    plan_file.write_text(PLAN.replace('task = "chat"\n', 'task = "embedding"\n'), "utf-8")
    with pytest.raises(ConfigurationError, match="agents serve chat alone"):
        read_plan(plan_file)


def test_the_charter_says_whose_hardware_counts(plan_file: Path, tmp_path: Path) -> None:
    plan_file.write_text(PLAN.replace('"amd-sev-snp"', '"intel-tdx"'), "utf-8")
    made = found(read_plan(plan_file), tmp_path / "made", NOW)
    charter = json.loads((made.domain("a.example") / "shared" / "charter.json").read_bytes())
    assert json.loads(base64.b64decode(charter["payload"]))["vendor_roots"] == ["intel-tdx"]


def test_gpus_of_a_maker_that_the_charter_does_not_accept_are_a_slip_of_the_plan(plan_file: Path) -> None:
    plan_file.write_text(WITH_GPUS.replace(NVIDIA_TOO, 'vendor_roots = ["amd-sev-snp"]'), "utf-8")
    with pytest.raises(ConfigurationError, match="vendor_roots does not name"):
        read_plan(plan_file)


def test_a_plan_with_gpus_demands_them(plan_file: Path, tmp_path: Path) -> None:
    """Confidential mode, revocation and the strongest binding are demanded by what is not waived."""
    makers = ", ".join(MAKER.format(anchor, "12" * 32) for anchor in ("device", "manifest"))
    rooted = f"{NVIDIA_TOO}\nsimulated_roots = [{makers}]"
    plan_file.write_text(WITH_GPUS.replace(NVIDIA_TOO, rooted), "utf-8")
    made = found(read_plan(plan_file), tmp_path / "made", NOW)
    expected = tomllib.loads((made.domain("b.example") / "expectations.toml").read_text("utf-8"))
    nvidia = expected["nvidia"]
    assert nvidia.pop("images") == {"ab" * 48: 8}
    assert [each["anchor"] for each in nvidia.pop("simulated_root")] == ["device", "manifest"]
    assert nvidia == dict.fromkeys(("driver_min", "vbios", "modes"), "any")
    assert "simulated_root" not in expected
    node = tomllib.loads((made.domain("a.example") / "node-n1.toml").read_text("utf-8"))
    assert node["devices"] == {"kind": "nvml"}
    (member, _) = Standing.read(made.domain("a.example")).trust.charter.members
    assert [claim.confidential_gpu for claim in member.endorsed.profile.tee] == [True]


def test_a_folder_of_simulated_gpus_is_relative_to_the_plan(plan_file: Path) -> None:
    plan_file.write_text(WITH_GPUS.replace('"nvml"', '"gpus"'), "utf-8")
    assert read_plan(plan_file).domains[0].nodes[0].gpus == str(plan_file.parent / "gpus")
