from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schemas.policy.infeasible import Measured, policy_report, report
from schemas.policy.mask import Columns, Mask
from schemas.policy.packs import default_layers
from schemas.policy.tests.cases import asking, clinic, cloud, hyper

DOMAINS = ("a.example", "b.example", "c.example")


def flags(*values: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.array(values, bool)


def test_single_relaxations_come_first_then_pairs() -> None:
    found = report({"X": flags(1, 1, 1), "Y": flags(0, 1, 1), "Z": flags(0, 0, 1)}, DOMAINS)
    assert found.eliminated == {"X": 3, "Y": 2, "Z": 1}
    assert [(entry.rules, entry.candidates) for entry in found.relaxations] == [(("X",), 1)]
    assert found.binding == ("X",)
    pairs = report({"X": flags(1, 1, 0), "Y": flags(1, 0, 1), "Z": flags(0, 1, 1)}, DOMAINS)
    assert [entry.rules for entry in pairs.relaxations] == [("X", "Y"), ("X", "Z"), ("Y", "Z")]
    assert len(pairs.binding) == 2


def test_what_three_rules_exclude_is_still_explained() -> None:
    found = report({"X": flags(1), "Y": flags(1), "Z": flags(1)}, ["a.example"])
    assert [entry.rules for entry in found.relaxations] == [("X", "Y", "Z")]
    assert len(found.binding) == 1


def test_nothing_is_relaxed_where_somebody_is_left_or_nobody_was_there() -> None:
    assert report({"X": flags(1, 0, 1)}, DOMAINS).relaxations == ()
    assert report({"X": flags(1, 0, 1)}, DOMAINS).binding == ()
    nobody = report({}, [])
    assert (nobody.candidates, nobody.binding, nobody.relaxations) == (0, (), ())


def test_the_best_value_counts_only_candidates_that_nothing_else_excludes() -> None:
    measured = Measured("PRICE", 100, np.array([120, 110, 105]), "micro-units", "lower")
    found = report({"PRICE": flags(1, 1, 1), "PLACE": flags(0, 0, 1)}, DOMAINS, [measured])
    (best,) = found.achievable
    assert (best.asked, best.best, best.domain) == (100, 110, "b.example")


def test_the_demos_refusal_names_the_rules_and_the_smallest_relaxation() -> None:
    mask, three = Mask.of(default_layers()), [clinic(price=90), cloud(price=80), hyper(price=10)]
    request = asking(data_class="special-category", origin="DE", max_price=50)
    columns = Columns.of(three)
    masked = mask.apply(request, columns)
    found = policy_report(request, columns, masked, [s.domain.domain for s in three])
    assert found.relaxations[0].rules == ("OPS-001-within-price",)
    assert all(len(entry.rules) > 1 for entry in found.relaxations[1:])
    (price,) = [entry for entry in found.achievable if entry.rule == "OPS-001-within-price"]
    assert (price.best, price.domain, price.unit) == (90, "clinic.de", "micro-units")
    assert found.as_json()["candidates"] == 3


@given(st.lists(st.frozensets(st.sampled_from("ABCD"), min_size=1), min_size=1, max_size=6))
def test_relaxing_what_is_proposed_always_frees_that_many(sets: list[frozenset[str]]) -> None:
    denials = {rule: flags(*(rule in kind for kind in sets)) for rule in "ABCD"}
    found = report(denials, [f"d{index}.example" for index in range(len(sets))])
    for relaxation in found.relaxations:
        kept = [denied for rule, denied in denials.items() if rule not in relaxation.rules]
        free = ~np.logical_or.reduce(kept) if kept else np.ones(len(sets), bool)
        assert int(free.sum()) == relaxation.candidates > 0
    covered = np.logical_or.reduce([denials[rule] for rule in found.binding])
    assert covered.all()
    for rule in found.binding:
        others = [denials[other] for other in found.binding if other != rule]
        assert not others or not np.logical_or.reduce(others).all()
