"""One file a page: `build(services) -> gr.Blocks`."""
