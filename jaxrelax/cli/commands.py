"""Which command was asked for, and what happens when it cannot be done.

Only the module of that command is imported, so that help comes up without waiting for the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.metadata
import os
import platform
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from jaxrelax.cli.interrupts import INTERRUPTED, told
from jaxrelax.cli.output_pipe import unread_output

COMMANDS = {
    "refine": "refine particles, with or without symmetry relaxation",
    "test-symmetry": "say which symmetry the images support",
    "simulate": "make a data set with known truth from a model, a map or a phantom",
    "reconstruct": "reconstruct a map at given poses",
    "align": "put the symmetry axes of a map where they belong, and the poses with them",
    "predict": "say how well registers could be told apart, image by image",
    "select": "write the particles of a run that are in a state or a register",
    "subtract": "take what lies outside a mask away from the images, for other programs",
    "expand": "write particles at all of their symmetry-related poses, for other programs",
    "subparticles": "write a site of every particle, in each of its copies, as particles",
    "replay": "say where criteria would have stopped runs that are over",
    "status": "say how far runs have come, and how they go on",
    "compare": "put finished runs side by side",
    "inspect": "say what a file holds, and whether a refinement would take it",
    "demo": "simulate, relax and compare with the truth, to see that everything works",
    "completion": "print what completes commands and options in a shell",
}
# These need nothing that takes time to import.
LIGHT = ("status",)
FAULT, BAD_INPUT, LOST = 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status.

    That is 0, 1 where ``inspect`` found something that a refinement would refuse or ``status`` a
    folder without a run, 2 for bad input, 3 when another process of the run was lost, 130 when
    interrupted.
    One of several processes that met an error does not return: it ends there.

    Args:
        argv: arguments without the program's name; those of the process by default.

    Raises:
        SystemExit: from the parser: status 0 after ``--help``, 2 for unknown options.
    """
    status = 0
    with unread_output():
        status = _run(list(sys.argv[1:] if argv is None else argv))
    return status


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if argv else BAD_INPUT
    if argv[0] == "--version":
        print(f"jaxrelax {importlib.metadata.version('jaxrelax')}")
        return 0
    if argv[0] not in COMMANDS:
        _complain(f"there is no command '{argv[0]}'. Commands: {', '.join(COMMANDS)}.")
        return BAD_INPUT
    if argv[0] in LIGHT:
        return _run_light(*argv)
    from jaxrelax.cli.misread_options import misread
    from jaxrelax.cli.options import most_used, parsed
    from jaxrelax.cli.processes import guard, leave, together
    from jaxrelax.engine.memory import few_heaps
    from jaxrelax.io.errors import InputError

    name, rest = argv[0], argv[1:]
    asked = None
    few_heaps()
    try:
        _keep_programs()
        command = importlib.import_module(f"jaxrelax.cli.{name.replace('-', '_')}").Command
        if "--help-all" in rest:
            rest = ["--help"]
        elif {"-h", "--help"} & set(rest):
            command = most_used(command)
        elif (wrong := misread(command, rest)) is not None:
            raise InputError(wrong)
        asked = parsed(command, f"jaxrelax {name}", rest)
        with told():
            outcome = asked.run()
    except InputError as error:
        _complain(str(error))
        return leave(BAD_INPUT)
    except KeyboardInterrupt:
        _complain(getattr(asked, "interrupted", "interrupted."))
        return leave(INTERRUPTED)
    except Exception as error:
        from jaxrelax.engine.workers import WorkerLost

        if isinstance(error, WorkerLost):
            _complain(f"{error}.")
            return leave(LOST)
        if together():
            traceback.print_exc()
            leave(FAULT)
        raise
    finally:
        guard.release()
    return outcome if isinstance(outcome, int) else 0


def _run_light(name: str, *rest: str) -> int:
    """A command that is there in a moment, and complains by itself."""
    import tyro

    from jaxrelax.cli.misread_options import misread

    command = importlib.import_module(f"jaxrelax.cli.{name}").Command
    rest = tuple("--help" if word == "--help-all" else word for word in rest)
    if not {"-h", "--help"} & set(rest) and (wrong := misread(command, rest)) is not None:
        _complain(wrong)
        return BAD_INPUT
    return tyro.cli(command, prog=f"jaxrelax {name}", args=rest).run()


def overview() -> str:
    """What ``jaxrelax --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = ["usage: jaxrelax COMMAND [options]", "", "commands:"]
    lines += [f"  {name.ljust(width)}  {text}" for name, text in COMMANDS.items()]
    lines += [
        "",
        "`jaxrelax COMMAND --help` lists the options of a command, --help-all all of them.",
    ]
    return "\n".join(lines)


def _keep_programs() -> None:
    """Have JAX keep compiled programs for the next run; ``JAX_COMPILATION_CACHE_DIR`` says where.

    By default in the cache folder of the user.

    By processor, because compiled code may use instructions that another one does not have; home
    folders are shared in a cluster.
    """
    import jax
    import platformdirs

    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    processor = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor += next((line for line in lines if line.startswith("flags")), "")
    name = hashlib.sha256(processor.encode()).hexdigest()[:12]
    folder = platformdirs.user_cache_path("jaxrelax") / "programs" / name
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _complain(message: str) -> None:
    print(f"jaxrelax: {message}", file=sys.stderr, flush=True)
