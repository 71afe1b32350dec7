"""The scripts' set-up, on a checkout whose Python and pip only write down what they are asked."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent

FAKE_PYTHON = """\
#!/bin/sh
# `-m venv --clear DIR` makes a fake environment; everything is written down, except the version check.
[ "$2" = 'import sys; print(sys.version)' ] && cat "$0.version" 2>/dev/null
[ "$1" = -c ] && exit {verdict}
echo "$*" >>"{log}"
if [ "$2" = venv ]; then
    mkdir -p "$4/bin" && rm -f "$4/stamp" && cp "$0" "$4/bin/python"
    cat "$0.version" >"$4/bin/python.version" 2>/dev/null
    for tool in ruff mypy pytest coverage; do
        {{
            printf '#!/bin/sh\\necho "%s $*"\\n' $tool
            printf '[ -z "$COVERAGE_FILE" ] || touch "$COVERAGE_FILE.$$"\\n'
            printf 'case "$*" in *fails) exit 1 ;; esac\\n'
        }} >"$4/bin/$tool" && chmod +x "$4/bin/$tool"
    done
    printf '#!/bin/sh\\necho "allsource $*"\\n' >"$4/bin/allsource" && chmod +x "$4/bin/allsource"
fi
exit 0
"""


class Checkout:
    """A folder with our scripts, a pyproject.toml and nothing else."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log = root.parent / "log"
        shutil.copytree(ROOT / "scripts", root / "scripts")
        shutil.copy(ROOT / "pyproject.toml", root)

    def python(self, *, new_enough: bool = True) -> Path:
        path = self.root.parent / "python"
        path.write_text(FAKE_PYTHON.format(verdict=0 if new_enough else 1, log=self.log))
        path.chmod(0o755)
        return path

    def launch(self, python: Path) -> subprocess.CompletedProcess[str]:
        """Run `scripts/launch a.yaml --json` from another directory."""
        return self.run("launch", python, "a.yaml", "--json")

    def run(self, script: str, python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a script from another directory; its temporary files go to `temporary` there."""
        temporary = self.root.parent / "temporary"
        temporary.mkdir(exist_ok=True)
        environment = {"PATH": os.environ["PATH"], "PYTHON": str(python), "TMPDIR": str(temporary)}
        return subprocess.run(
            [self.root / "scripts" / script, *arguments],
            cwd=self.root.parent,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self) -> list[str]:
        """What Python was asked since the last time."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line.replace(str(self.root), "ROOT") for line in lines if line != "-m pip --version"]


INSTALL = [
    "-m pip install --quiet --no-deps --require-hashes -r ROOT/scripts/requirements.lock",
    "-m pip install --quiet --no-deps --no-build-isolation -e ROOT",
]
MAKE = ["-m venv --clear ROOT/.venv", *INSTALL]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout with a space")


def test_the_first_call_sets_up_and_the_second_starts_at_once(checkout: Checkout) -> None:
    first = checkout.launch(checkout.python())
    assert (first.returncode, first.stdout) == (0, "allsource launch a.yaml --json\n")
    assert first.stderr == f"Setting up {checkout.root}/.venv (this once) ...\n"
    assert checkout.calls() == MAKE

    second = checkout.launch(checkout.python())
    assert (second.returncode, second.stdout, second.stderr) == (0, "allsource launch a.yaml --json\n", "")
    assert checkout.calls() == []


@pytest.mark.parametrize("changed", ["pyproject.toml", "scripts/requirements.lock"])
def test_what_changed_is_installed_again(checkout: Checkout, changed: str) -> None:
    checkout.launch(checkout.python())
    checkout.calls()
    with (checkout.root / changed).open("a") as file:
        file.write("# more\n")
    checkout.launch(checkout.python())
    assert checkout.calls() == INSTALL


def test_a_checkout_that_was_moved_is_set_up_anew(checkout: Checkout) -> None:
    """Programs in a virtual environment name its interpreter by the path that it had."""
    checkout.launch(checkout.python())
    checkout.calls()
    checkout.root = checkout.root.rename(checkout.root.with_name("moved"))
    checkout.launch(checkout.python())
    assert checkout.calls() == MAKE


def test_another_python_that_is_asked_for_makes_it_anew(checkout: Checkout) -> None:
    python = checkout.python()
    version = python.with_name("python.version")
    version.write_text("3.11.7")
    checkout.launch(python)
    assert checkout.calls() == MAKE
    version.write_text("3.13.0")
    checkout.launch(python)
    assert checkout.calls() == MAKE
    checkout.launch(python)
    assert checkout.calls() == []


def test_an_old_python_is_one_clear_line(checkout: Checkout) -> None:
    refused = checkout.launch(checkout.python(new_enough=False))
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()[1:]
    assert line.startswith("launch: needs Python 3.11 or newer; ")
    assert not (checkout.root / ".venv").exists()


CHECKS = ["ruff format --check .", "ruff check --quiet .", "mypy --no-error-summary"]
MEASURED = "coverage run -m pytest -p no:cacheprovider"


@pytest.mark.parametrize(
    ("arguments", "calls"),
    [
        ([], ["pytest -m not slow -n 2 tests", "pytest -m not slow integration"]),
        (["--all"], ["pytest -n 2 tests", "pytest integration"]),
        (["tests/config", "-x"], ["pytest -m not slow tests/config -x"]),
        (["--coverage", "a"], [f"{MEASURED} -m not slow a", "coverage combine --quiet", "coverage report"]),
        (["--all", "--coverage", "a"], [f"{MEASURED} a", "coverage combine --quiet", "coverage report"]),
    ],
)
def test_what_is_checked(checkout: Checkout, arguments: list[str], calls: list[str]) -> None:
    done = checkout.run("test", checkout.python(), *arguments)
    assert done.stdout.splitlines() == [*CHECKS, *calls], done.stderr
    assert done.returncode == 0
    assert list((checkout.root.parent / "temporary").iterdir()) == [], "coverage's files are left behind"


@pytest.mark.parametrize(
    ("options", "calls"),
    [
        (["fails"], ["pytest -m not slow fails"]),
        (
            ["--coverage", "fails"],
            [f"{MEASURED} -m not slow fails", "coverage combine --quiet", "coverage report"],
        ),
    ],
)
def test_a_test_that_fails_fails_the_command(
    checkout: Checkout, options: list[str], calls: list[str]
) -> None:
    done = checkout.run("test", checkout.python(), *options)
    assert done.stdout.splitlines() == [*CHECKS, *calls], done.stderr
    assert done.returncode == 1


def test_the_hooks_of_a_commit_check_the_same() -> None:
    (hooks,) = [
        repo["hooks"] for repo in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ]
    checks = [check.removesuffix(" .") for check in CHECKS]
    assert [hook["entry"].removeprefix("scripts/tool ") for hook in hooks] == checks


@pytest.mark.parametrize(
    "name", ["scripts/launch", "scripts/test", "scripts/lock", "scripts/tool", ".ci/run"]
)
def test_scripts_can_be_run(name: str) -> None:
    assert (ROOT / name).stat().st_mode & stat.S_IXUSR
    checked = subprocess.run(["bash", "-n", ROOT / name], capture_output=True, text=True, check=False)
    assert checked.stderr == ""


def locked() -> dict[str, tuple[str, int]]:
    """The lock: of each package its version and how many hashes it has."""
    text = (ROOT / "scripts" / "requirements.lock").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    requirements = [Requirement(line.split(" --hash=")[0]) for line in lines]
    return {
        canonicalize_name(one.name): (str(one.specifier).removeprefix("=="), line.count(" --hash=sha256:"))
        for one, line in zip(requirements, lines, strict=True)
    }


def test_the_lock_pins_each_package_with_hashes() -> None:
    """Otherwise a file that was swapped on its way is installed unseen."""
    for name, (version, hashes) in locked().items():
        assert Version(version), name
        assert hashes, f"{name} has no hash: run scripts/lock"


def test_the_lock_has_what_pyproject_asks_for() -> None:
    """A dependency that is added or raised needs scripts/lock: the environment installs the lock alone."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [one for extra in project["project"]["optional-dependencies"].values() for one in extra]
    pins = locked()
    for requirement in map(Requirement, wanted):
        if requirement.name == "allsource":
            continue
        version, _ = pins.get(canonicalize_name(requirement.name), ("", 0))
        assert version, f"{requirement} is not in the lock: run scripts/lock"
        assert requirement.specifier.contains(version), (
            f"{requirement} is locked as {version}: run scripts/lock"
        )


def test_aiohttp_is_not_older_than_its_last_security_fixes() -> None:
    """A plain `pip install allsource` follows pyproject.toml, not the lock. 3.14.5 mends
    GHSA-2g87-pp6c-29x5 (memory and processor without bound) and GHSA-5wr8-gcqf-gqf3 (no
    timeout for a request's head)."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        dependencies = map(Requirement, tomllib.load(file)["project"]["dependencies"])
    aiohttp = next(one for one in dependencies if one.name == "aiohttp")
    assert not aiohttp.specifier.contains("3.14.4")
