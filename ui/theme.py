"""The look of every page: one accent colour, system fonts (nothing is fetched), light and dark from the same names."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

ASSETS = Path(__file__).parent / "assets"
STYLE_FILES = (ASSETS / "style.css", ASSETS / "clips.css", ASSETS / "vote.css", ASSETS / "arena.css")
SCRIPT_FILES = tuple(ASSETS / f"{name}.js" for name in ("page", "clips", "stage", "arena", "vote"))

ACCENT = gr.themes.Color(
    name="pine",
    c50="#eefaf6",
    c100="#d5f2e8",
    c200="#aee4d3",
    c300="#7acfb8",
    c400="#46b399",
    c500="#25977f",
    c600="#147a67",
    c700="#106254",
    c800="#104e44",
    c900="#0f4139",
    c950="#062722",
)
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO_FONTS = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

LIGHT_AND_DARK = {
    "body_background_fill": ("#f7f8f7", "#0f1413"),
    "body_text_color": ("#1c2523", "#e6ecea"),
    "body_text_color_subdued": ("#56625f", "#9aa8a4"),
    "background_fill_primary": ("#ffffff", "#171e1c"),
    "background_fill_secondary": ("#f1f4f2", "#1d2624"),
    "border_color_primary": ("#dde3e0", "#2b3633"),
    "block_background_fill": ("transparent", "transparent"),
    "block_border_width": ("0px", "0px"),
    "block_shadow": ("none", "none"),
    "block_title_text_color": ("*body_text_color", "*body_text_color"),
    "block_title_background_fill": ("transparent", "transparent"),
    "block_info_text_color": ("*body_text_color_subdued", "*body_text_color_subdued"),
    "input_background_fill": ("#ffffff", "#111716"),
    "input_border_color": ("#c9d2ce", "#37443f"),
    "input_shadow": ("none", "none"),
    "input_placeholder_color": ("#6b7773", "#84928d"),
    "button_primary_background_fill": ("*primary_600", "*primary_400"),
    "button_primary_background_fill_hover": ("*primary_700", "*primary_300"),
    "button_primary_text_color": ("#ffffff", "#06231d"),
    "button_secondary_background_fill": ("#ffffff", "#1d2624"),
    "button_secondary_background_fill_hover": ("#eef2f0", "#26322f"),
    "button_secondary_border_color": ("#c9d2ce", "#37443f"),
    "button_secondary_text_color": ("*body_text_color", "*body_text_color"),
    "link_text_color": ("*primary_700", "*primary_300"),
    "link_text_color_hover": ("*primary_800", "*primary_200"),
    "link_text_color_visited": ("*primary_700", "*primary_300"),
}
LOOK = {
    **{name: light for name, (light, _) in LIGHT_AND_DARK.items()},
    **{f"{name}_dark": dark for name, (_, dark) in LIGHT_AND_DARK.items()},
    "block_padding": "0px",
    "block_title_text_weight": "600",
    "block_title_padding": "0px",
    "input_border_width": "1px",
    "color_accent": "*primary_600",
}


def theme() -> gr.themes.Base:
    """Quiet surfaces, hairline borders, and the accent for what can be chosen or pressed."""
    return gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=gr.themes.colors.slate,
        radius_size=gr.themes.sizes.radius_lg,
        font=FONTS,
        font_mono=MONO_FONTS,
    ).set(**LOOK)


def style() -> str:
    """The style sheet."""
    return "\n".join(file.read_text(encoding="utf-8") for file in STYLE_FILES)


def head() -> str:
    """What goes into the page's head: the viewport of phones and the scripts of the pages."""
    script = "\n".join(file.read_text(encoding="utf-8") for file in SCRIPT_FILES)
    return f'<meta name="viewport" content="width=device-width, initial-scale=1"><script>{script}</script>'
