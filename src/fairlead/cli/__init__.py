"""The command `fairlead`: one function a verb, and the only place where the layers are wired together.

Layer L5. Each verb imports what it needs when it runs, so that `fairlead serve` starts without what only
`fairlead build` uses. Exit codes: 0, 2 for what the user can mend, 1 for a fault of ours, 130 for Ctrl-C.
"""

from __future__ import annotations

import os
import sys
import traceback

import click

from fairlead import __version__
from fairlead.cli import batch, dashboard, models, stream, web
from fairlead.errors import FairleadError

# 128 and the number of SIGINT, as a shell tells it.
INTERRUPTED = 130
_VERBS = (
    models.build,
    models.inspect,
    models.predict,
    models.fetch,
    models.register,
    web.serve,
    web.key,
    stream.stream,
    batch.score,
    batch.schedule,
    dashboard.dashboard,
)


def main() -> None:
    """Run the command, and turn every error into one message and an exit code."""
    try:
        # click would end a Ctrl-C with exit code 1 and a word of its own.
        sys.exit(app(standalone_mode=False))
    except click.Abort:
        sys.stderr.write("fairlead: interrupted\n")
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except FairleadError as error:
        sys.stderr.write(f"fairlead: {error}\n")
        sys.exit(2)
    except BrokenPipeError:
        # Whoever read our output went away, as `head` does; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if os.environ.get("FAIRLEAD_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(
            f"fairlead: a fault of ours, {type(error).__name__}: {error}\n"
            "Run it again with FAIRLEAD_DEBUG=1 for the traceback, and please report it.\n"
        )
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="fairlead", message="%(prog)s %(version)s")
def app() -> None:
    """Turn a trained tabular model into a verified bundle, and the bundle into a service."""


for _verb in _VERBS:
    app.add_command(_verb)
