"""The page About: the method in one figure and a few sentences, and how the loop of this lab closes."""

from __future__ import annotations

import gradio as gr

from npo_core.variants import DEFAULT_VARIANTS, VARIANTS
from service.services import Services
from ui.components.html import ASSETS, data_uri, header, heading

TITLE = "About"
FIGURE_FILE = ASSETS / "about.png"

METHOD = """
<section class="npo-card npo-prose"><h2>The idea</h2>
<p>A diffusion model answers your prompt twice in every step: once <em>with</em> the prompt (the conditional answer) and
once <em>without</em> it (the unconditional one). Classifier-free guidance then goes from the second towards the first,
and beyond:</p>
<pre class="npo-code"><code>prediction = unconditional + guidance × (conditional − unconditional)</code></pre>
<p>So a good picture needs two things: a model that knows what people like, and one that knows what to go away from.
Alignment methods such as Diffusion-DPO train the first and use the same weights for the second.
<strong>Diffusion-NPO</strong> (Negative Preference Optimization, ICLR 2025) trains the second on its own: take the same
pairs of preferred and rejected pictures, <em>swap them</em>, and train as before. No new data, no new method.</p>
</section>
"""

LOOP = """
<section class="npo-card npo-prose"><h2>The loop of this lab</h2>
<ol>
<li>Your prompt and seed give the same noise to every variant, in one call, so that only the weights differ.</li>
<li>You see the pictures in hidden order and pick. The answer is stored with everything that made the pictures.</li>
<li><code>python -m train.npo --from-db</code> turns the picks round and trains a new negative model from them.</li>
<li>The running app offers it at once, under the pictures, and your next picture uses it.</li>
</ol>
<p>What is kept: prompts, pictures, picks, and a random id that your browser keeps. No name, no address, nothing else
about you.</p></section>
"""

SOURCES = """
<section class="npo-card npo-prose"><h2>Read more</h2>
<ul>
<li>Diffusion-NPO: Negative Preference Optimization for Better Preference Aligned Generation of Diffusion Models,
<a href="https://arxiv.org/abs/2505.11245">arXiv 2505.11245</a></li>
<li>Diffusion Model Alignment Using Direct Preference Optimization,
<a href="https://arxiv.org/abs/2311.12908">arXiv 2311.12908</a></li>
</ul></section>
"""


def build(services: Services) -> gr.Blocks:
    """The page; it needs the services only for the family's name."""
    with gr.Blocks() as page:
        gr.HTML(header(TITLE))
        gr.HTML(
            heading("How it works", "A model of what people dislike makes better pictures than one that ignores it.")
        )
        gr.HTML(METHOD + figure() + weights_table(*services.shelf.shares()) + LOOP + SOURCES)
    return page


def figure() -> str:
    """Real outputs side by side, drawn by `python -m service.about_figure`."""
    if not FIGURE_FILE.is_file():
        return ""
    alt = "Rows of prompts, columns Base, Aligned and Aligned + NPO: each row starts from one noise."
    return (
        f'<figure class="npo-card npo-figure"><img src="{data_uri(FIGURE_FILE.read_bytes(), "image/png")}" alt="{alt}">'
        "<figcaption>Each row: one prompt, one seed, one noise, three variants. Real outputs of the model that ships "
        "with this project, at its default settings, not selected by hand.</figcaption></figure>"
    )


def weights_table(alpha: float, beta: float) -> str:
    """Which weights answer what, from VARIANTS itself."""
    rows = []
    for name in DEFAULT_VARIANTS:
        variant = VARIANTS[name]
        conditional, unconditional = variant.mixes(alpha, beta)
        rows.append(
            f'<tr><th scope="row">{variant.label}</th><td>{_mix(conditional.aligned, conditional.negative)}</td>'
            f"<td>{_mix(unconditional.aligned, unconditional.negative)}</td></tr>"
        )
    return (
        '<section class="npo-card npo-prose"><h2>Three variants, one base</h2>'
        "<p>θ is the base, η what alignment adds to it, δ what the negative training adds. "
        f"The negative branch is θ + α·η + β·δ, here with α = {alpha:g} and β = {beta:g}.</p>"
        '<div class="npo-scroll"><table class="npo-table"><thead><tr><th scope="col">Variant</th>'
        '<th scope="col">answers the prompt</th><th scope="col">answers the negative prompt</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _mix(aligned: float, negative: float) -> str:
    parts = ["θ", *_term(aligned, "η"), *_term(negative, "δ")]
    return f"<code>{' + '.join(parts)}</code>"


def _term(weight: float, symbol: str) -> list[str]:
    if not weight:
        return []
    return [symbol if weight == 1 else f"{weight:g}·{symbol}"]
