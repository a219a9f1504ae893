"""The web pages. gradio lives here and in app.py only; a page is one file with `build(services) -> gr.Blocks`."""
