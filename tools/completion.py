#!/usr/bin/env python
"""Prints what a shell runs to complete the commands of spnas, their options and configurations.

bash: add  eval "$(spnas completion bash)"  to ~/.bashrc
zsh:  add  eval "$(spnas completion zsh)"   to ~/.zshrc, behind  autoload -U compinit; compinit
fish: add  spnas completion fish | source   to ~/.config/fish/config.fish
"""

from __future__ import annotations

import argparse


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser.parse_args()


def main(args: argparse.Namespace) -> None:
    import argcomplete

    print(argcomplete.shellcode(["spnas"], shell=args.shell))


if __name__ == "__main__":
    main(parse())
