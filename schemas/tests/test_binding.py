from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import Refused
from schemas.proof import binding
from schemas.proof.binding import ChallengePath, ChallengeTree, NodeIdentity

IDENTITY = NodeIdentity("fed", "a.example", "n1", "b1", 7, b"spki", b"seal")
ROOT, CONFIG, DEVICES = b"\1" * 32, b"\2" * 32, bytes(32)


def report(
    identity: NodeIdentity = IDENTITY, root: bytes = ROOT, config: bytes = CONFIG, devices: bytes = DEVICES
) -> bytes:
    return binding.report_data(
        identity, challenge_root=root, node_config_digest=config, device_evidence_digest=devices
    )


CHANGES: dict[str, Callable[[], bytes]] = {
    "federation": lambda: report(replace(IDENTITY, federation="other")),
    "domain": lambda: report(replace(IDENTITY, domain="b.example")),
    "node": lambda: report(replace(IDENTITY, node_id="n2")),
    "boot": lambda: report(replace(IDENTITY, boot_id="b2")),
    "epoch": lambda: report(replace(IDENTITY, key_epoch=8)),
    "sign key": lambda: report(replace(IDENTITY, sign_spki=b"spkj")),
    "seal key": lambda: report(replace(IDENTITY, seal_key=b"seam")),
    "challenges": lambda: report(root=b"\7" * 32),
    "configuration": lambda: report(config=b"\7" * 32),
    "devices": lambda: report(devices=b"\7" * 32),
    "a byte moved between neighbours": lambda: report(replace(IDENTITY, node_id="n1b", boot_id="1")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_input_changes_what_the_hardware_signs(name: str) -> None:
    assert CHANGES[name]() != report()


def test_frozen_known_answers() -> None:
    """Computed with hashlib from the text of the specification; old evidence depends on them."""
    assert report().hex() == (
        "10681d3e519809061ee7f803b98cbf8e2d07e0845ccbe9f896e7bb2d7c9d4dde"
        "1657bb5ea9c341ebf0b6541a7423f78f53dd04de27e0b0c1ab41a3aec2e7402f"
    )
    device = binding.device_nonce(IDENTITY, device_challenge_root=ROOT)
    assert device.hex() == "1fd65f849073ef268c0cc1b0732e07069105bd0f3fe68bab7b43f65048cab8f3"
    leaf = binding.challenge_leaf("a.example", b"\5" * 32)
    assert leaf.hex() == "52a8e0b976e27b40fb0b2a8b454ba6144786a24f31a9d69840f8f0d577e55b63"


@pytest.mark.parametrize("change", ["federation", "domain", "node_id", "boot_id", "sign_spki"])
def test_each_input_changes_a_devices_challenge(change: str) -> None:
    value = b"other" if change == "sign_spki" else "other"
    other = replace(IDENTITY, **{change: value})  # type: ignore[arg-type]
    same = binding.device_nonce(IDENTITY, device_challenge_root=ROOT)
    assert binding.device_nonce(other, device_challenge_root=ROOT) != same
    assert binding.device_nonce(IDENTITY, device_challenge_root=CONFIG) != same


DOMAINS = st.from_regex(r"[a-z]{1,3}\.[a-z]{2}", fullmatch=True)
CHALLENGES = st.dictionaries(DOMAINS, st.binary(min_size=32, max_size=32), min_size=1, max_size=20)


@given(CHALLENGES)
def test_one_quote_answers_every_challenge(challenges: dict[str, bytes]) -> None:
    tree = ChallengeTree.over(challenges)
    for domain, challenge in challenges.items():
        path = tree.paths[domain]
        assert binding.verify_challenge(domain, challenge, path, tree.root) == tree.root
        with pytest.raises(Refused):
            binding.verify_challenge(domain, challenge[::-1] + b"\0", path, tree.root)
        with pytest.raises(Refused):
            binding.verify_challenge("other.example", challenge, path, tree.root)


@given(CHALLENGES, st.binary(min_size=32, max_size=32))
def test_a_new_challenge_is_a_new_root(challenges: dict[str, bytes], fresh: bytes) -> None:
    domain = min(challenges)
    changed = challenges | {domain: fresh}
    same = ChallengeTree.over(challenges).root == ChallengeTree.over(changed).root
    assert same == (challenges == changed)


def test_a_peer_with_anothers_challenge_stands_apart() -> None:
    """Two domains that publish the same bytes still have leaves of their own."""
    tree = ChallengeTree.over({"a.example": ROOT, "b.example": ROOT})
    with pytest.raises(Refused, match=r"merkle\.inclusion"):
        binding.verify_challenge("a.example", ROOT, tree.paths["b.example"], tree.root)


def test_the_tree_is_bounded() -> None:
    with pytest.raises(Refused, match=r"binding\.challenge_count"):
        ChallengeTree.over({})
    many = {f"d{at}.example": bytes(32) for at in range(binding.MAX_CHALLENGES + 1)}
    with pytest.raises(Refused, match=r"binding\.challenge_count"):
        ChallengeTree.over(many)
    with pytest.raises(Refused, match=r"binding\.challenge_length"):
        ChallengeTree.over({"a.example": b"short"})


def test_a_path_of_the_wrong_shape_is_refused() -> None:
    tree = ChallengeTree.over({"a.example": ROOT})
    with pytest.raises(Refused, match=r"merkle\.proof_length"):
        binding.verify_challenge("a.example", ROOT, ChallengePath(0, 1, (ROOT,)), tree.root)
    with pytest.raises(Refused, match=r"merkle\.index"):
        binding.verify_challenge("a.example", ROOT, ChallengePath(0, 0, ()), tree.root)
