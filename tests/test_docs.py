"""The docs do what they say: their commands run, and their links lead somewhere.

Each ```console block that begins with "$ frazil" is run, page by page, in an empty folder; a page
simulates the data that it uses. A block marked ```console no-run is left out.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from frazil.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*sorted(ROOT.glob("*.md")), *DOCS]

BLOCK = re.compile(
    r"^```console[ \t]*(?P<mark>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def commands_of(page: str) -> list[str]:
    """Return the commands of a page that are to be run, in order, continuation lines joined."""
    found = []
    for block in BLOCK.finditer(page):
        text = block["text"].replace("\\\n", " ")
        if block["mark"].strip() != "no-run" and text.startswith("$ frazil"):
            found += [
                line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ ")
            ]
    return found


def run_all(commands: list[str], folder: Path) -> None:
    """Run commands in a folder with this environment's `frazil`; the first failure is an error."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = {**os.environ, "PATH": os.pathsep.join(folders)}
    for command in commands:
        run = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
        )
        if run.returncode:
            pytest.fail(f"$ {command}\nexit code {run.returncode}\n{run.stdout}{run.stderr}")


@pytest.mark.parametrize(
    "page",
    [page for page in DOCS if commands_of(page.read_text("utf-8"))],
    ids=lambda page: page.stem,
)
def test_the_commands_of_a_page_run(page, tmp_path):
    run_all(commands_of(page.read_text("utf-8")), tmp_path)


def test_there_are_pages_with_commands():
    assert any(commands_of(page.read_text("utf-8")) for page in DOCS)


def test_a_command_that_fails_is_seen(tmp_path):
    # Positive control of the runner.
    run_all(["frazil --version"], tmp_path)
    with pytest.raises(pytest.fail.Exception, match=r"no_such_command[\s\S]*exit code 2"):
        run_all(["frazil --version", "frazil no_such_command"], tmp_path)


def test_commands_are_found_in_console_blocks_only():
    page = """
```console
$ frazil one \\
    --flag
what it prints
$ frazil two
```
```console no-run
$ frazil three
```
```python
$ frazil four
```
```console
$ ls
```
"""
    assert commands_of(page) == ["frazil one      --flag", "frazil two"]


def test_the_table_of_small_commands_says_what_the_program_says():
    rows = re.findall(
        r"^\| `(\w+)` \| ([^|]+) \|", (ROOT / "docs/tools.md").read_text("utf-8"), re.M
    )
    assert len(rows) == 13
    assert {name: COMMANDS[name][1] for name, _ in rows} == dict(rows)


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead to no file."""
    targets = [link["target"].partition("#")[0] for link in LINK.finditer(page.read_text("utf-8"))]
    relative = [target for target in targets if target and "://" not in target]
    return [target for target in relative if not (page.parent / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    assert not broken_links(page)


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#top) [b](https://x.org/y) [c](none.md)", encoding="utf-8")
    assert broken_links(page) == ["none.md"]
