"""``jaxrelax completion``: a script that needs nothing but the shell."""

from __future__ import annotations

import importlib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import tyro

from jaxrelax.cli.commands import COMMANDS
from jaxrelax.cli.option_list import Option, options_of

Shell = Literal["bash", "zsh", "fish"]


@dataclass(frozen=True)
class Command:
    """Print a script that completes commands, options and their words in a shell.

    bash: eval "$(jaxrelax completion bash)" in ~/.bashrc; zsh: the same, after compinit, in
    ~/.zshrc; fish: jaxrelax completion fish > ~/.config/fish/completions/jaxrelax.fish. As it takes
    some seconds to make, better keep the script in a file and source that.
    """

    shell: tyro.conf.Positional[Shell]
    """The shell."""

    def run(self) -> None:
        """Print the script."""
        print(script(self.shell), end="")


def script(shell: Shell) -> str:
    """The script of a shell, for all commands."""
    options = {
        name: options_of(importlib.import_module(f"jaxrelax.cli.{name.replace('-', '_')}").Command)
        for name in COMMANDS
    }
    return {"bash": bash, "zsh": zsh, "fish": fish}[shell](options)


def bash(options: Mapping[str, Sequence[Option]]) -> str:
    """For bash: file names where nothing else is known."""
    return _FUNCTION.format(
        first="# Completion of jaxrelax for bash, made by `jaxrelax completion bash`.",
        locals=(
            '    local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"\n'
            '    local command="${COMP_WORDS[1]}" place=$COMP_CWORD known=""'
        ),
        commands=" ".join(_first_words()),
        cases=_cases(options),
        last='    COMPREPLY=($(compgen -W "$known" -- "$word"))',
        register="complete -o bashdefault -o default -F _jaxrelax jaxrelax",
    )


def zsh(options: Mapping[str, Sequence[Option]]) -> str:
    """For zsh, to be sourced after ``compinit``."""
    return _FUNCTION.format(
        first="# Completion of jaxrelax for zsh, made by `jaxrelax completion zsh`.",
        locals=(
            '    local word="${words[CURRENT]}" before="${words[CURRENT-1]}"\n'
            '    local command="${words[2]}" place=$((CURRENT - 1)) known=""'
        ),
        commands=" ".join(_first_words()),
        cases=_cases(options),
        last=(
            '    if [[ -n "$known" ]]; then\n'
            "        compadd -- ${=known}\n"
            "    else\n"
            "        _files\n"
            "    fi"
        ),
        register="compdef _jaxrelax jaxrelax",
    )


def fish(options: Mapping[str, Sequence[Option]]) -> str:
    """For fish, with what every command does."""
    lines = [
        "# Completion of jaxrelax for fish, made by `jaxrelax completion fish`.",
        "complete -c jaxrelax -e",
        "complete -c jaxrelax -n __fish_use_subcommand -f",
    ]
    for name, text in COMMANDS.items():
        quoted = text.replace("'", r"\'")
        lines.append(f"complete -c jaxrelax -n __fish_use_subcommand -f -a {name} -d '{quoted}'")
    for word in ("help", "version"):
        lines.append(f"complete -c jaxrelax -n __fish_use_subcommand -f -l {word}")
    for name, known in options.items():
        where = f"complete -c jaxrelax -n '__fish_seen_subcommand_from {name}'"
        if name == "completion":
            lines.append(f"{where} -f -a '{' '.join(typing.get_args(Shell))}'")
        for option in known:
            line = where + "".join(
                f" -l {one[2:]}" if one.startswith("--") else f" -s {one[1:]}"
                for one in option.names
            )
            if option.choices and not option.takes_path:
                line += f" -x -a '{' '.join(option.choices)}'"
            elif option.takes_value:
                line += " -r" if option.takes_path else " -x"
            lines.append(line)
    return "\n".join(lines) + "\n"


def _first_words() -> list[str]:
    return [*COMMANDS, "--help", "--version"]


def _cases(options: Mapping[str, Sequence[Option]]) -> str:
    """Words by command and the option before; where there are none, options of the command."""
    lines = []
    for name, known in options.items():
        for option in known:
            if option.choices:
                asked = "|".join(f'"{name} {one}"' for one in option.names)
                lines.append(f'        {asked}) known="{" ".join(option.choices)}" ;;')
    lines.append(f'        "completion completion") known="{" ".join(typing.get_args(Shell))}" ;;')
    lines.append("        *)")
    lines.append('            if [[ "$word" == -* ]]; then')
    lines.append('                case "$command" in')
    for name, known in options.items():
        flags = " ".join(one for option in known for one in option.names)
        lines.append(f'                    {name}) known="{flags}" ;;')
    lines += ["                esac", "            fi", "            ;;"]
    return "\n".join(lines)


_FUNCTION = """{first}
_jaxrelax() {{
{locals}
    if [[ $place -le 1 ]]; then
        known="{commands}"
    else
        case "$command $before" in
{cases}
        esac
    fi
{last}
}}
{register}
"""
