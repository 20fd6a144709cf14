"""House rules that no tool checks: the layers, sizes, forbidden calls and forbidden words.

Every rule is a function from a module's text to the places that break it, and is shown to bite on
a made-up text before it is asked of the package.
"""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from frazil.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "frazil"
MODULES = sorted(PACKAGE.rglob("*.py"))

# Imports point to the same layer or to one before it. The package itself holds only the version.
LAYERS = (
    ("__init__", "errors", "settings"),
    ("geometry",),
    ("metrics",),
    ("io",),
    ("simulate",),
    ("store",),
    ("preprocess",),
    ("loader",),
    ("models",),
    ("runs",),
    ("engines",),
    ("analysis",),
    ("dashboard",),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

MAX_MODULE_LINES = 450
MAX_STATEMENTS = 45
MAX_PARAMETERS = 8
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[ast.Module], Iterator[str]]


def layer_of(path: Path) -> str:
    """Return the layer that a file of src/frazil belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_modules(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything a module imports, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def imports_against_the_layers(layer: str) -> Rule:
    """Return the rule that a module of `layer` imports only from layers up to its own."""

    def rule(tree: ast.Module) -> Iterator[str]:
        for line, name in imported_modules(tree):
            if name.startswith("."):
                yield f"line {line}: relative import {name}"
            parts = name.split(".")
            if parts[0] != "frazil":
                continue
            target = parts[1] if len(parts) > 1 else "__init__"
            target = "__init__" if target.startswith("__") else target
            if RANK.get(target, len(LAYERS)) > RANK[layer]:
                yield f"line {line}: {layer} imports {name}"

    return rule


def unpicklers(tree: ast.Module) -> Iterator[str]:
    for line, name in imported_modules(tree):
        if name.split(".")[0] in UNPICKLERS:
            yield f"line {line}: imports {name}"


def assertions(tree: ast.Module) -> Iterator[str]:
    yield from (f"line {n.lineno}: assert" for n in ast.walk(tree) if isinstance(n, ast.Assert))


def unsafe_loads(tree: ast.Module) -> Iterator[str]:
    """Find np.memmap, np.load that does not say allow_pickle=False, and unsafe torch.load."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "memmap":
            yield f"line {node.lineno}: memmap"
        if not isinstance(node, ast.Call):
            continue
        said = {word.arg: ast.unparse(word.value) for word in node.keywords}
        called = ast.unparse(node.func)
        if said.get("allow_pickle", "False") != "False":
            yield f"line {node.lineno}: allow_pickle={said['allow_pickle']}"
        elif called in ("np.load", "numpy.load") and "allow_pickle" not in said:
            yield f"line {node.lineno}: np.load without allow_pickle=False"
        if called == "torch.load" and said.get("weights_only") != "True":
            yield f"line {node.lineno}: torch.load without weights_only=True"


def large_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, Function):
            continue
        statements = sum(isinstance(part, ast.stmt) for part in ast.walk(node)) - 1
        if ast.get_docstring(node) is not None:
            statements -= 1
        if statements > MAX_STATEMENTS:
            yield f"line {node.lineno}: {node.name} has {statements} statements"
        every = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
        given = [argument for argument in every if argument.arg not in ("self", "cls")]
        if len(given) > MAX_PARAMETERS:
            yield f"line {node.lineno}: {node.name} has {len(given)} parameters"


def missing_docstring(tree: ast.Module) -> Iterator[str]:
    if tree.body and not ast.get_docstring(tree):
        yield "line 1: no module docstring"


def words_about_this_workplace(text: str) -> list[str]:
    """Return the mentions of folders that a user of frazil does not have."""
    return re.findall(r"\.\./shared\b|(?<![\w.])/shared\b|/work/\w+", text)


def broken_in(rule: Rule, paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}: {place}"
        for path in paths
        for place in rule(ast.parse(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (imports_against_the_layers("geometry"), "from frazil.io.mrc import read"),
        (imports_against_the_layers("geometry"), "import frazil.cli.main"),
        (imports_against_the_layers("store"), "def f():\n    from frazil import loader"),
        (imports_against_the_layers("store"), "from ..loader import order"),
        (imports_against_the_layers("errors"), "from frazil.geometry import ctf"),
        (imports_against_the_layers("cli"), "from frazil.utils import everything"),
        (unpicklers, "import pickle"),
        (unpicklers, "def f():\n    from pickle import load"),
        (assertions, "def f(x):\n    assert x > 0"),
        (unsafe_loads, "a = np.load(p)"),
        (unsafe_loads, "a = np.load(p, allow_pickle=True)"),
        (unsafe_loads, "np.save(p, a, allow_pickle=flag)"),
        (unsafe_loads, "a = np.memmap(p)"),
        (unsafe_loads, "a = torch.load(p)"),
        (large_functions, "def f():\n" + "    x = 1\n" * (MAX_STATEMENTS + 1)),
        (large_functions, "def f(a, b, c, d, e, /, f, g, *, h, i):\n    pass"),
        (missing_docstring, "import math"),
    ],
)
def test_every_rule_finds_what_breaks_it(rule, text):
    assert list(rule(ast.parse(text)))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (imports_against_the_layers("io"), "from frazil.geometry import ctf\nimport numpy"),
        (imports_against_the_layers("geometry"), "from frazil import __version__"),
        (unpicklers, "import pickletools, json"),
        (unsafe_loads, "a = np.load(p, mmap_mode='r', allow_pickle=False)"),
        (unsafe_loads, "a = torch.load(p, weights_only=True)"),
        (
            large_functions,
            "def f(self, a, b, c, d, e, f, g, h):\n" + "    x = 1\n" * MAX_STATEMENTS,
        ),
        (missing_docstring, '"""Says what it owns."""\nimport math'),
        (missing_docstring, ""),
    ],
)
def test_every_rule_lets_good_code_pass(rule, text):
    assert not list(rule(ast.parse(text)))


def test_the_package_is_found():
    assert PACKAGE / "geometry" / "fourier.py" in MODULES


@pytest.mark.parametrize("layer", RANK)
def test_imports_point_one_way(layer):
    paths = [path for path in MODULES if layer_of(path) == layer]
    assert not broken_in(imports_against_the_layers(layer), paths)


def test_every_module_belongs_to_a_layer():
    assert not {layer_of(path) for path in MODULES} - set(RANK)


@pytest.mark.parametrize("rule", [assertions, unsafe_loads, large_functions, missing_docstring])
def test_no_module_breaks_the_rule(rule):
    assert not broken_in(rule, MODULES)


def test_only_one_file_may_unpickle():
    others = [path for path in MODULES if path != PACKAGE / "io" / "pickles.py"]
    assert not broken_in(unpicklers, others)


def test_no_module_is_too_long():
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert not {str(path): n for path, n in lines.items() if n > MAX_MODULE_LINES}


def test_texts_for_users_speak_of_no_folder_that_they_do_not_have():
    assert words_about_this_workplace("see ../shared/data, /shared/x or /work/main")
    assert not words_about_this_workplace("multiprocessing/shared_memory and a/shared folder")
    folders = [*MODULES, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
    found = {str(path): words_about_this_workplace(path.read_text("utf-8")) for path in folders}
    assert not {path: words for path, words in found.items() if words}


def modules_loaded_by(code: str) -> set[str]:
    """Return the top-level modules that a fresh Python holds after running `code`."""
    report = "\nimport sys\nprint('LOADED', *sorted(m for m in sys.modules if '.' not in m))"
    run = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(run.stdout.rpartition("LOADED")[2].split())


HELP = """
from frazil.cli.main import main
try:
    main(["--help"])
except SystemExit as stop:
    assert stop.code == 0
"""


@pytest.mark.parametrize(
    "code", [HELP, "import frazil.cli.flags, frazil.cli.main, frazil.errors, frazil.settings"]
)
def test_help_needs_no_numerics(code):
    assert not modules_loaded_by(code) & {"torch", "numpy", "scipy", "sklearn", "matplotlib"}


def test_the_probe_sees_torch_when_it_is_imported():
    # Positive control of the test above.
    assert {"torch", "numpy"} <= modules_loaded_by("import frazil.geometry.fourier")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name):
    module_name, help_line = COMMANDS[name]
    module = importlib.import_module(f"frazil.cli.{module_name}")
    assert module.__doc__ and module.__doc__.strip()
    assert callable(module.add_arguments)
    assert callable(module.run)
    assert help_line
    assert not help_line.endswith(".")
