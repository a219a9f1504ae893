"""The menu of model families on the page Compare: those that can be chosen, and what the others lack."""

from __future__ import annotations

from html import escape

from service.generation.families import FamilyOffer
from service.services import Services

CHEVRON = (
    '<svg viewBox="0 0 16 16" width="14" height="14" aria-hidden="true"><path d="M3 6l5 5 5-5" fill="none" '
    'stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round"/></svg>'
)


def address(services: Services, family: str) -> str:
    """The page of `family`, from any page of the app; the one that the app opened with has the first."""
    return "./" if family == first_name(services) else f"./{family}"


def first_name(services: Services) -> str:
    """The family whose page has no name in its address."""
    return services.first or services.family.name


def results_address(services: Services, family: str) -> str:
    """The results of `family`, likewise."""
    return "./results" if family == first_name(services) else f"./{family}-results"


def results_links(services: Services) -> str:
    """The row of families on the page Results; nothing where there is one only."""
    ready = [offer.family for offer in services.offers if not offer.missing]
    if len(ready) < 2:
        return ""
    links = "".join(
        f'<a href="{results_address(services, family.name)}"'
        f"{' aria-current=page' if family.name == services.family.name else ''}>{escape(family.label)}</a>"
        for family in ready
    )
    return f'<nav class="npo-family-row" aria-label="Model family">{links}</nav>'


def menu(services: Services) -> str:
    """The menu; nothing where there is no choice."""
    if not services.offers:
        return ""
    ready = [offer for offer in services.offers if not offer.missing]
    absent = [offer for offer in services.offers if offer.missing]
    lines = [_ready(services, offer) for offer in ready] + [_absent(offer) for offer in absent]
    return (
        '<details class="npo-families" id="npo-families"><summary aria-label="Model family">'
        f'<span class="npo-row-label">Model</span><strong>{escape(services.family.label)}</strong>{CHEVRON}'
        f'<span class="npo-family-count">{len(ready)} of {len(services.offers)} on this machine</span></summary>'
        f"<ul>{''.join(lines)}</ul></details>"
    )


def _ready(services: Services, offer: FamilyOffer) -> str:
    family = offer.family
    if family.name == services.family.name:
        action = '<span class="npo-badge npo-badge-best">in use</span>'
    else:
        action = f'<a class="npo-button" href="{address(services, family.name)}">Compare with it</a>'
    return (
        f'<li><div><strong>{escape(family.label)}</strong> <span class="npo-small">{escape(family.name)}</span>'
        f"<p>{escape(family.description)}</p></div>{action}</li>"
    )


def _absent(offer: FamilyOffer) -> str:
    family = offer.family
    needs = "".join(f"<li>{escape(what)}</li>" for what in offer.missing)
    return (
        f'<li class="npo-absent"><details><summary><div><strong>{escape(family.label)}</strong> '
        f'<span class="npo-small">{escape(family.name)}</span><p>{escape(family.description)}</p></div>'
        f'<span class="npo-needs">not on this machine {CHEVRON}</span></summary>'
        f'<p class="npo-small">It needs:</p><ul>{needs}</ul>'
        f'<p class="npo-small">Fetch it, then restart the app:</p><code>{escape(offer.command)}</code></details></li>'
    )
