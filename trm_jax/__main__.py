"""▶ The command: trm_jax COMMAND …, the same as python -m trm_jax.COMMAND …

    trm_jax train --config=o1:tiny       trm_jax COMMAND --help
    trm_jax completion bash              for ~/.bashrc: eval "$(trm_jax completion bash)"
    trm_jax --version
"""

import runpy
import sys

from trm_jax import __version__, terminal
from trm_jax.beside import TOOLS, presets, provide
from trm_jax.errors import nearest

COMMANDS = {"train": "trm_jax.train", "evaluate": "trm_jax.evaluate", "solve": "trm_jax.solve",
            "adapt": "trm_jax.adapt", "compare": "trm_jax.compare", "convert": f"{TOOLS}.convert_torch_ckpt"}

# Completes commands, presets behind --config=, and files elsewhere; zsh reads it through bashcompinit.
COMPLETION = """\
_trm_jax() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}}
    # bash breaks words at = and : and counts these as words too
    [ "$word" = "=" ] && word=
    [ "$before" = "=" ] && before=${{COMP_WORDS[COMP_CWORD-2]}}
    [ "$word" = ":" ] && {{ before=:; word=; }}
    case $COMP_CWORD$before in
        1*) COMPREPLY=($(compgen -W "{commands}" -- "$word")) ;;
        *--config) COMPREPLY=($(compgen -W "{presets}" -- "$word") $(compgen -f -X '!*.py' -- "$word")) ;;
        *:) COMPREPLY=($(compgen -W "tiny" -- "$word")) ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -o filenames -F _trm_jax trm_jax
"""


def main() -> None:
    terminal.start()
    words = sys.argv[1:] or ["--help"]
    command, *rest = words
    if command in ("-h", "--help"):
        print(f"{__doc__}\nCOMMAND is one of: {', '.join(COMMANDS)}")
    elif command == "--version":
        print(f"trm_jax {__version__}")
    elif command == "completion":
        print(completion(rest))
    elif command in COMMANDS:
        provide(TOOLS)
        sys.argv[1:] = rest
        runpy.run_module(COMMANDS[command], run_name="__main__", alter_sys=True)
    else:
        sys.exit(f"error: unknown command {command!r}; {nearest(command, COMMANDS)}")


def completion(shell: list[str]) -> str:
    """The script for a shell, "bash" or "zsh"."""
    if shell not in (["bash"], ["zsh"]):
        sys.exit("error: for which shell? trm_jax completion bash, or zsh")
    script = COMPLETION.format(commands=" ".join([*COMMANDS, "completion", "--version", "--help"]),
                               presets=" ".join(presets()))
    return f"autoload -Uz bashcompinit && bashcompinit\n{script}" if shell == ["zsh"] else script


if __name__ == "__main__":
    main()
