"""Fetching endorsements: from a server that works, and from one that does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from attestation.collateral import amd
from attestation.collateral import service as patience
from attestation.collateral.amd import KeyDistribution
from attestation.collateral.tests.kds import Service, serving
from attestation.commands import main
from attestation.snp.tests.judging import demanding, judge
from attestation.testing.expectations import snp_toml
from attestation.testing.forge import NOW, Forge, ec_key, rsa_key
from attestation.tests.test_endorsements import pem
from schemas.errors import ConfigurationError, Refused, Undecided
from schemas.primitives import format_time

MILAN = Forge.of("Milan")


@pytest.fixture
def kds() -> Iterator[tuple[Service, str]]:
    with serving(MILAN) as running:
        yield running


@asynccontextmanager
async def connected(
    folder: Path, url: str, forge: Forge = MILAN
) -> AsyncIterator[tuple[KeyDistribution, list[float]]]:
    """The fetcher at the moment where the evidence is good, with the pauses that it took."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with httpx.AsyncClient(trust_env=False) as client:
        asked = patience.Service(client, url, sleep=sleep, clock=NOW.timestamp)
        yield KeyDistribution(folder, asked, demanding(forge)), pauses


def kept(folder: Path) -> list[str]:
    return [file.name for file in folder.rglob("*")]


def newest(folder: Path) -> float:
    return max(file.stat().st_mtime for file in folder.rglob("*.crl"))


@pytest.mark.parametrize("product", ["Milan", "Genoa", "Turin"])
async def test_a_bundle_for_offline_use(product: str, tmp_path: Path) -> None:
    forge = Forge.of(product)
    with serving(forge) as (_, url):
        async with connected(tmp_path, url, forge) as (fetcher, pauses):
            files = await fetcher.endorse(forge.report())
    assert pauses == []
    assert judge(forge, endorsements=[file.read_bytes() for file in files]).verdict == "affirming"


async def test_what_is_kept_is_not_asked_for_again(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    async with connected(tmp_path, url) as (fetcher, _):
        first = await fetcher.endorse(MILAN.report())
        count = len(service.asked)
        assert await fetcher.endorse(MILAN.report()) == first
        assert len(service.asked) == count == 4


async def test_a_kept_crl_is_renewed_after_a_day(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    async with connected(tmp_path, url) as (fetcher, _):
        await fetcher.endorse(MILAN.report())
        later = newest(tmp_path) + amd.CRL_MAX_AGE + 1
        service.asked.clear()
        fetcher.service.clock = lambda: later
        await fetcher.endorse(MILAN.report())
        assert {target.rsplit("/", 1)[1] for target in service.asked} == {"crl"}


async def test_one_request_in_flight_a_name(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    service.hold = threading.Event()
    async with connected(tmp_path, url) as (fetcher, _):
        many = [asyncio.create_task(fetcher.endorse(MILAN.report())) for _ in range(5)]
        await asyncio.to_thread(service.reached.wait, 10)
        service.hold.set()
        await asyncio.gather(*many)
    assert len(service.asked) == 4


async def test_a_version_2_report_needs_its_product(kds: tuple[Service, str], tmp_path: Path) -> None:
    report = replace(MILAN, version=2).report()
    async with connected(tmp_path, kds[1]) as (fetcher, _):
        with pytest.raises(ConfigurationError) as error:
            await fetcher.endorse(report)
        assert "--product" in error.value.text
        assert await fetcher.endorse(report, product="Milan")


async def test_a_vlek_cannot_be_asked_for_but_the_rest_can(tmp_path: Path) -> None:
    vlek = Forge.of("Milan", "VLEK")
    with serving(vlek) as (service, url):
        async with connected(tmp_path, url, vlek) as (fetcher, _):
            files = await fetcher.endorse(vlek.report())
    assert not any("SPL" in target for target in service.asked)
    offered = [vlek.leaf(), *(file.read_bytes() for file in files)]
    assert judge(vlek, endorsements=offered).verdict == "affirming"


async def test_a_masked_chip_cannot_be_asked_for(kds: tuple[Service, str], tmp_path: Path) -> None:
    async with connected(tmp_path, kds[1]) as (fetcher, _):
        with pytest.raises(Undecided) as error:
            await fetcher.endorse(MILAN.report(chip_id=bytes(64)))
    assert error.value.code == "collateral.chip_masked"


async def test_404_is_remembered_for_a_while(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    service.vcek = lambda: b""
    other = MILAN.report(chip_id=b"\7" * 64)
    async with connected(tmp_path, url) as (fetcher, pauses):
        for _ in range(2):
            with pytest.raises(Undecided) as error:
                await fetcher.endorse(other)
            assert error.value.code == "collateral.not_found"
        assert sum("SPL" in target for target in service.asked) == 1
        fetcher.service.clock = lambda: NOW.timestamp() + patience.NOT_FOUND_FOR
        with pytest.raises(Undecided):
            await fetcher.endorse(other)
        assert sum("SPL" in target for target in service.asked) == 2
    assert pauses == []


async def test_429_waits_as_long_as_it_is_told(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    date = (NOW + timedelta(seconds=9)).strftime("%a, %d %b %Y %H:%M:%S GMT")
    service.faults["/vcek/v1/Milan/cert_chain"] = [
        (429, {"Retry-After": "7"}, b""),
        (429, {"Retry-After": date}, b""),
        (503, {}, b""),
        (429, {"Retry-After": "soon"}, b""),
    ]
    async with connected(tmp_path, url) as (fetcher, pauses):
        await fetcher.endorse(MILAN.report())
    assert len(pauses) == 4
    assert pauses[:2] == [7.0, 9.0]
    assert 0 <= pauses[2] <= 4.0


@pytest.mark.parametrize(
    ("answers", "pauses"),
    [
        ([(429, {}, b"")] * 9, patience.ATTEMPTS - 1),
        ([(500, {}, b"")] * 9, patience.ATTEMPTS - 1),
        ([(429, {"Retry-After": "3600"}, b"")], 0),
        ([(403, {}, b"")], 0),
        ([(302, {"Location": "http://127.0.0.1:9/"}, b"")], 0),
        ([(200, {}, bytes(patience.MAX_ANSWER_BYTES + 1))], 0),
    ],
    ids=["429", "500", "wait an hour", "403", "redirect", "too long"],
)
async def test_trouble_ends_undecided(
    kds: tuple[Service, str], tmp_path: Path, answers: list[tuple[int, dict[str, str], bytes]], pauses: int
) -> None:
    service, url = kds
    service.faults["/vcek/v1/Milan/cert_chain"] = answers
    async with connected(tmp_path, url) as (fetcher, taken):
        with pytest.raises(Undecided) as error:
            await fetcher.endorse(MILAN.report())
    assert error.value.code == "collateral.unavailable"
    assert len(taken) == pauses
    assert kept(tmp_path) == []


async def test_silence_ends_undecided(
    kds: tuple[Service, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, url = kds
    service.hold = threading.Event()
    monkeypatch.setattr(patience, "TIMEOUT", 0.05)
    try:
        async with connected(tmp_path, url) as (fetcher, taken):
            with pytest.raises(Undecided) as error:
                await fetcher.endorse(MILAN.report())
    finally:
        service.hold.set()
    assert "Timeout" in error.value.text
    assert len(taken) == patience.ATTEMPTS - 1


async def test_nobody_there_ends_undecided(tmp_path: Path) -> None:
    with serving(MILAN) as (_, url):
        pass
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Undecided):
            await fetcher.endorse(MILAN.report())


@pytest.mark.parametrize(("absent", "enough"), [("vlek", True), ("vcek", False)])
async def test_only_the_crl_of_the_other_kind_may_not_exist(
    kds: tuple[Service, str], tmp_path: Path, absent: str, enough: bool
) -> None:
    service, url = kds
    service.faults[f"/{absent}/v1/Milan/crl"] = [(404, {}, b"")]
    async with connected(tmp_path, url) as (fetcher, _):
        if enough:
            files = [file.read_bytes() for file in await fetcher.endorse(MILAN.report())]
            assert judge(MILAN, endorsements=files).verdict == "affirming"
        else:
            with pytest.raises(Undecided, match=r"collateral\.not_found"):
                await fetcher.endorse(MILAN.report())


WRONG = {
    "other-chip": lambda: MILAN.leaf(extensions=MILAN.extensions(hwid=b"\7" * 64)),
    "other-tcb": lambda: MILAN.leaf(extensions=MILAN.extensions(tcb={**MILAN.tcb, "ucode": 1})),
    "other-key": lambda: MILAN.leaf(public_key=ec_key("other").public_key()),
    "expired": lambda: MILAN.leaf(not_after=NOW - timedelta(days=1)),
    "a-crl": lambda: MILAN.crl(),
    "html": lambda: b"<html>busy</html>",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_certificate_is_never_kept(kds: tuple[Service, str], tmp_path: Path, name: str) -> None:
    service, url = kds
    service.vcek = WRONG[name]
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Refused):
            await fetcher.endorse(MILAN.report())
    assert not [name for name in kept(tmp_path) if name.startswith("vcek_")]


OTHER = Forge.of("Genoa")
STALE = MILAN.crl(next_update=NOW - timedelta(days=1))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/vcek/v1/Milan/cert_chain", OTHER.intermediate() + OTHER.ark()),
        ("/vcek/v1/Milan/cert_chain", pem(OTHER.intermediate()) + pem(OTHER.ark())),
        ("/vcek/v1/Milan/cert_chain", pem(MILAN.intermediate())),
        ("/vcek/v1/Milan/cert_chain", pem(MILAN.intermediate()) + pem(MILAN.ark()) + pem(MILAN.leaf())),
        ("/vcek/v1/Milan/crl", pem(MILAN.crl(), "X509 CRL") + pem(STALE, "X509 CRL")),
        (
            "/vcek/v1/Milan/cert_chain",
            pem(MILAN.intermediate(signing_key=rsa_key("other"))) + pem(MILAN.ark()),
        ),
        ("/vcek/v1/Milan/cert_chain", pem(MILAN.intermediate()) + pem(MILAN.ark(serial=7))),
        ("/vcek/v1/Milan/crl", OTHER.crl()),
        ("/vcek/v1/Milan/crl", MILAN.crl(signing_key=rsa_key("other"))),
        ("/vcek/v1/Milan/crl", STALE),
        ("/vlek/v1/Milan/crl", MILAN.leaf()),
    ],
)
async def test_a_wrong_chain_or_crl_is_never_kept(
    kds: tuple[Service, str], tmp_path: Path, path: str, body: bytes
) -> None:
    service, url = kds
    service.faults[path] = [(200, {}, body)]
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Refused) as error:
            await fetcher.endorse(MILAN.report())
        assert error.value.code == "collateral.wrong_answer"
        files = await fetcher.endorse(MILAN.report())
    assert judge(MILAN, endorsements=[file.read_bytes() for file in files]).verdict == "affirming"


async def test_a_reissued_certificate_replaces_one_that_ended(
    kds: tuple[Service, str], tmp_path: Path
) -> None:
    service, url = kds
    short = MILAN.leaf(not_after=NOW + timedelta(days=1))
    service.vcek = lambda: short
    async with connected(tmp_path, url) as (fetcher, _):
        (file,) = [file for file in await fetcher.endorse(MILAN.report()) if file.name.startswith("vcek_")]
        assert file.read_bytes() == short
        service.vcek = MILAN.leaf
        fetcher.service.clock = lambda: (NOW + timedelta(days=2)).timestamp()
        await fetcher.endorse(MILAN.report())
    assert file.read_bytes() == MILAN.leaf()


async def test_a_simulated_root_is_believed_only_where_it_is_listed(
    kds: tuple[Service, str], tmp_path: Path
) -> None:
    async with connected(tmp_path, kds[1]) as (fetcher, _):
        fetcher.expectations = None
        with pytest.raises(Refused) as error:
            await fetcher.endorse(MILAN.report())
    assert "root_unpinned" in error.value.text


def of_today(service: Service, folder: Path) -> list[str]:
    """What fetches with the wall clock, so under a vendor of today; but where it is kept."""
    today = Forge.of("Milan", at=datetime.now(UTC).replace(microsecond=0))
    service.forge, service.vcek = today, today.leaf
    (folder / "report.bin").write_bytes(today.report())
    (folder / "expected.toml").write_text(snp_toml() + today.root_toml())
    return ["fetch", str(folder / "report.bin"), "--expect", str(folder / "expected.toml")]


def test_a_folder_that_cannot_be_written_is_2(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    (tmp_path / "taken").write_text("a file")
    for out in ("taken", "taken/inside", "a" * 300):
        with pytest.raises(ConfigurationError) as error:
            main([*of_today(service, tmp_path), "--from", url, "--out", str(tmp_path / out)])
        assert error.value.code == "collateral.folder"
        assert out in error.value.text


@pytest.mark.parametrize(
    "address", ["", "mirror", "ftp://mirror", "http://[bad", "http://mirror:99999", "http://", "http://a\x7f"]
)
def test_an_address_that_is_none_is_2(address: str, tmp_path: Path) -> None:
    (tmp_path / "report.bin").write_bytes(MILAN.report())
    with pytest.raises(ConfigurationError, match="is no address; write https://"):
        main(["fetch", str(tmp_path / "report.bin"), "--out", str(tmp_path / "out"), "--from", address])
    assert not (tmp_path / "out").exists()


def test_the_command_fetches_a_bundle_that_verifies_offline(kds: tuple[Service, str], tmp_path: Path) -> None:
    service, url = kds
    _, *evidence = of_today(service, tmp_path)
    kept = str(tmp_path / "b")
    assert main(["fetch", *evidence, "--from", url, "--out", kept]) == 0
    at = format_time(service.forge.at)
    assert main(["verify", "--tee", "snp", *evidence, "--endorsements", kept, "--at", at]) == 0
