"""Fetching Intel's collateral: from a service or a proxy that works, and from one that does not."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from attestation.collateral import intel
from attestation.collateral import service as patience
from attestation.collateral.intel import INTEL, INTEL_ROOT_CRL, Provisioning, Wanted
from attestation.collateral.pieces import MARKS, Pieces
from attestation.collateral.tests.pcs import Provisioner, provisioning
from attestation.commands import main
from attestation.tdx.collateral.rollback import read_marks
from attestation.tdx.origin.chain import INTEL_ROOTS, Roots
from attestation.tdx.tests.judging import GOOD, SGX, TD15, but, judge, toml
from attestation.testing.intel import PLATFORM_CN, ROOT_CN, IntelForge, crl, days, pem
from attestation.testing.intel_documents import NOW, evaluation, text
from schemas.canonical import sha256
from schemas.errors import ConfigurationError, Refused, Undecided

NEWER = but(
    info={"tcbEvaluationDataNumber": 20, "issueDate": text(days(-1))},
    identity={"tcbEvaluationDataNumber": 20, "issueDate": text(days(-1))},
)


@pytest.fixture
def pcs() -> Iterator[tuple[Provisioner, str]]:
    with provisioning(GOOD) as running:
        yield running


@asynccontextmanager
async def connected(
    folder: Path, url: str, forge: IntelForge = GOOD, **wanted: Any
) -> AsyncIterator[tuple[Provisioning, list[float]]]:
    """The fetcher at the moment where the evidence is good, with the pauses that it took."""
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    roots = Roots.intel([("forge", forge.root_digest)])
    async with httpx.AsyncClient(trust_env=False) as client:
        service = patience.Service(client, url, sleep=sleep, clock=NOW.timestamp)
        yield Provisioning(Pieces(folder), service, roots, Wanted(**wanted)), pauses


def offered(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(folder.iterdir())]


def evaluations(folder: Path) -> set[int]:
    return {mark.evaluation for mark in read_marks((folder / MARKS).read_bytes()).values()}


@pytest.mark.parametrize("proxy", [False, True], ids=["service", "proxy"])
@pytest.mark.parametrize("forge", [GOOD, TD15, SGX], ids=["td10", "td15", "sgx"])
async def test_a_bundle_for_offline_use(forge: IntelForge, proxy: bool, tmp_path: Path) -> None:
    with provisioning(forge, proxy=proxy) as (_, url):
        async with connected(tmp_path, url, forge) as (fetcher, pauses):
            files = await fetcher.endorse(forge.quote())
    assert pauses == []
    assert judge(forge, endorsements=offered(tmp_path)).verdict == "affirming"
    assert judge(forge, endorsements=[file.read_bytes() for file in files]).verdict == "affirming"


async def test_every_piece_is_named_by_its_content(pcs: tuple[Provisioner, str], tmp_path: Path) -> None:
    async with connected(tmp_path, pcs[1]) as (fetcher, _):
        files = await fetcher.endorse(GOOD.quote())
    assert {file.stem for file in files} == {sha256(file.read_bytes()).hex() for file in files}
    info, identity, root_crl, pck_crl, *_ = GOOD.pieces()
    wanted = {info, identity, root_crl, pck_crl, GOOD.signer.der(), GOOD.root.der()}
    assert {file.read_bytes() for file in files} == wanted


async def test_what_is_kept_is_not_asked_for_again(pcs: tuple[Provisioner, str], tmp_path: Path) -> None:
    service, url = pcs
    async with connected(tmp_path, url) as (fetcher, _):
        first = await fetcher.endorse(GOOD.quote())
        count = len(service.asked)
        assert await fetcher.endorse(GOOD.quote()) == first
        assert len(service.asked) == count


async def test_a_damaged_piece_is_fetched_anew(pcs: tuple[Provisioner, str], tmp_path: Path) -> None:
    async with connected(tmp_path, pcs[1]) as (fetcher, _):
        for file in await fetcher.endorse(GOOD.quote()):
            file.write_bytes(b"")
        files = await fetcher.endorse(GOOD.quote())
    assert judge(GOOD, endorsements=[file.read_bytes() for file in files]).verdict == "affirming"


def _tomorrow(folder: Path) -> float:
    """A day after the files were written, which is long after the forge's present."""
    return max(file.stat().st_mtime for file in folder.iterdir()) + intel.RENEWED_AFTER + 1


async def test_after_a_day_it_is_renewed_and_the_older_piece_goes(tmp_path: Path) -> None:
    forge = but(
        info={"nextUpdate": "2049-01-01T00:00:00Z"}, identity={"nextUpdate": "2049-01-01T00:00:00Z"},
        root_crl=crl(ROOT_CN, "root", (), days(-1), days(9000)),
        pck_crl=crl(PLATFORM_CN, "ca", (), days(-1), days(9000)),
    )  # fmt: skip
    with provisioning(forge) as (service, url):
        async with connected(tmp_path, url) as (fetcher, _):
            before = await fetcher.endorse(forge.quote())
            service.forge = replace(
                forge, info={**forge.info, "tcbEvaluationDataNumber": 19},
                identity={**forge.identity, "tcbEvaluationDataNumber": 19},
            )  # fmt: skip
            later = _tomorrow(tmp_path)
            fetcher.service.clock = lambda: later
            after = await fetcher.endorse(forge.quote())
            service.faults["/"] = [(404, {}, b"")] * 99
            assert await fetcher.endorse(forge.quote()) == after, "still current, though nobody answers"
    assert evaluations(tmp_path) == {0, 19}
    assert not before[0].exists()
    assert after[0].exists()


async def test_intel_is_asked_at_its_two_hosts(tmp_path: Path) -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        parts = str(request.url).removeprefix(INTEL)
        where = "/IntelSGXRootCA.der" if parts == INTEL_ROOT_CRL else parts
        status, headers, body = Provisioner(GOOD).answer(where)
        return httpx.Response(status, headers=headers, content=body)

    roots = Roots.intel([("forge", GOOD.root_digest)])
    async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
        service = patience.Service(client, INTEL, clock=NOW.timestamp)
        await Provisioning(Pieces(tmp_path), service, roots).endorse(GOOD.quote())
    assert asked == [
        f"{INTEL}/tdx/certification/v4/tcb?fmspc=00806f050000&update=standard",
        f"{INTEL}/tdx/certification/v4/qe/identity?update=standard",
        f"{INTEL}/sgx/certification/v4/pckcrl?ca=platform&encoding=der",
        INTEL_ROOT_CRL,
        f"{INTEL}/tdx/certification/v4/tcbevaluationdatanumbers",
    ]


async def test_the_list_of_evaluation_numbers_is_fetched_and_kept(tmp_path: Path) -> None:
    with provisioning(GOOD, listed=GOOD.evaluations()) as (service, url):
        async with connected(tmp_path, url) as (fetcher, _):
            first = await fetcher.endorse(GOOD.quote())
            count = len(service.asked)
            assert await fetcher.endorse(GOOD.quote()) == first
            assert len(service.asked) == count
            (kept,) = [file for file in first if file.read_bytes() == GOOD.evaluations()]
            kept.write_bytes(b"{}")
            assert set(await fetcher.endorse(GOOD.quote())) == set(first)
    held = judge(GOOD, endorsements=offered(tmp_path), evaluation_channel='"standard"')
    assert held.verdict == "affirming"
    assert evaluations(tmp_path) == {0, 18, 20}


@pytest.mark.parametrize(
    "listed",
    [
        GOOD.evaluations(signer="other"),
        SGX.evaluations(),
        GOOD.evaluations(nextUpdate=text(days(-1))),
        GOOD.evaluations(version=2),
        b"{}",
    ],
)
async def test_a_bad_list_is_refused(listed: bytes, tmp_path: Path) -> None:
    with provisioning(GOOD, listed=listed) as (_, url):
        async with connected(tmp_path, url) as (fetcher, _):
            with pytest.raises(Refused, match="wrong_answer"):
                await fetcher.endorse(GOOD.quote())


async def test_an_older_list_is_not_taken_back(tmp_path: Path) -> None:
    with provisioning(GOOD, listed=GOOD.evaluations()) as (service, url):
        async with connected(tmp_path, url) as (fetcher, _):
            await fetcher.endorse(GOOD.quote())
            forget(tmp_path)
            service.listed = GOOD.evaluations(tcbEvalNumbers=[evaluation(19, "2025-05-13")])
            with pytest.raises(Refused, match="collateral_rollback"):
                await fetcher.endorse(GOOD.quote())


def forget(folder: Path) -> None:
    """Lose every piece, and keep the marks."""
    for file in folder.iterdir():
        if file.name != MARKS:
            file.unlink()


async def test_early_collateral_moves_the_marks_and_standard_is_then_a_rollback(
    pcs: tuple[Provisioner, str], tmp_path: Path
) -> None:
    service, url = pcs
    service.early = NEWER
    async with connected(tmp_path, url, update="early") as (fetcher, _):
        await fetcher.endorse(GOOD.quote())
    assert evaluations(tmp_path) == {0, 20}
    forget(tmp_path)
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Refused) as error:
            await fetcher.endorse(GOOD.quote())
    assert error.value.code == "tdx.collateral_rollback"
    assert "evaluation 18, 20 was seen" in error.value.text


async def test_a_number_that_is_asked_for_stands_beside_the_newest(
    pcs: tuple[Provisioner, str], tmp_path: Path
) -> None:
    service, url = pcs
    async with connected(tmp_path, url) as (fetcher, _):
        await fetcher.endorse(GOOD.quote())
    older = but(info={"tcbEvaluationDataNumber": 17}, identity={"tcbEvaluationDataNumber": 17})
    service.early = older
    async with connected(tmp_path, url, evaluation=17) as (fetcher, _):
        await fetcher.endorse(GOOD.quote())
    assert evaluations(tmp_path) == {0, 18}
    assert judge(GOOD, endorsements=offered(tmp_path), evaluation=17).verdict == "affirming"
    service.early = GOOD
    async with connected(tmp_path, url, evaluation=16) as (fetcher, _):
        with pytest.raises(Refused, match="evaluation 18"):
            await fetcher.endorse(GOOD.quote())


@pytest.mark.parametrize("kind", ["info", "identity"])
async def test_an_older_issue_of_the_same_evaluation_is_a_rollback(
    pcs: tuple[Provisioner, str], tmp_path: Path, kind: str
) -> None:
    service, url = pcs
    async with connected(tmp_path, url) as (fetcher, _):
        await fetcher.endorse(GOOD.quote())
        forget(tmp_path)
        older: dict[str, Any] = {kind: {"issueDate": text(days(-11))}}
        service.forge = but(**older)
        with pytest.raises(Refused) as error:
            await fetcher.endorse(GOOD.quote())
    assert error.value.code == "tdx.collateral_rollback"


async def test_an_older_crl_is_a_rollback(pcs: tuple[Provisioner, str], tmp_path: Path) -> None:
    service, url = pcs
    async with connected(tmp_path, url) as (fetcher, _):
        await fetcher.endorse(GOOD.quote())
        forget(tmp_path)
        service.forge = but(pck_crl=crl(PLATFORM_CN, "ca", (), days(-11), days(5)))
        with pytest.raises(Refused) as error:
            await fetcher.endorse(GOOD.quote())
    assert error.value.code == "tdx.collateral_rollback"


async def test_marks_that_cannot_be_read_are_never_taken_for_none(
    pcs: tuple[Provisioner, str], tmp_path: Path
) -> None:
    (tmp_path / MARKS).write_bytes(b"{}")
    async with connected(tmp_path, pcs[1]) as (fetcher, _):
        with pytest.raises(ConfigurationError, match=r"marks\.json"):
            await fetcher.endorse(GOOD.quote())


async def test_429_waits_as_long_as_it_is_told(pcs: tuple[Provisioner, str], tmp_path: Path) -> None:
    service, url = pcs
    service.faults["/tcb"] = [(429, {"Retry-After": "7"}, b""), (503, {}, b"")]
    async with connected(tmp_path, url) as (fetcher, pauses):
        await fetcher.endorse(GOOD.quote())
    assert pauses[0] == 7.0
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([(429, {}, b"")] * 9, "collateral.unavailable"),
        ([(500, {}, b"")] * 9, "collateral.unavailable"),
        ([(429, {"Retry-After": "3600"}, b"")], "collateral.unavailable"),
        ([(401, {}, b"")], "collateral.unavailable"),
        ([(404, {}, b"")], "collateral.not_found"),
        ([(410, {}, b"")], "collateral.unavailable"),
        ([(200, {}, bytes(patience.MAX_ANSWER_BYTES + 1))], "collateral.unavailable"),
    ],
    ids=["429", "500", "wait an hour", "401", "404", "gone", "too long"],
)
@pytest.mark.parametrize("path", ["/tcb", "/qe/identity", "/pckcrl"])
async def test_trouble_ends_undecided(
    pcs: tuple[Provisioner, str],
    tmp_path: Path,
    path: str,
    answers: list[tuple[int, dict[str, str], bytes]],
    code: str,
) -> None:
    service, url = pcs
    service.faults[path] = list(answers)
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Undecided) as error:
            await fetcher.endorse(GOOD.quote())
    assert error.value.code == code


async def test_a_mirror_without_the_roots_crl(pcs: tuple[Provisioner, str], tmp_path: Path) -> None:
    service, url = pcs
    service.faults["IntelSGXRootCA"] = [(404, {}, b"")]
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Undecided):
            await fetcher.endorse(GOOD.quote())


async def test_silence_ends_undecided(
    pcs: tuple[Provisioner, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, url = pcs
    service.hold = threading.Event()
    monkeypatch.setattr(patience, "TIMEOUT", 0.05)
    try:
        async with connected(tmp_path, url) as (fetcher, taken):
            with pytest.raises(Undecided, match="Timeout"):
                await fetcher.endorse(GOOD.quote())
    finally:
        service.hold.set()
    assert len(taken) == patience.ATTEMPTS - 1


INFO, IDENTITY, *_ = GOOD.pieces()
RIGHT = (*GOOD.pieces(), GOOD.signer.der(), GOOD.root.der())  # in another place
HEADERS = {"TCB-Info-Issuer-Chain": quote(pem(GOOD.signer.der(), GOOD.root.der()))}
OTHER_SIGNER = quote(pem(but(signer=replace(GOOD.signer, key="other")).signer.der(), GOOD.root.der()))
OTHER_ROOT = quote(pem(GOOD.signer.der(), but(root=replace(GOOD.root, serial=9)).root.der()))
WRONG = {
    "html": ("/tcb", HEADERS, b"<html>busy</html>"),
    "nothing": ("/tcb", HEADERS, b""),
    "an identity": ("/tcb", HEADERS, IDENTITY),
    "edited": ("/tcb", HEADERS, INFO.replace(b"UpToDate", b"UpToDatE")),
    "no chain": ("/tcb", {}, INFO),
    "chain that is none": ("/tcb", {"TCB-Info-Issuer-Chain": "x"}, INFO),
    "another signer": ("/tcb", {"TCB-Info-Issuer-Chain": OTHER_SIGNER}, INFO),
    "another root": ("/tcb", {"TCB-Info-Issuer-Chain": OTHER_ROOT}, INFO),
    "another platform": ("/tcb", HEADERS, but(info={"fmspc": "00806F050001"}).pieces()[0]),
    "expired": ("/tcb", HEADERS, but(info={"nextUpdate": text(days(-1))}).pieces()[0]),
    "from the future": ("/tcb", HEADERS, but(info={"issueDate": text(days(1))}).pieces()[0]),
    "a certificate": ("/pckcrl", {}, GOOD.root.der()),
    "another CRL": ("/pckcrl", {}, crl(ROOT_CN, "root")),
    "CRL of another key": ("/pckcrl", {}, crl(PLATFORM_CN, "other")),
    "stale CRL": ("/pckcrl", {}, crl(PLATFORM_CN, "ca", (), days(-40), days(-10))),
    "no CRL": ("/pckcrl", {}, b"zz"),
    "wrong root CRL": ("IntelSGXRootCA", {}, crl(PLATFORM_CN, "ca")),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_answer_is_never_kept(pcs: tuple[Provisioner, str], tmp_path: Path, name: str) -> None:
    service, url = pcs
    path, headers, body = WRONG[name]
    service.faults[path] = [(200, headers, body)]
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Refused) as error:
            await fetcher.endorse(GOOD.quote())
        assert error.value.code == "collateral.wrong_answer"
        assert body in RIGHT or body not in offered(tmp_path)
        files = await fetcher.endorse(GOOD.quote())
    assert judge(GOOD, endorsements=[file.read_bytes() for file in files]).verdict == "affirming"


async def test_nobody_is_asked_about_a_quote_that_does_not_hold(
    pcs: tuple[Provisioner, str], tmp_path: Path
) -> None:
    service, url = pcs
    damaged = bytearray(GOOD.quote())
    damaged[200] ^= 1
    async with connected(tmp_path, url) as (fetcher, _):
        with pytest.raises(Refused, match="quote_signature_invalid"):
            await fetcher.endorse(bytes(damaged))
        with pytest.raises(Undecided, match="cert_data_type_unsupported"):
            await fetcher.endorse(but(certification=(7, b"manifest")).quote())
        unpinned = replace(fetcher, roots=INTEL_ROOTS)
        with pytest.raises(Refused, match="root_not_pinned"):
            await unpinned.endorse(GOOD.quote())
    assert service.asked == []


def test_a_verifier_with_marks_refuses_what_is_older(tmp_path: Path) -> None:
    marks = read_marks(
        b'{"marks":{"tdx/00806f050000":{"evaluation":19,"issued":"2026-01-01T00:00:00Z","sha256":"'
        + b"0" * 64 + b'"}}}'
    )  # fmt: skip
    found = judge(GOOD, marks=marks)
    assert (found.verdict, found.reason) == ("contraindicated", "tdx.collateral_rollback")
    assert judge(NEWER, marks=marks).verdict == "affirming"
    missing = judge(GOOD, endorsements=[], marks=marks)
    assert missing.check("tdx.collateral.rollback").status == "not_evaluated"


def test_the_command_fetches_a_bundle_that_verifies_offline(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the wall clock: so under documents of today."""
    now = datetime.now(UTC).replace(microsecond=0)
    since, until = now - timedelta(days=1), now + timedelta(days=20)
    dates: dict[str, Any] = {"issueDate": text(since), "nextUpdate": text(until)}
    today = but(
        info=dates, identity=dates, root_crl=crl(ROOT_CN, "root", (), since, until),
        pck_crl=crl(PLATFORM_CN, "ca", (), since, until),
    )  # fmt: skip
    evidence, wanted, bundle = tmp_path / "quote.bin", tmp_path / "expected.toml", tmp_path / "bundle"
    evidence.write_bytes(today.quote())
    wanted.write_text(toml(today))
    with provisioning(today) as (_, url):
        fetched = main(["fetch", str(evidence), "--out", str(bundle), "--from", url, "--expect", str(wanted)])
    assert fetched == 0
    verify = ["verify", "--tee", "tdx", str(evidence), "--endorsements", str(bundle), "--expect", str(wanted)]
    assert main([*verify, "--marks", str(bundle / MARKS)]) == 0
    higher = json.loads((bundle / MARKS).read_bytes())
    higher["marks"]["tdx/00806f050000"]["evaluation"] = 19
    (tmp_path / "higher.json").write_text(json.dumps(higher))
    capsys.readouterr()
    assert main([*verify, "--marks", str(tmp_path / "higher.json"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["reason"] == "tdx.collateral_rollback"
    with pytest.raises(ConfigurationError):
        main([*verify, "--marks", str(bundle / MARKS), "--at", "2026-03-01T12:00:00Z"])
