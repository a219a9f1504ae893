"""The web app: settings from the environment -> services -> pages -> launch. Also the entry of a Space.

    python app.py        # http://127.0.0.1:7860

NPO_DATABASE_URL (sqlite:///data/npo.db), NPO_DATA_DIR (data) and NPO_FAMILY (emoji) say what to open, NPO_FAMILIES may
name a file with families of your own, NPO_HUB_DATASET a data set on the Hub that keeps the votes, and
NPO_SAFETY_CHECKER=off switches the safety checkers off (for research);
NPO_ADMIN_PASSWORD, or the Hub names in NPO_ADMINS on a Space, say who may retrain from the page;
GRADIO_SERVER_NAME and GRADIO_SERVER_PORT say where to serve. Exit status 2 means that one of them was wrong, 1 that
the port is taken. SIGTERM and Ctrl-C let what runs be finished. service/arena/limits.py has the settings of the limits.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress

with suppress(ImportError):
    import spaces  # noqa: F401  # only there on a ZeroGPU Space, where it has to come before torch

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import gradio as gr
from gradio.routes import App

from collection.database.connection import DEFAULT_DATA_DIR, DEFAULT_URL
from npo_core.catalog.custom_families import add_families
from npo_core.process import settle
from service.arena.limits import Limits, read_limits
from service.errors import INPUT_ERRORS
from service.generation.low_priority import start_apart
from service.generation.pool_filling import PoolFiller
from service.operations import logs
from service.operations.hub_dataset import keep_votes
from service.operations.space import fetch_at_start
from service.services import Services, open_lab
from service.training.admin import AdminGate
from ui.http import api
from ui.http.firewall import Door
from ui.http.monitoring import add_watch
from ui.http.previews import add_previews
from ui.http.rest import add_endpoints
from ui.pages import about, compare, results, retrain, vote
from ui.theme import head, style, theme

NAME = "Diffusion-NPO Lab"
PAGES: dict[str, tuple[str, Callable[[Services], gr.Blocks]]] = {  # path -> (title, build)
    "": (compare.TITLE, compare.build),
    "vote": (vote.TITLE, vote.build),
    "results": (results.TITLE, results.build),
    "retrain": (retrain.TITLE, retrain.build),
    "about": (about.TITLE, about.build),
}

CACHE_S = (600, 3600)  # how often gradio looks for files that it made for pages, and how old they get
SESSIONS = 1000  # pages that the server remembers; the one that was not used for the longest makes room
THREADS = 64  # for gradio's handlers; what comes by direct.py has others, so that waiting pages hold no vote up
SWITCH_S = 0.0005  # how soon a thread that generates lets one that takes a vote have the interpreter (Python's: 0.005)
FINISH_S = 90.0  # how long a generation may still take when the app is asked to stop

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
    limits: Limits = field(default_factory=Limits)


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings in `environment`, defaults for what is absent or empty; InputError for a limit that is no number."""
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
        limits=read_limits(environment),
    )


@contextmanager
def server_at_launch() -> Iterator[None]:
    """gradio sets a web server up whenever a gr.Blocks is closed, sixteen times for these pages, and a last one at the
    launch. Within this context it does not: that was a third of the time until the first page."""
    made = App.create_app
    App.create_app = staticmethod(lambda *arguments, **named: None)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        App.create_app = staticmethod(made)  # type: ignore[method-assign]


@server_at_launch()
def build_app(services: Services) -> gr.Blocks:
    """All pages and the API in one gradio app. Every family that can be chosen has pages of its own."""
    pages = {path: build(services) for path, (_, build) in PAGES.items()}
    with gr.Blocks(title=NAME, analytics_enabled=False, delete_cache=CACHE_S) as app:
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


def launch(app: gr.Blocks, services: Services, **options: object) -> None:
    """Serves `app` behind the door; `options` go to gradio's launch. Raises OSError when the port is taken."""
    door = Door()
    door.endpoints = add_endpoints(door, services)
    add_watch(door, services.health)
    add_previews(door, NAME, "Three models paint your prompt from the same noise. Pick the best, without their names.")
    app.queue(default_concurrency_limit=8, max_size=256, api_open=False)  # nothing of gradio's passes by its queue
    app.launch(
        theme=theme(),
        css=style(),
        head=head(),
        footer_links=["api"],
        run_history=False,  # the browser would keep every picture and vote of whoever sits there
        max_threads=THREADS,
        state_session_capacity=SESSIONS,
        enable_monitoring=False,
        prevent_thread_lock=True,
        _app=door,
        **options,  # type: ignore[arg-type]
    )


def main() -> int:
    """Runs the app until it is stopped; returns its exit status."""
    settle()
    try:
        settings = read_settings(os.environ)
        add_families(settings.families_file)
        if settings.on_space:
            fetch_at_start(settings.family)
        gate = AdminGate(settings.admin_password, settings.admins)
        services = open_lab(
            settings.family,
            settings.database_url,
            settings.data_dir,
            safety=settings.safety,
            gate=gate,
            limits=settings.limits,
        )
        if settings.hub_dataset:
            keep_votes(services.store, settings.hub_dataset, settings.data_dir / "hub")
        app = build_app(services)
    except INPUT_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        serve(app, services, stop_on_signals())
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def serve(app: gr.Blocks, services: Services, stop: threading.Event) -> None:
    """Launches at once, then loads the model (both want the whole processor); returns when `stop` is set and what ran
    is finished.

    A ZeroGPU Space lends what was loaded before the launch, so there the model comes first.
    """
    port = os.environ.get("GRADIO_SERVER_PORT")
    options: dict[str, object] = {"server_port": int(port)} if port else {}  # gradio would take the next free one
    if services.compare.on_lent_gpu:
        load(services.compare.load)
        launch(app, services, **options)
    else:
        services.compare.warming_up = True
        launch(app, services, **options)
        start_apart(lambda: get_ready(services), "warm-up")
    stop.wait()
    end(app, services)


def stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set; a second one ends the process at once."""
    stop = threading.Event()

    def ask(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)
        stop.set()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, ask)
    return stop


def end(app: gr.Blocks, services: Services) -> None:
    """Lets nobody begin anything, waits for the generation that runs and for its picture to be sent, and closes."""
    logger.info("Stopping: what runs is finished first.")
    services.compare.desk.close()
    if not services.compare.desk.wait_until_free(FINISH_S):
        logger.warning("A generation took longer than %.0f s more and was given up.", FINISH_S)
    time.sleep(1.0)  # gradio tells nobody when the last event was sent
    app.close(verbose=False)
    logger.info("Stopped.")


def load(way: Callable[[], None]) -> None:
    """Loads the model while the first visitor still reads. What cannot be loaded is told at the first picture."""
    try:
        way()
    except INPUT_ERRORS as error:
        logger.error("%s", error)


def get_ready(services: Services) -> None:
    """Loads the model, then makes pairs for the arena whenever nobody else generates, until the app stops."""
    load(services.compare.warm_up)
    PoolFiller(services).run()


if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_S)
    logs.configure()
    sys.exit(main())
