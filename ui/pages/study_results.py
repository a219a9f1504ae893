"""What the page Results shows of a study beside win rates and strengths: matrix, power, categories, prompts, health."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from typing import Final

from collection.statistics.rates import Power, WinRate
from collection.statistics.report import as_json
from collection.statistics.summary import PromptScore, Summary
from collection.types import StudyProgress
from npo_core.media.files import MP4_MEDIA_TYPE, PNG_MEDIA_TYPE, poster_png
from ui.components.charts import MOST_SHOWN, interval_text
from ui.components.clips import clip_html
from ui.components.html import data_uri, plural
from ui.components.plots import label_of, name_of, strengths_svg, votes_svg, win_rates_svg

POSTERS_KEPT: Final = 64  # the page is drawn anew every few seconds, mostly of the same clips

Pair = tuple[tuple[str, str], tuple[str, str]]  # (variant, contender) of both sides
Media = Callable[[PromptScore], tuple[bytes, str] | None]  # what may be shown of a prompt: bytes and media type


def matrix(summary: Summary) -> str:
    """Row against column: the share of wins, ties as halves."""
    rates = {_sides(rate): (rate.rate, rate.votes) for rate in summary.win_rates}
    rates |= {(b, a): (1 - rate, votes) for (a, b), (rate, votes) in rates.items()}
    shown = sorted(summary.ratings, key=lambda rating: -rating.votes)[:MOST_SHOWN]
    names = [(rating.variant, rating.contender) for rating in summary.ratings if rating in shown]
    head = "".join(f'<th scope="col">{escape(name_of(summary, *name))}</th>' for name in names)
    rows = "".join(
        f'<tr><th scope="row">{escape(name_of(summary, *row))}</th>'
        + "".join(_cell(rates.get((row, column))) for column in names)
        + "</tr>"
        for row in names
    )
    return _card(
        "Win matrix",
        "How often the row was preferred to the column, and from how many votes.",
        f'<div class="npo-scroll"><table class="npo-table"><thead><tr><td></td>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{_power(summary)}",
    )


def categories(summary: Summary) -> str:
    """Win rates by category of prompt; nothing where there are no categories."""
    named = {name: rates for name, rates in summary.by_category.items() if name}
    if not named:
        return ""
    votes: Counter[Pair] = Counter()
    for rates in named.values():
        votes.update({_sides(rate): rate.votes for rate in rates})
    pairs = sorted(pair for pair, _ in votes.most_common(MOST_SHOWN))
    head = "".join(
        f'<th scope="col">{escape(name_of(summary, *a))} against {escape(name_of(summary, *b))}</th>' for a, b in pairs
    )
    rows = []
    for name, rates in sorted(named.items()):
        of_pair = {_sides(rate): (rate.rate, rate.votes) for rate in rates}
        cells = "".join(_cell(of_pair.get(pair)) for pair in pairs)
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
    return _card(
        "By category",
        "",
        f'<div class="npo-scroll"><table class="npo-table"><thead><tr><th scope="col">Category</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>",
    )


def prompts(summary: Summary, media: Media) -> str:
    """The best and worst prompts of each variant, with its picture where it may be shown."""
    scores = [*summary.best_prompts, *summary.worst_prompts]
    if not scores:
        return ""
    shown = {score: media(score) for score in scores}
    groups = []
    for variant in dict.fromkeys(score.variant for score in scores):
        for title, chosen in (("best", summary.best_prompts), ("worst", summary.worst_prompts)):
            figures = "".join(_figure(score, shown[score]) for score in chosen if score.variant == variant)
            groups.append(f"<h3>{escape(label_of(variant))}, {title}</h3><div class='npo-gallery'>{figures}</div>")
    note = (
        "Pictures of a study that is still open are not shown: somebody who votes might see them."
        if None in shown.values()
        else ""
    )
    return _card("Best and worst prompts", note, "".join(groups))


def health(progress: StudyProgress) -> str:
    """Whether the study runs well: what is missing, what failed on our side, who answered without care."""
    ours = plural(progress.faults, "fault") + " on our side (media that did not load, errors)"
    theirs = f"{progress.flagged} of {plural(progress.participants, 'participant')} flagged by the study's rule"
    state = "closed" if progress.closed_at else "open"
    return _card(
        f"Study {progress.name}",
        "",
        f"<p>{progress.pairs_done:,} of {plural(progress.pairs, 'pair')} have their votes; the study is {state}. "
        f"{progress.finished} finished, {progress.withdrawn} withdrew.</p>"
        f'<p class="npo-health">{ours}; {theirs}.</p>',
    )


def over_time(summary: Summary, prefix: str = "") -> str:
    """Votes over time, and everything as files; `prefix` begins their names."""
    files = {
        "strengths.svg": (strengths_svg(summary), "image/svg+xml"),
        "win-rates.svg": (win_rates_svg(summary), "image/svg+xml"),
        "votes-over-time.svg": (votes_svg(summary.by_hour), "image/svg+xml"),
        "results.json": (json.dumps(as_json(summary), indent=2), "application/json"),
    }
    links = "".join(
        f'<a class="npo-button" href="{data_uri(content.encode(), kind)}" download="{prefix}{name}">{name}</a>'
        for name, (content, kind) in files.items()
    )
    return _card(
        "Over time, and downloads",
        f"Methodology {escape(summary.methodology)}. Plots as SVG for papers, numbers as JSON.",
        f'<div class="npo-plot">{votes_svg(summary.by_hour)}</div><p class="npo-downloads">{links}</p>',
    )


def _power(summary: Summary) -> str:
    lines = []
    most = {_sides(rate) for rate in sorted(summary.win_rates, key=lambda rate: -rate.votes)[:MOST_SHOWN]}
    for advice in summary.power:
        if _sides(advice) not in most:
            continue
        first, second = (escape(name_of(summary, *side)) for side in _sides(advice))
        pair = f"{first} and {second}"
        said = "are told apart" if advice.more == 0 else "are about as good: no number of votes to speak of would tell"
        if advice.missing:
            said = f"need {advice.missing}"
        elif advice.more:
            said = f"need about {plural(advice.more, 'more vote')} to be told apart, if the rate stays as it is"
        lines.append(f"<li>{pair} {said}.</li>")
    tie = f"<li>A tie between equals has a chance of {summary.tie_chance:.0%}.</li>" if summary.tie_chance else ""
    return f'<ul class="npo-notes">{"".join(lines)}{tie}</ul>'


def versions(summary: Summary) -> str:
    """How each new version did against the same opponent, the newest last; nothing where there is but one."""
    rows = "".join(
        f'<tr><th scope="row">{escape(step.version or "its own")}<br><small>{step.first_made_at:%Y-%m-%d}</small></th>'
        f"<td>{escape(label_of(step.variant))} against "
        f"{escape(name_of(summary, step.against, step.contender_against))}</td>"
        f"<td><b>{step.rate:.0%}</b> <small>{interval_text(step, '.0%')}, {plural(step.votes, 'vote')}</small></td>"
        "</tr>"
        for step in summary.progress
    )
    if not rows:
        return ""
    return _card(
        "Version by version",
        "The same opponent and settings; the newest last.",
        f'<div class="npo-scroll"><table class="npo-table"><thead><tr><th scope="col">Version</th><td></td>'
        f'<th scope="col">Preferred</th></tr></thead><tbody>{rows}</tbody></table></div>',
    )


def _sides(pair: WinRate | Power) -> Pair:
    return (pair.variant_a, pair.contender_a), (pair.variant_b, pair.contender_b)


def _cell(rate: tuple[float, int] | None) -> str:
    return "<td>–</td>" if rate is None else f"<td><b>{rate[0]:.0%}</b> <small>{rate[1]:,}</small></td>"


def _figure(score: PromptScore, media: tuple[bytes, str] | None) -> str:
    shown = '<span class="npo-empty" aria-hidden="true"></span>' if media is None else _shown(*media, score.prompt)
    share = f"{score.share:.0%} of {plural(score.votes, 'vote')}"
    caption = f"<figcaption>{escape(score.prompt)} <small>{share}</small></figcaption>"
    alone = ' class="npo-clips"' if media is not None and media[1] == MP4_MEDIA_TYPE else ""
    return f"<figure{alone}>{shown}{caption}</figure>"  # each clip for itself: they may differ in length


def _shown(media: bytes, media_type: str, prompt: str) -> str:
    source = data_uri(media, media_type)
    if media_type == MP4_MEDIA_TYPE:
        return clip_html(source, data_uri(_poster(media), PNG_MEDIA_TYPE), prompt)
    return f'<img src="{source}" alt="{escape(prompt)}">'


@lru_cache(maxsize=POSTERS_KEPT)
def _poster(clip: bytes) -> bytes:
    return poster_png(clip)


def _card(title: str, text: str, content: str) -> str:
    said = f"<p>{text}</p>" if text else ""
    return f'<section class="npo-card"><h2>{escape(title)}</h2>{said}{content}</section>'


def cards(summary: Summary, media: Media, progress: Sequence[StudyProgress], prefix: str = "") -> list[str]:
    """Everything of this module, in order; `prefix` begins the names of files."""
    return [
        *(health(study) for study in progress),
        matrix(summary),
        versions(summary),
        categories(summary),
        prompts(summary, media),
        over_time(summary, prefix),
    ]
