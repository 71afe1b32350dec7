# Sourced by the scripts beside it. `ensure_venv` makes .venv in the checkout with exactly what
# requirements.lock pins, so that they run on a machine that has nothing but Python.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv

fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Whether .venv can be brought up to date, rather than made anew. One that was moved here cannot: its
# programs name the interpreter by its old path.
usable() {
    is_new_enough "$1" && "$1" -m pip --version >/dev/null 2>&1 &&
        [[ "$(tail -n 1 "$VENV/stamp" 2>/dev/null || printf '%s' "$ROOT")" == "$ROOT" ]]
}

# Whether .venv is of another version than the Python that $PYTHON asks for.
is_other_python() {
    [[ -n "${PYTHON-}" ]] && is_new_enough "$PYTHON" &&
        [[ "$(version_of "$PYTHON")" != "$(version_of "$VENV/bin/python")" ]]
}

version_of() {
    "$1" -c 'import sys; print(sys.version)' 2>/dev/null || true
}

# The Python to make .venv with: $PYTHON if it is set, else the first that is new enough.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        if is_new_enough "$candidate"; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "needs Python 3.11 or newer; ${PYTHON:-python3} is $("${PYTHON:-python3}" -V 2>&1 || true)" \
        "(PYTHON=/path/to/python names another)"
}

# What .venv was made from: the pins, the package's own metadata, and where both are.
wanted_stamp() {
    cksum <"$ROOT/scripts/requirements.lock"
    cksum <"$ROOT/pyproject.toml"
    printf '%s\n' "$ROOT"
}

make_venv() {
    local python
    python=$(find_python)
    if is_other_python || ! usable "$VENV/bin/python"; then
        "$python" -m venv --clear "$VENV" ||
            fail "cannot make $VENV; does $python have the modules venv and ensurepip (Debian: python3-venv)?"
    fi
    # The lock lists build, runtime and development alike, each with its dependencies: nothing is
    # left for pip to resolve, and the same versions run here, in CI and at everyone else's: the same
    # files, for each has its hash there, and one without is refused.
    export PIP_DISABLE_PIP_VERSION_CHECK=1
    "$VENV/bin/python" -m pip install --quiet --no-deps --require-hashes \
        -r "$ROOT/scripts/requirements.lock" ||
        fail "cannot install what scripts/requirements.lock pins; pip's message is above"
    "$VENV/bin/python" -m pip install --quiet --no-deps --no-build-isolation -e "$ROOT" ||
        fail "cannot install allsource itself; pip's message is above"
}

ensure_venv() {
    local wanted
    wanted=$(wanted_stamp)
    if [[ "$(cat "$VENV/stamp" 2>/dev/null)" != "$wanted" ]] || is_other_python; then
        printf 'Setting up %s (this once) ...\n' "$VENV" >&2
        make_venv
        printf '%s\n' "$wanted" >"$VENV/stamp"
    fi
}
