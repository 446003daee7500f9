"""The entry point: command line in, exit code out."""

import os
import sys
from collections.abc import Sequence

import tyro
from tyro.extras import subcommand_cli_from_dict

from .._core.version import __version__
from .adapt import Adapt
from .bundle import Bundle
from .errors import UserError
from .fit import Fit
from .predict import Predict

_COMMANDS = {"bundle": Bundle, "adapt": Adapt, "fit": Fit, "predict": Predict}
_ABOUT = "Neural network kernels in PyTorch. `mercer COMMAND --help` says more; --version too."


def main(args: Sequence[str] | None = None) -> int:
    """Run the ``mercer`` command.

    Parameters
    ----------
    args : sequence of str or None
        The arguments; None for those of the process.

    Returns
    -------
    int
        0 if all went well, 2 if the user can put something right, 130 if interrupted.

    Examples
    --------
    >>> from mercer.cli import main
    >>> main(["bundle", "digits", "--keep", "0"])
    2
    """
    args = list(sys.argv[1:] if args is None else args)
    if args in (["--version"], ["-V"]):
        sys.stdout.write(f"mercer {__version__}\n")
        return 0
    try:
        command = subcommand_cli_from_dict(
            _COMMANDS,
            prog="mercer",
            description=_ABOUT,
            args=args,
            config=(tyro.conf.DisallowNone, tyro.conf.FlagCreatePairsOff),
        )
        command.run()
    except SystemExit as end:  # help, or arguments that do not parse
        return end.code if isinstance(end.code, int) else 2
    except UserError as error:
        sys.stderr.write(f"mercer: {error}\n")
        return 2
    except KeyboardInterrupt:
        hint = "" if args[:1] == ["predict"] else "; the same command with --resume continues"
        sys.stderr.write(f"\nmercer: interrupted{hint}\n")
        return 130
    except BrokenPipeError:  # `mercer ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0
