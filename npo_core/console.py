"""What the command lines share: quiet libraries, threads that make room, one sentence for a user's mistake."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable

from npo_core.errors import InputError
from npo_core.process import settle


def hush_libraries() -> None:
    """Keeps the loading bars and advice of diffusers and transformers off the terminal; their errors still show.

    Call it before anything imports diffusers, which gives advice while it is imported.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="diffusers")


def exit_status(command: Callable[[], None]) -> int:
    """Runs `command`: 0 when it is done, 2 with `error: SENTENCE` on stderr when the user's input was wrong."""
    settle()
    try:
        command()
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the lines, such as `head`, has had enough of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
