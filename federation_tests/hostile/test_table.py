"""The suite is complete, and the page about it says what the suite says."""

from __future__ import annotations

from collections import Counter

from federation_tests.hostile.table import PAGE, marked, page

CONTRACT = {
    "a border": (
        "replays an Execute",
        "swaps the node key in an offer",
        "offers another domain's genuine node",
        "alters model, scope or retention around the ciphertext",
        "truncates, reorders or pads a stream",
        "withholds the receipt",
        "answers from cache",
        "serves evidence of an earlier epoch",
        "serves evidence of a killed boot",
    ),
    "a provider": (
        "claims a higher assurance than it proves",
        "edits its own profile's jurisdiction",
        "enrols a platform twice",
        "signs an offer with a node or agent key",
    ),
    "a node": ("publishes to a peer", "reads a neighbour", "points at an engine outside"),
    "a consumer": ("floods calls without accepting", "sends a header signed by nobody the node knows"),
    "a bus operator": ("reads", "drops", "delays", "duplicates", "injects"),
}
"""Every lie of session.md 12."""
DEVICES = {
    "a node": (
        "shows a GPU that its domain has not enrolled",
        "shows another node's GPU",
        "shows an old report of its GPU",
        "leaves out its GPU's evidence",
    ),
}
"""How devices could be made to seem a node's (gpu.md 10)."""
AGREED = {
    "a border": ("bills for more than the node counted, or more than it offered",),
    "a consumer": (
        "orders more than it called for: tokens, a longer body, another one, longer keeping, "
        "another capability",
    ),
}
"""How an order, or a bill, could outgrow what was agreed (session.md 6)."""
ACKNOWLEDGED = {
    "a consumer": ("goes back on what it agreed to", "takes an answer and says nothing of it"),
}
"""How the last word could be turned or kept back (receipts.md 3.4, 19)."""

DEAF = {
    "a border": ("offers and withholds the evidence of its node",),
    "a consumer": ("sends what the client library of a border or an agent cannot read",),
}
"""How one could keep others from what does not concern it."""


def test_each_lie_of_the_contract_has_its_one_test() -> None:
    told = Counter((lie.party, lie.text) for lie, _ in marked())
    listed = (*CONTRACT.items(), *DEVICES.items(), *AGREED.items(), *ACKNOWLEDGED.items(), *DEAF.items())
    assert told == Counter((party, text) for party, lies in listed for text in lies)


def test_each_lie_ends_in_a_code_and_in_words() -> None:
    for lie, test in marked():
        assert lie.codes, test
        assert lie.by, test
        assert lie.receipt, test


def test_the_page_is_the_one_that_the_suite_generates() -> None:
    assert PAGE.read_text("utf-8") == page(), "run python -m federation_tests.hostile.table"
