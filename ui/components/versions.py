"""Which adapter versions are offered, chosen and in use; new ones appear without a restart."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from npo_core.catalog.adapter_files import ROLES, Role
from service.generation.adapters_in_use import NEWEST, AdapterShelf, AdapterVersion
from service.services import Services

REFRESH_S = 4.0
LABELS: dict[Role, str] = {"aligned": "Aligned model", "negative": "Negative model"}
INFO: dict[Role, str] = {
    "aligned": "Answers the prompt. Trained on what people prefer.",
    "negative": "Answers the negative prompt. Trained on what people reject.",
}


@dataclass(frozen=True)
class VersionPicker:
    """The two lists and the line that says what the pictures on the page were made with."""

    aligned: gr.Dropdown
    negative: gr.Dropdown
    line: gr.HTML
    seen: gr.State


def build_version_picker(services: Services, modality: gr.Radio) -> VersionPicker:
    """Draws what is in use and the lists to choose from, and keeps them fresh; `modality` says for what."""
    with gr.Column(elem_classes="npo-card npo-versions-card", elem_id="npo-versions"):
        line = gr.HTML(elem_id="npo-in-use")
        with gr.Accordion("Choose other versions", open=False, elem_classes="npo-advanced"), gr.Row():
            aligned, negative = (_list(services.shelf, role) for role in ROLES)
    seen = gr.State(None)
    timer = gr.Timer(REFRESH_S)
    gr.on(
        [timer.tick, modality.change],
        partial(refresh, services.shelf),
        [seen, modality],
        [aligned, negative, line, seen],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=8,
    )
    return VersionPicker(aligned, negative, line, seen)


def wire_shares(
    services: Services, page: gr.Blocks, picker: VersionPicker, modality: gr.Radio, shares: tuple[gr.Slider, gr.Slider]
) -> None:
    """Alpha and beta follow the negative version: what it was trained for, else the family's. What somebody set by hand
    stays as long as that is the same."""
    known = gr.State(None)

    def follow(choice: str, modality: str, known: tuple[float, float] | None) -> tuple[Any, ...]:
        now = services.shelf.shares(choice, modality)
        return (gr.skip(), gr.skip(), gr.skip()) if known is not None and tuple(known) == now else (*now, now)

    gr.on(
        [page.load, picker.negative.change, picker.seen.change],
        follow,
        [picker.negative, modality, known],
        [*shares, known],
        api_visibility="private",
        show_progress="hidden",
        concurrency_limit=8,
    )


def _list(shelf: AdapterShelf, role: Role) -> gr.Dropdown:
    return gr.Dropdown(
        choices(shelf.versions(role)),
        value=NEWEST,
        label=LABELS[role],
        info=INFO[role],
        elem_id=f"npo-version-{role}",
        min_width=240,
    )


def refresh(shelf: AdapterShelf, seen: list[str] | None, modality: str = "image") -> tuple[Any, ...]:
    """The lists when they changed since `seen` (the modality and the ids then), and a word about what is new."""
    offered = {role: shelf.versions(role, modality) for role in ROLES}
    now = [modality, *(version.id for role in ROLES for version in offered[role])]
    if now == seen:
        return (gr.skip(), gr.skip(), gr.skip(), gr.skip())
    switched = seen is not None and seen[0] != modality
    for role in ROLES if seen is not None and not switched else ():
        for version in offered[role]:
            if version.id not in (seen or ()):
                gr.Info(f"A new version of the {role} model is offered: {version.name}")
    lists: list[Any] = [{"choices": choices(offered[role])} for role in ROLES]
    if switched:  # what was chosen in one list need not be in the other
        lists = [{**changed, "value": NEWEST} for changed in lists]
    lists = [gr.update(**changed) for changed in lists]
    return (*lists, offered_line(shelf, modality), now)


def choices(versions: list[AdapterVersion]) -> list[tuple[str, str]]:
    """(what the list says, the version's id), the moving choice first."""
    if not versions:
        return [("None", NEWEST)]
    return [(f"In use ({versions[0].name})", NEWEST), *((version.name, version.id) for version in versions)]


def offered_line(shelf: AdapterShelf, modality: str = "image") -> str:
    """What the next pictures or clips are made with unless a list says otherwise."""
    newest = {role: shelf.versions(role, modality)[:1] for role in ROLES}
    what = "clips" if modality == "video" else "pictures"
    return versions_line(f"Next {what} are made with", {role: found[0].name for role, found in newest.items() if found})


def versions_line(what: str, names: dict[str, str]) -> str:
    """ "Made with: aligned Shipped with the model, negative NPO from 24 picks"."""
    parts = [f'<span class="npo-version"><b>{escape(role)}</b> {escape(name)}</span>' for role, name in names.items()]
    return f'<p class="npo-in-use"><span>{escape(what)}</span>{"".join(parts) or "none"}</p>'
