"""Configuration files: an error names the file, the key, and what to write."""

from __future__ import annotations

from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain_agent import config as agent_config
from domain_agent.node import config as node_config
from domain_agent.node.config import AttachedEngine, Devices, LlamaEngine
from domain_agent.tests.founding import CAPABILITY, OURS, PEER, Founded
from domain_agent.toml_file import Section, open_toml
from schemas.errors import ConfigurationError

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "user.nk"
    path.touch(mode=0o600)
    return path


CAPABILITIES = (
    f'[[capabilities]]\nclass = "chat.small"\nvariant = "v"\nversion = "1"\ndigest = "{"0" * 64}"\n'
    "context = 2048\nrates = { input = 1, output = 2, cached = 0 }\n"
)


def node_text(founded: Founded, seed: Path, **changes: str) -> str:
    parts = {
        "top": f'domain = "{OURS}"\nnode_id = "n1"\n',
        "federation": founded.federation_toml(),
        "bus": f'[bus]\nurl = "nats://127.0.0.1:4222"\nseed = "{seed}"\nca = "any"\n',
        "tee": '[tee]\nkind = "configfs-tsm"\n',
        "engine": '[engine]\nkind = "llama.cpp"\nslots = 2\n',
        "models": f'[[models]]\ncapability = "{CAPABILITY}"\nfile = "model.gguf"\n',
    }
    return "".join({**parts, **changes}.values())


def agent_text(founded: Founded, seed: Path, **changes: str) -> str:
    parts = {
        "top": f'domain = "{OURS}"\nstate = "state"\n',
        "federation": founded.federation_toml() + f'expectations = "{founded.folder}/expected.toml"\n',
        "bus": f'[bus]\nurl = "nats://127.0.0.1:4222"\nseed = "{seed}"\nca = "any"\n',
        "keys": f'[keys]\nadvert = "{founded.folder}/{OURS}.advert.pem"\n'
        f'attestation_verifier = "{founded.folder}/{OURS}.verifier.pem"\n',
        "capabilities": CAPABILITIES,
    }
    return "".join({**parts, **changes}.values())


def load_node(tmp_path: Path, text: str) -> node_config.NodeConfig:
    (tmp_path / "node.toml").write_text(text)
    return node_config.load(tmp_path / "node.toml")


def load_agent(tmp_path: Path, text: str) -> agent_config.AgentConfig:
    (tmp_path / "agent.toml").write_text(text)
    return agent_config.load(tmp_path / "agent.toml")


def test_a_good_node_file_is_read(founded: Founded, seed: Path, tmp_path: Path) -> None:
    config = load_node(tmp_path, node_text(founded, seed))
    assert config.engine == LlamaEngine(slots=2, context=4096, threads=1)
    assert config.models[0].name == CAPABILITY
    assert config.models[0].file == tmp_path / "model.gguf"
    assert config.membership.peers == (PEER,)


OPENAI = (
    '[engine]\nkind = "openai"\nname = "vllm"\nslots = 8\nflags = []\nprefix_cache = "salted"\n'
    'binary = "/bin/sh"\n'
)


def test_an_attached_engine_is_read(founded: Founded, seed: Path, tmp_path: Path) -> None:
    engine = OPENAI + 'address = "unix:/run/engine.sock"\n'
    config = load_node(tmp_path, node_text(founded, seed, engine=engine))
    assert isinstance(config.engine, AttachedEngine)
    assert config.engine.placement == "in-tee"
    assert config.engine.address.is_local


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tee": ""}, r"node\.toml: \[tee\] kind is not set; write kind = "),
        ({"tee": '[tee]\nkind = "sgx"\n'}, r"\[tee\] kind is 'sgx'; write"),
        ({"tee": '[tee]\nkind = "simulated"\n'}, r"\[tee\] chip is not set; write chip = "),
        (
            {"engine": '[engine]\nkind = "llama.cpp"\n'},
            r"\[engine\] slots is not set; write slots =",
        ),
        ({"engine": '[engine]\nkind = "llama.cpp"\nslots = 0\n'}, r"\[engine\] slots is 0"),
        (
            {"engine": '[engine]\nkind = "llama.cpp"\nslots = 2\nthread = 1\n'},
            r"thread is not a key here; known",
        ),
        (
            {"engine": OPENAI + 'address = "http://10.1.2.3:8000"\n'},
            r"leaves this machine; write .*outside",
        ),
        (
            {"engine": OPENAI.replace("prefix_cache", "#") + 'address = "unix:/x"\n'},
            r"prefix_cache is not set",
        ),
        ({"engine": OPENAI.replace("binary", "#") + 'address = "unix:/x"\n'}, r"binary is not set"),
        ({"models": ""}, r"models has 0 entries; write at least 1 of \[\[models\]\]"),
        ({"models": '[[models]]\ncapability = "chat"\nfile = "x"\n'}, r"\[models\.0\] capability"),
        ({"top": 'domain = "nobody.example"\nnode_id = "n1"\n'}, r"no member; write one of clinic\.de"),
        ({"top": f'domain = "{OURS}"\nnode_id = "a.b"\n'}, r"node_id is not what is expected"),
        (
            {"bus": '[bus]\nurl = "nats://10.0.0.1:1"\nseed = "user.nk"\nca = "any"\n'},
            r"url leaves this machine",
        ),
        ({"bus": '[bus]\nurl = "nats://127.0.0.1:1"\nseed = "none"\nca = "any"\n'}, r"none: No such file"),
        ({"bus": '[bus]\nurl = "nats://127.0.0.1:1"\nseed = "user.nk"\n'}, r"\[bus\] ca is not set"),
    ],
)
def test_a_wrong_node_file_says_what_to_write(
    founded: Founded, seed: Path, tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load_node(tmp_path, node_text(founded, seed, **changes))


def test_a_seed_that_others_may_read_is_refused(founded: Founded, seed: Path, tmp_path: Path) -> None:
    seed.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_node(tmp_path, node_text(founded, seed))


def test_another_charter_than_the_pinned_one_is_refused(founded: Founded, seed: Path, tmp_path: Path) -> None:
    wrong = founded.federation_toml().replace(founded.pin.hex(), "0" * 64)
    with pytest.raises(ConfigurationError, match=r"\[federation\] does not hold: charter\.pin"):
        load_node(tmp_path, node_text(founded, seed, federation=wrong))


def test_a_good_agent_file_is_read(founded: Founded, seed: Path, tmp_path: Path) -> None:
    config = load_agent(tmp_path, agent_text(founded, seed))
    assert (config.epoch_s, config.k_min, config.jurisdiction, config.accept) == (60, 5, "DE", "affirming")
    assert config.catalogue.entries[0].label == "chat.small/v"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keys": ""}, r"agent\.toml: \[keys\] advert is not set; write advert = "),
        ({"capabilities": ""}, r"at least 1 of \[\[capabilities\]\]"),
        ({"top": f'domain = "{OURS}"\n'}, r"state is not set"),
        ({"more": "[summary]\nk_min = 0\n"}, r"\[summary\] k_min is 0; write k_min = a number of nodes"),
        ({"more": '[summary]\njurisdiction = "XX"\n'}, r"\[summary\] jurisdiction"),
        ({"more": '[admission]\naccept = "none"\n'}, r"\[admission\] accept is 'none'"),
        ({"more": "[unknown]\n"}, r"unknown is not a key here"),
    ],
)
def test_a_wrong_agent_file_says_what_to_write(
    founded: Founded, seed: Path, tmp_path: Path, changes: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        load_agent(tmp_path, agent_text(founded, seed, **changes))


def test_a_capability_twice_is_refused(founded: Founded, seed: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="class and variant twice"):
        load_agent(tmp_path, agent_text(founded, seed, more=CAPABILITIES))


def test_a_key_of_another_role_signs_no_adverts(founded: Founded, seed: Path, tmp_path: Path) -> None:
    founded.message[OURS].save(tmp_path / "message.pem")
    with pytest.raises(ConfigurationError, match="not registered as advert in the manifest"):
        load_agent(tmp_path, agent_text(founded, seed, keys='[keys]\nadvert = "message.pem"\n'))
    advert = f'[keys]\nadvert = "{founded.folder}/{OURS}.advert.pem"\n'
    with pytest.raises(ConfigurationError, match="not registered as attestation-verifier"):
        load_agent(
            tmp_path, agent_text(founded, seed, keys=advert + 'attestation_verifier = "message.pem"\n')
        )
    assert load_agent(tmp_path, agent_text(founded, seed, keys=advert)).results is None


def test_a_simulated_root_that_the_charter_does_not_list_is_refused(
    founded: Founded, seed: Path, tmp_path: Path
) -> None:
    root = f'[[simulated_root]]\nname = "other"\nproduct = "Milan"\nsha256 = "{"ab" * 32}"\n'
    own = (founded.folder / "expected.toml").read_text() + root
    (tmp_path / "own.toml").write_text(own)
    stated = founded.federation_toml() + 'expectations = "own.toml"\n'
    with pytest.raises(ConfigurationError, match="not listed in the charter"):
        load_agent(tmp_path, agent_text(founded, seed, federation=stated))


@pytest.mark.parametrize("name", ["node.toml", "agent.toml"])
def test_the_examples_are_toml_and_name_every_section(name: str) -> None:
    top = open_toml(EXAMPLES / name)
    assert {"domain", "federation", "bus", "observe"} <= top.values.keys()


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.lists(st.integers())))
def test_any_table_is_read_or_refused_in_type(values: dict[str, object]) -> None:
    section = Section(Path("x.toml"), "t", dict(values))
    for key in list(values):
        for read in (
            lambda key=key: section.integer(key, 0, 10, unit="x"),
            lambda key=key: section.text(key, r"[a-z]+", write="x"),
            lambda key=key: section.texts(key, r"[a-z]+", write="x"),
            lambda key=key: section.child(key),
            lambda key=key: section.children(key),
        ):
            try:
                read()
            except ConfigurationError as error:
                assert "x.toml" in str(error)  # noqa: PT017 - each of many must name the file
    section.finish()


def test_devices_come_from_nowhere_the_driver_or_a_folder(
    founded: Founded, seed: Path, tmp_path: Path
) -> None:
    def devices(text: str) -> Devices:
        return load_node(tmp_path, node_text(founded, seed, devices=text)).devices

    assert devices("") == Devices()
    assert devices('[devices]\nkind = "nvml"\n') == Devices("nvml")
    simulated = devices('[devices]\nkind = "simulated"\nboard = "gpus"\n')
    assert simulated == Devices("simulated", tmp_path / "gpus")
    for wrong in ('kind = "simulated"', 'kind = "nvml"\nboard = "gpus"', 'kind = "cuda"', ""):
        with pytest.raises(ConfigurationError, match=r"node\.toml: \[devices\]"):
            devices(f"[devices]\n{wrong}\n")


def test_an_agent_waits_for_a_quote_as_long_as_it_is_told(
    founded: Founded, seed: Path, tmp_path: Path
) -> None:
    def waits(text: str) -> int:
        (tmp_path / "agent.toml").write_text(agent_text(founded, seed, admission=text))
        return agent_config.load(tmp_path / "agent.toml").quote_s

    assert waits("") == agent_config.QUOTE_S
    assert waits("[admission]\nquote_s = 30\n") == 30
    for wrong in (0, 61):
        with pytest.raises(ConfigurationError, match="quote_s"):
            waits(f"[admission]\nquote_s = {wrong}\n")


@pytest.mark.parametrize("key", ["charter", "manifests", "reference_values"])
@pytest.mark.parametrize("path", ["no/such/file", "a\\u0000b"])
def test_a_paper_that_is_not_there_is_named_with_its_key(
    founded: Founded, seed: Path, tmp_path: Path, key: str, path: str
) -> None:
    lines = founded.federation_toml().splitlines(keepends=True)
    wrong = "".join(f'{key} = "{path}"\n' if line.startswith(f"{key} ") else line for line in lines)
    with pytest.raises(ConfigurationError, match=rf"agent\.toml: \[federation\] {key} .*; write {key} ="):
        load_agent(tmp_path, agent_text(founded, seed, federation=wrong + 'expectations = "x"\n'))
    with pytest.raises(ConfigurationError, match=rf"node\.toml: \[federation\] {key} .*; write {key} ="):
        load_node(tmp_path, node_text(founded, seed, federation=wrong))


@pytest.mark.parametrize("path", ["no/such/file", "a\\u0000b"])
def test_an_authority_that_is_not_there_is_named_with_its_key(
    founded: Founded, seed: Path, tmp_path: Path, path: str
) -> None:
    bus = f'[bus]\nurl = "tls://127.0.0.1:4222"\nseed = "{seed}"\nca = "{path}"\n'
    with pytest.raises(ConfigurationError, match=r"node\.toml: \[bus\] ca .*; write ca ="):
        load_node(tmp_path, node_text(founded, seed, bus=bus))


def test_a_member_without_its_own_manifest_is_told_at_start(
    founded: Founded, seed: Path, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    lines = founded.federation_toml().splitlines(keepends=True)
    wrong = "".join('manifests = "none"\n' if line.startswith("manifests ") else line for line in lines)
    for load, text in (
        (load_node, node_text(founded, seed, federation=wrong)),
        (load_agent, agent_text(founded, seed, federation=wrong + 'expectations = "x"\n')),
    ):
        with pytest.raises(ConfigurationError, match=r"\.toml: \[federation\] does not hold: trust\."):
            load(tmp_path, text)


@pytest.mark.parametrize("year", [2020, 2040])
def test_a_clock_that_is_wrong_shows_at_start(
    founded: Founded, seed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(year, 1, 1, tzinfo=tz)

    monkeypatch.setattr("domain_agent.membership.datetime", Wrong)
    for load, text in ((load_node, node_text(founded, seed)), (load_agent, agent_text(founded, seed))):
        with pytest.raises(
            ConfigurationError, match=rf"\[federation\] does not hold: .* it is {year}-01-01T"
        ):
            load(tmp_path, text)
