"""Where evidence comes from: a kernel that behaves, one that is busy, one that is none."""

from __future__ import annotations

import errno
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from domain_agent.node.config import Tee
from domain_agent.node.keys import NodeKeys
from domain_agent.node.proving import collect
from domain_agent.node.proving.collect import Endorsed, TsmCollector, simulated
from domain_agent.node.proving.quote import file_digest
from domain_agent.node.proving.sev_guest import SevGuestCollector
from domain_agent.node.start import collector
from domain_agent.tests.founding import Founded
from domain_agent.tests.node.proving import CHALLENGES, chip_of, evidence_of
from schemas.errors import ConfigurationError, Refused, Undecided
from schemas.proof.binding import verify_challenge
from schemas.proof.evidence import CpuEvidence

DATA = bytes(range(64))


@dataclass
class Kernel:
    """A configfs that fills new entries, as the kernel does; writes are seen through a file's size."""

    provider: str = "sev_guest"
    interferences: int = 0
    busy: int = 0
    removed: list[Path] = field(default_factory=list)

    def make(self, path: Path) -> None:
        path.mkdir()
        (path / "provider").write_text(f"{self.provider}\n")
        (path / "outblob").write_bytes(b"report")
        (path / "auxblob").write_bytes(b"certificates")
        (path / "generation").write_text("0\n")
        (path / "inblob").symlink_to(path / "written")

    def remove(self, path: Path) -> None:
        self.removed.append(path)
        shutil.rmtree(path)

    def generation(self, entry: Path) -> int:
        written = (entry / "written").exists()
        if written and self.interferences:
            self.interferences -= 1
            return 2
        return int(written)

    def blob(self, path: Path) -> bytes:
        if self.busy:
            self.busy -= 1
            raise OSError(errno.EBUSY, "busy", str(path))
        return path.read_bytes()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(collect, "_generation", made.generation)
    monkeypatch.setattr(collect, "_blob", made.blob)
    monkeypatch.setattr(collect, "RETRY_S", 0.0)
    return made


def test_a_report_is_read_with_its_certificates_and_the_entry_is_removed(
    kernel: Kernel, tmp_path: Path
) -> None:
    evidence = TsmCollector(tmp_path, kernel)(DATA)
    assert evidence == CpuEvidence(tee="snp", report=b"report", endorsements=[b"certificates"])
    assert len(kernel.removed) == 1
    assert list(tmp_path.iterdir()) == []


def test_another_writer_means_another_try(kernel: Kernel, tmp_path: Path) -> None:
    kernel.interferences, kernel.busy = 2, 2
    assert TsmCollector(tmp_path, kernel)(DATA).report == b"report"
    assert len(kernel.removed) == 5
    assert list(tmp_path.iterdir()) == []


def test_a_provider_that_stays_busy_is_undecided(kernel: Kernel, tmp_path: Path) -> None:
    kernel.busy = 1000
    with pytest.raises(Undecided, match=r"tee\.busy"):
        TsmCollector(tmp_path, kernel)(DATA)
    assert list(tmp_path.iterdir()) == []


def test_tdx_is_known_and_a_stranger_is_not(kernel: Kernel, tmp_path: Path) -> None:
    kernel.provider = "tdx_guest"
    assert TsmCollector(tmp_path, kernel)(DATA).tee == "tdx"
    kernel.provider = "acme_guest"
    with pytest.raises(ConfigurationError, match=r"tee\.provider"):
        TsmCollector(tmp_path, kernel)(DATA)
    assert list(tmp_path.iterdir()) == []


def test_a_machine_without_a_tee_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="offers programs no TEE reports"):
        TsmCollector(tmp_path / "none")(DATA)


def test_what_the_hosts_table_lacks_comes_from_a_folder(
    founded: Founded, kernel: Kernel, tmp_path: Path
) -> None:
    chip, tsm = founded.folder / "chips" / "n1", tmp_path / "tsm"
    tsm.mkdir()
    folder = tmp_path / "collateral"
    (folder / "Milan").mkdir(parents=True)
    (folder / "Milan" / "vcek.crl").write_bytes((chip / "crl.der").read_bytes())
    (folder / "Milan" / "vcek.crl.new").write_bytes(b"half of")
    collect = Endorsed(TsmCollector(tsm, kernel), folder)
    assert collect(DATA).endorsements == [b"certificates", (chip / "crl.der").read_bytes()]
    (folder / "ark.der").write_bytes((chip / "ark.der").read_bytes())
    assert len(collect(DATA).endorsements) == 3
    (folder / "notes.txt").write_text("no endorsement")
    with pytest.raises(ConfigurationError, match=r"notes\.txt"):
        collect(DATA)
    with pytest.raises(ConfigurationError, match="comity attest fetch"):
        Endorsed(TsmCollector(tsm, kernel), tmp_path / "none")(DATA)


def test_each_kind_has_its_collector(tmp_path: Path) -> None:
    assert collector(Tee("sev-guest", None, None)) == SevGuestCollector()
    assert collector(Tee("configfs-tsm", None, None)) == TsmCollector()
    wanted = Endorsed(SevGuestCollector(), tmp_path)
    assert collector(Tee("sev-guest", None, tmp_path)) == wanted


def test_the_product_has_no_simulated_tee(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(ConfigurationError, match="needs a source checkout"):
        simulated(tmp_path)


async def test_one_quote_answers_every_challenge(founded: Founded) -> None:
    evidence = await evidence_of(chip_of(founded))
    root = bytes.fromhex(evidence.challenge_root)
    for domain, challenge in CHALLENGES.items():
        assert verify_challenge(domain, challenge, evidence.challenge_path(domain), root) == root
    assert evidence.expected_report_data() in evidence.cpu.report


async def test_keys_change_with_the_epoch_and_never_go_back(founded: Founded) -> None:
    keys = NodeKeys()
    first, same, second = [await evidence_of(chip_of(founded), keys, key_epoch=epoch) for epoch in (1, 1, 2)]
    assert first.seal_key == same.seal_key != second.seal_key
    assert first.sign_spki == second.sign_spki
    with pytest.raises(Refused, match=r"node\.key_epoch"):
        await evidence_of(chip_of(founded), keys)


async def test_evidence_that_no_message_can_carry_is_refused(founded: Founded) -> None:
    """Packed or not: what cannot be made smaller, and what is too large before."""
    for documents in ([secrets.token_bytes(192 * 1024)], [bytes(1024 * 1024)]):
        with pytest.raises(Refused, match=r"node\.evidence_size"):
            await evidence_of(chip_of(founded), collateral=documents)


async def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"abc")
    assert (await file_digest(tmp_path / "model")).startswith("ba7816bf")
    with pytest.raises(ConfigurationError, match="absent"):
        await file_digest(tmp_path / "absent")
