"""The one table that turns errors into exit codes and messages on the terminal."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from tidemill.core.errors import TidemillError

DONE, FAILED, WRONG_USAGE = 0, 1, 2
INTERRUPTED = 130


class Exit(Exception):
    """Ends the program with an exit code after its message has been shown."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def for_people(as_json: bool = False) -> Iterator[None]:
    """Show what a person must know in place of a traceback, and end with the right exit code.

    Parameters
    ----------
    as_json : bool
        Write the error as one JSON object on standard error.
    """
    try:
        yield
    except TidemillError as error:
        _say(str(error), code=type(error).__name__, as_json=as_json)
        raise Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        _say("Interrupted; every finished trial is kept, see: tidemill studies", code="Interrupted", as_json=as_json)
        raise Exit(INTERRUPTED) from error
    except BrokenPipeError as error:  # the reader of our output went away, `tidemill … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nor may the last flush complain
        raise Exit(DONE) from error
    except OSError as error:  # the system's own word on a file that no room below has put into better ones
        place = f"{error.filename}: " if error.filename else ""
        _say(f"{place}{error.strerror or error}.", code=type(error).__name__, as_json=as_json)
        raise Exit(FAILED) from error
    except MemoryError as error:
        _say("There is not enough memory.", code="MemoryError", as_json=as_json)
        raise Exit(FAILED) from error


def _say(message: str, *, code: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": code, "message": message}), file=sys.stderr)
        return
    print(f"Error: {message}", file=sys.stderr)


def unexpected(error: BaseException) -> int:
    """Report a bug of ours: the traceback, and the request to report it."""
    print("".join(traceback.format_exception(error)), file=sys.stderr)
    print("This is a bug in Tidemill. Please report it with the lines above.", file=sys.stderr)
    return FAILED
