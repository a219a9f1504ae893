"""What a link to the app looks like where it is shared: its own title, sentence and picture in place of gradio's."""

from __future__ import annotations

import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse
from gradio.routes import templates
from jinja2 import BaseLoader, ChoiceLoader, DictLoader

from ui.components.html import ASSETS

PICTURE = "preview.png"
PAGE = "frontend/index.html"  # gradio's, for every page


def add_previews(app: FastAPI, title: str, text: str) -> None:
    """Adds the picture's address to `app`, and the tags to the template of all pages."""

    @app.get(f"/{PICTURE}")
    def picture() -> FileResponse:
        return FileResponse(Path(ASSETS / "side_by_side.png"), media_type="image/png")

    loader = templates.env.loader
    assert isinstance(loader, BaseLoader)
    source = loader.get_source(templates.env, PAGE)[0]
    templates.env.loader = ChoiceLoader([DictLoader({PAGE: with_tags(source, title, text)}), loader])


def with_tags(template: str, title: str, text: str) -> str:
    """The template with the tags of Open Graph and Twitter that are meant, and without any that were there."""
    bare = re.sub(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*', "", template)
    address = "{{ config['root'] }}"
    tags = "".join(
        f'<meta {kind}="{name}" content="{content}" />'
        for kind, name, content in (
            ("property", "og:title", title),
            ("property", "og:description", text),
            ("property", "og:type", "website"),
            ("property", "og:url", address),
            ("property", "og:image", f"{address}/{PICTURE}"),
            ("name", "twitter:card", "summary_large_image"),
        )
    )
    return bare.replace("</head>", f"{tags}</head>", 1)
