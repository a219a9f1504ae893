"""The page Retrain: an admin sees what is new, starts a training, watches it, and puts its result to use."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from html import escape
from typing import Any

import gradio as gr

from npo_core.catalog.adapter_files import Role
from service.errors import INPUT_ERRORS
from service.services import Services
from service.training.retrain import News, RetrainService, RunView
from ui.components.html import data_uri, header, heading, message, plural

TITLE = "Retrain"
REFRESH_S = 2.0
ROLES: list[tuple[str, Role]] = [("Negative model: what to avoid", "negative"), ("Aligned model", "aligned")]
STATES = {
    "none": "No training was started from this page yet.",
    "running": "Training",
    "finished": "Finished",
    "failed": "Failed",
    "stopped": "Stopped",
}
QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# An adapter that held-out picks do not speak for is put to use only after a second look.
CONFIRM = """(token, sure) => {
  const weak = document.querySelector('#npo-run [data-weak]');
  return [token, !weak || confirm(weak.dataset.weak)];
}"""
CONVINCING = 0.55  # held-out accuracy; a coin has 0.5
CURVES = ("loss", "held_out_loss"), ("accuracy", "held_out_accuracy", "validation_win_rate")


def build(services: Services) -> gr.Blocks:
    """The page; behind the door everything goes through `services.retrain`, which asks for the token each time."""
    retrain, gate = services.retrain, services.retrain.gate
    on_space = gate.takes_users and "OAUTH_CLIENT_ID" in os.environ  # elsewhere there is nobody to sign in with
    with gr.Blocks() as page:
        gr.HTML(header(TITLE))
        gr.HTML(heading("Close the loop", "Train the next version on what people picked, watch it, and put it to use."))
        token = gr.State(None)  # on the server; the browser never sees it
        notice = gr.HTML(elem_id="npo-retrain-notice")
        with gr.Column(elem_classes="npo-card", elem_id="npo-door", visible=True) as door:
            gr.HTML(_door_text(gate.takes_password, on_space))
            with gr.Row(elem_classes="npo-prompt-row", visible=gate.takes_password):
                password = gr.Textbox(
                    label="Admin password", type="password", elem_id="npo-password", max_lines=1, scale=4
                )
                enter = gr.Button("Sign in", variant="primary", elem_id="npo-enter", scale=1, min_width=120)
            login = gr.LoginButton() if on_space else None
            as_user = gr.Button("Enter with this account", elem_id="npo-enter-user") if on_space else None
        with gr.Column(visible=False, elem_id="npo-workshop") as workshop:
            told = gr.HTML(elem_id="npo-news")
            with gr.Column(elem_classes="npo-card"):
                role = gr.Radio(
                    ROLES, value="negative", label="What to train", elem_id="npo-role", elem_classes="npo-chips"
                )
                with gr.Row(elem_classes="npo-prompt-row"):
                    steps = gr.Number(0, label="Steps", info="0: by the number of picks", precision=0, minimum=0)
                    start = gr.Button("Start training", variant="primary", elem_id="npo-start", min_width=160)
                    stop = gr.Button("Stop", elem_id="npo-stop", min_width=90)
            with gr.Column(elem_classes="npo-card", elem_id="npo-run"):
                run = gr.HTML(elem_id="npo-run-state")
                pictures = gr.HTML(elem_id="npo-run-grid")
                with gr.Row(elem_classes="npo-verdict-row"):
                    promote = gr.Button("Put to use", variant="primary", elem_id="npo-promote", interactive=False)
                    back = gr.Button("Take the last one back", elem_id="npo-roll-back")
        timer = gr.Timer(REFRESH_S, active=False)
        shown = [told, run, pictures, promote, stop]
        opened = [token, notice, password, door, workshop, timer]
        show = partial(refresh, retrain)
        for event in (enter.click, password.submit):
            event(partial(sign_in, retrain), password, opened, **QUIET).then(show, [token, role], shown, **QUIET)
        if login is not None and as_user is not None:
            enter_as = partial(sign_in_as, retrain)
            as_user.click(_with_profile(enter_as), None, opened, **QUIET).then(show, [token, role], shown, **QUIET)
        for event, action, inputs in (
            (start.click, begin, [token, role, steps]),
            (stop.click, end, [token]),
            (back.click, take_back, [token, role]),
        ):
            event(partial(action, retrain), inputs, notice, **QUIET).then(show, [token, role], shown, **QUIET)
        sure = gr.Checkbox(True, visible=False)
        promote.click(partial(put_to_use, retrain), [token, sure], notice, js=CONFIRM, **QUIET).then(
            show, [token, role], shown, **QUIET
        )
        gr.on([timer.tick, role.change], show, [token, role], shown, **QUIET)
    return page


def _with_profile(enter: Callable[[str | None], tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """gradio fills in a parameter of this type with who is signed in on the Space."""

    def handler(profile: gr.OAuthProfile | None) -> tuple[Any, ...]:
        return enter(profile.username if profile else None)

    return handler


def sign_in(retrain: RetrainService, password: str) -> tuple[Any, ...]:
    """(token, notice, password field, door, workshop, timer) after a password was given."""
    return _enter(lambda: retrain.gate.admit(password))


def sign_in_as(retrain: RetrainService, name: str | None) -> tuple[Any, ...]:
    """The same after an account was given."""
    return _enter(lambda: retrain.gate.admit_user(name))


def _enter(admit: Callable[[], str]) -> tuple[Any, ...]:
    try:
        token = admit()
    except INPUT_ERRORS as error:
        return (None, message(str(error), "error"), "", gr.skip(), gr.skip(), gr.skip())
    return (token, "", "", gr.update(visible=False), gr.update(visible=True), gr.Timer(active=True))


def begin(retrain: RetrainService, token: str | None, role: Role, steps: float | None) -> str:
    """Starts a training, with no or 0 steps as many as the picks are worth; returns the notice."""
    return _told(lambda: retrain.start(token, role, int(steps) if steps else None), "")


def end(retrain: RetrainService, token: str | None) -> str:
    """Stops the training; returns the notice."""
    return _told(lambda: retrain.stop(token), "Stopped. Its checkpoint stays.")


def put_to_use(retrain: RetrainService, token: str | None, sure: bool = True) -> str:
    """Promotes the adapter of the run that is shown, unless the admin had second thoughts; returns the notice."""
    if not sure:
        return message("Nothing was changed.")

    def promote() -> None:
        adapter = retrain.view(token).adapter
        if adapter is not None and adapter.id is not None:
            retrain.promote(token, adapter.id)

    return _told(promote, "In use: the next picture is made with it.")


def take_back(retrain: RetrainService, token: str | None, role: Role) -> str:
    """Rolls the last promotion of the role back; returns the notice."""
    try:
        return message(f"In use now: {retrain.roll_back(token, role)}.", "done")
    except INPUT_ERRORS as error:
        return message(str(error), "error")


def _told(action: Callable[[], object], done: str) -> str:
    try:
        action()
    except INPUT_ERRORS as error:
        return message(str(error), "error")
    return message(done, "done")


def refresh(retrain: RetrainService, token: str | None, role: Role) -> tuple[Any, ...]:
    """(news, run, grid, promote button, stop button) as they are now; nothing for a stranger."""
    try:
        news, view = retrain.news(token, role), retrain.view(token)
    except INPUT_ERRORS:
        return (gr.skip(),) * 5
    in_use = view.adapter is not None and news.in_use == view.adapter.name and view.role == role
    return (
        news_html(news),
        run_html(view),
        _grid_html(view),
        gr.update(interactive=view.state == "finished" and not in_use),
        gr.update(interactive=view.state == "running"),
    )


def news_html(news: News) -> str:
    """What there is to learn from, as tiles."""
    when = f"{news.last_trained_at:%d %b, %H:%M}" if news.last_trained_at else "never"
    return (
        f'<dl class="npo-tiles npo-tiles-3"><div><dd>{news.new_picks:,}</dd><dt>new since the last training</dt></div>'
        f"<div><dd>{news.picks:,}</dd><dt>{plural(news.picks, 'decided pick').split(' ', 1)[1]} in all</dt></div>"
        f"<div><dd>{when}</dd><dt>last trained (UTC)</dt></div></dl>"
        f'<p class="npo-in-use">In use: {escape(news.in_use)}</p>'
    )


def run_html(view: RunView) -> str:
    """How the latest run stands, with a bar while it goes and its last words."""
    if view.state == "none":
        return f"<h2>Training</h2><p>{STATES['none']}</p>"
    total = view.total_steps
    share = 100 * view.step / total if total else 0
    steps = f"step {view.step} of {total}" if total else "getting ready"
    done = f": {view.adapter.name}" if view.state == "finished" and view.adapter else f", {steps}"
    bar = (
        f'<div class="npo-progress" role="progressbar" aria-label="Training" aria-valuemin="0" aria-valuemax="{total}" '
        f'aria-valuenow="{view.step}"><span style="width:{share:.0f}%"></span></div>'
    )
    words = f"<details{' open' if view.state == 'failed' else ''}><summary>What it says</summary>"
    return (
        f"<h2>{STATES[view.state]}{escape(done)}</h2>{bar if view.state == 'running' else ''}{evidence(view)}"
        f'<div class="npo-curves">{"".join(curve(view.rows, names) for names in CURVES)}</div>'
        f'{words}<pre class="npo-code"><code>{escape(view.log)}</code></pre></details>'
    )


def evidence(view: RunView) -> str:
    """What picks that the run did not learn from say of its result; `data-weak` is asked before that is put to use."""
    if view.state != "finished":
        return ""
    measured = [row["held_out_accuracy"] for row in view.rows if "held_out_accuracy" in row]
    if not measured:
        weak = "No picks were held back, so nothing tells whether this version is better. Put it to use all the same?"
        return f'<p class="npo-small" data-weak="{weak}">No picks were held back to measure it with.</p>'
    told = f"It agrees with {measured[-1]:.0%} of the picks that it did not learn from; a coin would with 50%."
    if measured[-1] >= CONVINCING:
        return f'<p class="npo-small">{told}</p>'
    return f'<p class="npo-small" data-weak="{told} Put it to use all the same?">{told}</p>'


def _grid_html(view: RunView) -> str:
    if view.grid is None:
        return ""
    after = "with the new negative model" if view.role == "negative" else "aligned"
    return (
        f'<figure class="npo-figure"><img alt="Pictures of the training at its newest validation" '
        f'src="{data_uri(view.grid, "image/png")}"><figcaption>Each row one prompt: before, and {after}.</figcaption>'
        "</figure>"
    )


def curve(rows: tuple[dict[str, float], ...], names: tuple[str, ...]) -> str:
    """The numbers called `names` over the steps as one small drawing, in the colours of the page; none, nothing."""
    lines = {name: [(row["step"], row[name]) for row in rows if name in row] for name in names}
    values = [value for points in lines.values() for _, value in points]
    if not values:
        return ""
    low, high, last = min(values), max(values), max(row["step"] for row in rows)
    span = (high - low) or 1.0
    drawn = "".join(
        f'<polyline class="npo-curve-{place}" points="'
        + " ".join(f"{300 * step / last:.1f},{100 - 100 * (value - low) / span:.1f}" for step, value in points)
        + '"/>'
        for place, points in enumerate(lines.values())
    )
    told = ", ".join(
        f'<span class="npo-curve-{place}">{name.replace("_", " ")} <b>{points[-1][1]:.3f}</b></span>'
        for place, (name, points) in enumerate(lines.items())
        if points
    )
    return (
        f'<figure class="npo-curve"><figcaption>{told}</figcaption><svg viewBox="-2 -4 304 108" '
        f'preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(names[0])} from {low:.3f} to {high:.3f} over {last:.0f} steps">'
        f"{drawn}</svg><span>{low:.3f} to {high:.3f}, {last:.0f} steps</span></figure>"
    )


def _door_text(takes_password: bool, on_space: bool) -> str:
    if takes_password:
        return "<h2>Sign in</h2><p>Training is for admins: it takes the machine and changes what all see.</p>"
    if on_space:
        return "<h2>Sign in</h2><p>Training is for the accounts on this Space's list of admins.</p>"
    return (
        "<h2>Training from this page is off</h2><p>Start the app with NPO_ADMIN_PASSWORD set, or train where it runs; "
        'Compare offers the new version by itself.</p><pre class="npo-code"><code>python -m train.npo --from-db'
        "</code></pre>"
    )
