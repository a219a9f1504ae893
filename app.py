"""The web app: settings from the environment -> services -> pages -> launch. Also the entry of a Space.

    python app.py        # http://127.0.0.1:7860

NPO_DATABASE_URL (sqlite:///data/npo.db), NPO_DATA_DIR (data) and NPO_FAMILY (emoji) say what to open, NPO_FAMILIES may
name a file with families of your own, NPO_HUB_DATASET a data set on the Hub that keeps the votes, and
NPO_SAFETY_CHECKER=off switches the safety checkers off (for research);
NPO_ADMIN_PASSWORD, or the Hub names in NPO_ADMINS on a Space, say who may retrain from the page;
GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where to serve. Exit status 2 means that one of them was wrong.
"""

from __future__ import annotations

from contextlib import suppress

with suppress(ImportError):
    import spaces  # noqa: F401  # only there on a ZeroGPU Space, where it has to come before torch

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import gradio as gr

from collection.database import DEFAULT_DATA_DIR, DEFAULT_URL
from npo_core.custom_families import add_families
from service.admin import AdminGate
from service.errors import INPUT_ERRORS
from service.hub_dataset import keep_votes
from service.services import Services, open_lab
from service.space import end_in_order, fetch_at_start
from ui import about, api, compare, results, retrain, vote
from ui.theme import head, style, theme

NAME = "Diffusion-NPO Lab"
PAGES: dict[str, tuple[str, Callable[[Services], gr.Blocks]]] = {  # path -> (title, build)
    "": (compare.TITLE, compare.build),
    "vote": (vote.TITLE, vote.build),
    "results": (results.TITLE, results.build),
    "retrain": (retrain.TITLE, retrain.build),
    "about": (about.TITLE, about.build),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """What the environment says."""

    database_url: str
    data_dir: Path
    family: str
    families_file: Path | None = None
    safety: bool = True
    hub_dataset: str | None = None
    on_space: bool = False
    admin_password: str | None = None
    admins: tuple[str, ...] = ()


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`, defaults for what is absent or empty."""
    return Settings(
        database_url=environment.get("NPO_DATABASE_URL") or DEFAULT_URL,
        data_dir=Path(environment.get("NPO_DATA_DIR") or DEFAULT_DATA_DIR),
        family=environment.get("NPO_FAMILY") or "emoji",
        families_file=Path(environment["NPO_FAMILIES"]) if environment.get("NPO_FAMILIES") else None,
        safety=environment.get("NPO_SAFETY_CHECKER") != "off",
        hub_dataset=environment.get("NPO_HUB_DATASET") or None,
        on_space=bool(environment.get("SPACE_ID")),
        admin_password=environment.get("NPO_ADMIN_PASSWORD") or None,
        admins=tuple(name.strip() for name in environment.get("NPO_ADMINS", "").split(",") if name.strip()),
    )


def build_app(services: Services) -> gr.Blocks:
    """All pages and the API in one gradio app. Every family that can be chosen has pages of its own."""
    pages = {path: build(services) for path, (_, build) in PAGES.items()}
    with gr.Blocks(title=NAME, analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as app:
        pages[""].render()
        api.register(services)
    for path, (title, _) in PAGES.items():
        if path:
            with app.route(title, path, show_in_navbar=False):  # the pages draw their own links
                pages[path].render()
    for other in services.others:
        name, label = other.family.name, other.family.label
        for path, page in ((name, compare.build(other)), (f"{name}-results", results.build(other))):
            with app.route(label, path, show_in_navbar=False):
                page.render()
    return app


def launch(app: gr.Blocks, **options: object) -> None:
    """Serves `app`; `options` go to gradio's launch."""
    app.queue(default_concurrency_limit=8, max_size=256)
    app.launch(
        theme=theme(),
        css=style(),
        head=head(),
        footer_links=["api"],
        run_history=False,  # the browser would keep every picture and vote of whoever sits there
        **options,  # type: ignore[arg-type]
    )


def main() -> int:
    """Runs the app until it is stopped; returns its exit status."""
    settings = read_settings(os.environ)
    try:
        add_families(settings.families_file)
        if settings.on_space:
            fetch_at_start(settings.family)
        gate = AdminGate(settings.admin_password, settings.admins)
        services = open_lab(
            settings.family, settings.database_url, settings.data_dir, safety=settings.safety, gate=gate
        )
        if settings.hub_dataset:
            keep_votes(services.store, settings.hub_dataset, settings.data_dir / "hub")
        app = build_app(services)
    except INPUT_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    end_in_order()
    serve(app, services)
    return 0


def serve(app: gr.Blocks, services: Services) -> None:
    """Launches at once, then loads the model (both want the whole processor); returns when the app is stopped.

    A ZeroGPU Space lends what was loaded before the launch, so there the model comes first.
    """
    if services.compare.on_lent_gpu:
        load(services.compare.load)
        launch(app)
        return
    services.compare.warming_up = True
    launch(app, prevent_thread_lock=True)
    threading.Thread(target=load, args=(services.compare.warm_up,), name="warm-up", daemon=True).start()
    app.block_thread()


def load(way: Callable[[], None]) -> None:
    """Loads the model while the first visitor still reads. What cannot be loaded is told at the first picture."""
    try:
        way()
    except INPUT_ERRORS as error:
        logger.error("%s", error)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for library in ("httpx", "alembic"):
        logging.getLogger(library).setLevel(logging.WARNING)
    sys.exit(main())
