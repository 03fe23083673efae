"""The forms in which a quote arrives: bare, from the kernel, in a guest's answer, with an Azure vTPM's quote.

The form is decided from the bytes alone; what fits none is refused rather than tried. What stands beside a
quote is believed in nothing before the quote vouches for it.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from attestation.snp.azure import PCRS, TDX_REPORT, AzureParts, read_hcl
from attestation.tdx.log.events import MAX_LOG_BYTES
from attestation.tdx.quote import MAX_QUOTE_BYTES
from schemas.canonical import Json, Wire, read_json, write_json
from schemas.errors import Unreadable
from schemas.primitives import Bytes64, Digest

MAX_FORM_BYTES: Final = 2 * (MAX_QUOTE_BYTES + 2 * MAX_LOG_BYTES)  # a quote and its logs in hex
PROVIDER: Final = "tdx_guest"
_NO_BREAKS: Final = {ord("\r"): None, ord("\n"): None}
_OPENING: Final = (b"{", b" ", b"\n", b"\r", b"\t")  # of JSON; a quote opens with its version
FOLDER_FILES: Final = (
    "provider", "outblob", "quote.bin", "ccel.bin", "event_log.json", "hcl_report.bin", "runtime_data.json",
    "tpm_quote.bin", "tpm_quote_signature.bin", "tpm_pcrs.json",
)  # fmt: skip
"""What `from_folder` looks at."""


class QuoteForm(NamedTuple):
    """What one input holds."""

    form: str
    quote: bytes
    event_logs: tuple[bytes, ...] = ()
    azure: AzureParts | None = None


class TsmQuote(Wire):
    """What Linux's configfs-tsm gave for one request, as JSON."""

    form: Literal["configfs-tsm"] = "configfs-tsm"
    provider: str
    outblob: Bytes64


class AzureQuote(Wire):
    """A quote of an Azure trust domain with the vTPM's, as JSON. The quote's report data names the vTPM."""

    form: Literal["azure-tdx"] = "azure-tdx"
    td_quote: Bytes64
    hcl_report: Bytes64 | None = None
    runtime_data: Bytes64 | None = None
    """The JSON alone, where the HCL blob was not kept."""
    quote: Bytes64 | None = None
    """Of the vTPM."""
    quote_signature: Bytes64 | None = None
    pcrs: Annotated[list[Digest], Field(min_length=PCRS, max_length=PCRS)] | None = None


def unwrap(data: bytes) -> QuoteForm:
    """Find the quote in any supported form. Raises `Unreadable` (`tdx.form_malformed`).

    A bare quote is not read here.
    """
    if data[:1] not in _OPENING:
        return QuoteForm("raw", data)
    try:
        return _wrapped(data)
    except Unreadable as error:
        raise _malformed(error.text) from None


def _wrapped(data: bytes) -> QuoteForm:
    stated: Any = read_json(data, limit=MAX_FORM_BYTES)
    match stated:
        case {"form": "azure-tdx"}:
            return _azure(AzureQuote.read(data, limit=MAX_FORM_BYTES))
        case {"form": "configfs-tsm"} | {"outblob": _}:
            tsm = TsmQuote.read(data, limit=MAX_FORM_BYTES)
            return _tsm(tsm.provider, tsm.outblob)
    answer = _answer(stated)
    if answer is None:
        raise _malformed("JSON that holds no quote in a known form")
    text, beside = answer
    return QuoteForm("answer", _digits(text), _logs(beside))


def _answer(stated: Any) -> tuple[str, Mapping[str, Json]] | None:
    """The quote in a guest's answer, and what stands beside it.

    Some clients put both one level down, under the name of the TEE.
    """
    match stated:
        case {"quote": str(text)} | {"intel_quote": str(text)}:
            return text, stated
        case {"tdx": {"quote": str(text)} as inside} | {"sgx": {"quote": str(text)} as inside}:
            return text, inside
    return None


def is_wrapped(data: bytes) -> bool:
    """Whether this is JSON that holds a quote in a form of this room."""
    if data[:1] not in _OPENING:
        return False
    try:
        stated = read_json(data, limit=MAX_FORM_BYTES)
    except Unreadable:
        return False
    match stated:
        case {"outblob": _, "provider": str(provider)}:
            return provider.strip() == PROVIDER
        case {"form": form}:
            return form == "azure-tdx"
    return _answer(stated) is not None


def from_folder(files: Mapping[str, bytes]) -> QuoteForm:
    """The quote in a folder, by known names. Raises `Unreadable`.

    configfs-tsm: provider, outblob. Else quote.bin; from Azure with hcl_report.bin or runtime_data.json,
    tpm_quote.bin, tpm_quote_signature.bin, tpm_pcrs.json. Event logs: ccel.bin, event_log.json.
    """
    logs = tuple(files[name] for name in ("ccel.bin", "event_log.json") if name in files)
    if "outblob" in files:
        provider = files.get("provider", b"")[: 2 * len(PROVIDER)].decode("ascii", "replace")
        return QuoteForm("configfs-tsm", _tsm(provider, files["outblob"]).quote, logs)
    if "quote.bin" not in files:
        raise _malformed("the folder holds neither outblob nor quote.bin")
    if not {"hcl_report.bin", "runtime_data.json"} & files.keys():
        return QuoteForm("raw", files["quote.bin"], logs)
    pcrs: Json = read_json(files["tpm_pcrs.json"]) if "tpm_pcrs.json" in files else None
    stated = {
        "td_quote": files["quote.bin"],
        "hcl_report": files.get("hcl_report.bin"),
        "runtime_data": files.get("runtime_data.json") if "hcl_report.bin" not in files else None,
        "quote": files.get("tpm_quote.bin"),
        "quote_signature": files.get("tpm_quote_signature.bin"),
    }
    bundle = AzureQuote(**stated, pcrs=_values(pcrs))  # type: ignore[arg-type]
    return QuoteForm("azure-tdx", bundle.td_quote, logs, _azure(bundle).azure)


def _tsm(provider: str, outblob: bytes) -> QuoteForm:
    """configfs-tsm's outblob of a TDX guest is the quote (Linux ABI configfs-tsm)."""
    if provider.strip() != PROVIDER:
        raise _malformed(f"the provider is {provider.strip()[:64]!r}")
    return QuoteForm("configfs-tsm", outblob)


def _azure(bundle: AzureQuote) -> QuoteForm:
    if (bundle.hcl_report is None) == (bundle.runtime_data is None):
        raise _malformed("either hcl_report or runtime_data")
    if (bundle.quote is None) != (bundle.quote_signature is None):
        raise _malformed("a vTPM's quote and its signature come together")
    parts = (
        read_hcl(bundle.hcl_report, TDX_REPORT)[1]
        if bundle.hcl_report is not None
        else AzureParts(bundle.runtime_data or b"")
    )
    pcrs = tuple(bytes.fromhex(value) for value in bundle.pcrs) if bundle.pcrs else None
    whole = AzureParts(parts.runtime_data, parts.hash_type, bundle.quote, bundle.quote_signature, pcrs)
    return QuoteForm("azure-tdx", bundle.td_quote, (), whole)


def _values(stated: Json) -> list[str] | None:
    if stated is None:
        return None
    if isinstance(stated, list) and len(stated) == PCRS:
        texts = [each for each in stated if isinstance(each, str) and len(each) == 64]
        if len(texts) == PCRS and all(set(each) <= set("0123456789abcdef") for each in texts):
            return texts
    raise _malformed(f"tpm_pcrs.json is a list of {PCRS} values in hex")


def _logs(stated: Mapping[str, Json]) -> tuple[bytes, ...]:
    """The logs in a guest's answer: dstack's as JSON or as its text, either kind in base64."""
    found: list[bytes] = []
    match stated.get("event_log"):
        case str(text) if text:
            found.append(text.encode() if text.lstrip()[:1] in ("[", "{") else _digits(text))
        case list() as events:
            found.append(write_json(events))
    match stated.get("cc_eventlog"):
        case str(text) if text:
            found.append(_digits(text))
    return tuple(found)


def _digits(text: str) -> bytes:
    """Hex, or base64 in either alphabet, with or without padding or line breaks."""
    text = text.translate(_NO_BREAKS)
    plain = text.removeprefix("0x")
    try:
        return bytes.fromhex(plain)
    except ValueError:
        pass
    try:
        return b64decode(text + "=" * (-len(text) % 4), altchars=b"-_" if set("-_") & set(text) else None,
                         validate=True)  # fmt: skip
    except ValueError:
        raise _malformed("a member that is neither hex nor base64") from None


def _malformed(why: str) -> Unreadable:
    return Unreadable("tdx.form_malformed", why)
