"""python -m mnist_jax NAME: runs a command, or a recipe of the checkout in the current folder."""

import ast
import os
import pathlib
import runpy
import sys

from mnist_jax.console import tolerant_output
from mnist_jax.errors import suggest_name
from mnist_jax.process import exit_on_signals


def _modules() -> dict[str, tuple[str, pathlib.Path]]:
    """From the names of commands and recipes to their modules and files."""
    commands = pathlib.Path(__file__).parent / "commands"
    recipes = pathlib.Path.cwd() / "experiments"
    found = {path.stem: (f"mnist_jax.commands.{path.stem}", path) for path in sorted(commands.glob("[!_]*.py"))}
    others = {path.stem: (f"experiments.{path.stem}", path) for path in sorted(recipes.glob("[!_]*.py"))}
    return found | {name: place for name, place in others.items() if name not in found}


def _summary(path: pathlib.Path) -> str:
    try:
        return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    except (SyntaxError, ValueError) as error:
        return f"can't be read: {error}"


def _find(modules: dict[str, tuple[str, pathlib.Path]]) -> str | None:
    """The module that the first argument names, which is removed; None where the user asks what there is."""
    if len(sys.argv) < 2 or sys.argv[1] in ("--help", "-h", "help"):
        print("usage: python -m mnist_jax NAME [--FLAG=VALUE ...]; NAME --help lists its flags\n")
        for name, (_, path) in modules.items():
            print(f"  {name:11} {_summary(path)}")
        return None
    name = sys.argv.pop(1)
    if name not in modules:
        print(f"error: there is no command or recipe {name!r}; {suggest_name(name, modules)}", file=sys.stderr)
        sys.exit(2)
    return modules[name][0]


def main() -> None:
    """Runs what the first argument names."""
    exit_on_signals()
    with tolerant_output():
        module = _find(_modules())
    if module:
        sys.path.insert(0, os.getcwd())  # where recipes are
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
