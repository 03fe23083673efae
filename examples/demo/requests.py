"""Scenes 1 to 4: four questions of the hospital, and where each may be answered."""

from __future__ import annotations

from typing import Any

import openai

from examples.demo import show
from examples.demo.stage import CHAT, CLINIC, CLOUD, CODE, HYPER, Stage, expect

PUBLIC: dict[str, Any] = {"data_class": "public"}
PERSONAL: dict[str, Any] = {"data_class": "personal", "residency": ["EU"]}
HEALTH: dict[str, Any] = {"data_class": "special-category", "origin": "DE"}


async def public_question(stage: Stage) -> None:
    """1 public question → hyper.us wins on price"""
    prompt = "What does a hospital do?"
    show.request(stage.console, prompt, "data_class=public")
    explained = await stage.explain(PUBLIC)
    show.candidates(stage.console, explained, CHAT)
    answer = await stage.ask(prompt, PUBLIC)
    show.answered(stage.console, answer)
    prices = {plan["domain"]: int(plan["terms"]["money"]) for plan in explained["plans"]}
    expect(set(prices) == {CLINIC, CLOUD, HYPER}, "all three domains may serve it", explained)
    expect(min(prices, key=lambda name: prices[name]) == HYPER, "hyper.us is the cheapest", prices)
    expect(answer.domain == HYPER, "hyper.us answers", answer.comity)
    await stage.file(answer.receipt, "public question, hyper.us")
    show.holds(stage.console, "everyone may see it, so the cheapest answers: hyper.us")


async def personal_data(stage: Stage) -> None:
    """2 personal data, residency EU → cloud.fr, hyper.us rejected by name of the rule"""
    prompt = "Write a short letter that reminds Ms Weber of her appointment on Monday."
    show.request(stage.console, prompt, "data_class=personal residency=EU")
    explained = await stage.explain(PERSONAL)
    show.candidates(stage.console, explained, CHAT)
    answer = await stage.ask(prompt, PERSONAL)
    show.answered(stage.console, answer)
    rules = rejection(explained, HYPER)
    expect("RES-001-inside-residency" in rules, "hyper.us is rejected by RES-001-inside-residency", rules)
    expect(answer.domain == CLOUD, "cloud.fr answers", answer.comity)
    await stage.file(answer.receipt, "personal data, cloud.fr")
    show.holds(stage.console, "it stays in the EU: cloud.fr answers, hyper.us is rejected by RES-001")


async def health_data(stage: Stage) -> None:
    """3 health data of German origin → stays in clinic.de"""
    prompt = "A patient has chest pain since this morning. What should the nurse ask?"
    show.request(stage.console, prompt, "data_class=special-category origin=DE")
    explained = await stage.explain(HEALTH)
    show.candidates(stage.console, explained, CHAT)
    answer = await stage.ask(prompt, HEALTH)
    show.answered(stage.console, answer)
    for domain in (CLOUD, HYPER):
        rules = rejection(explained, domain)
        expect("DAT-001-special-category-stays-home" in rules, f"{domain} is rejected by DAT-001", rules)
    expect(answer.domain == CLINIC, "clinic.de answers itself", answer.comity)
    await stage.file(answer.receipt, "health data, clinic.de")
    show.holds(stage.console, "health data of German origin is processed in Germany: clinic.de itself")


async def nobody_may(stage: Stage) -> None:
    """4 health data + a model nobody in DE has → typed refusal, binding rules, smallest relaxation"""
    prompt = "Write code that finds this patient's next appointment."
    show.request(stage.console, prompt, f"model={CODE} data_class=special-category origin=DE")
    try:
        answer = await stage.ask(prompt, HEALTH, model=CODE)
    except openai.ConflictError as refused:
        error: dict[str, Any] = refused.response.json()["error"]
    else:
        expect(False, "a refusal", answer)
        return
    show.refusal(stage.console, error)
    comity = error["comity"]
    expect(error["code"] == "infeasible", "the code is infeasible", error)
    expect(bool(comity["binding"]), "the binding rules are named", comity)
    expect(comity["smallest_relaxation"] is not None, "the smallest relaxation is named", comity)
    domains = {entry["domain"] for entry in comity["rejected"]}
    expect(domains == {CLINIC, CLOUD, HYPER}, "every domain is named with its rules", comity["rejected"])
    show.holds(stage.console, "nobody may, so nobody does: 409 with the rules that bind")


def rejection(explained: dict[str, Any], domain: str, model: str = CHAT) -> list[str]:
    """The rules that reject a domain's offer of that class; none when it is allowed."""
    for plan in explained["rejected"]:
        if plan["domain"] == domain and f" {model}/" in plan["plan"]:
            return list(plan["rules"])
    return []
