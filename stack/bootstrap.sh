#!/bin/sh
# Makes .venv once: finds a Python that fits, installs the locked dependencies and the checkout. `make` calls it.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "$1" >&2
    exit 2
}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null
}

stamp=$(cat requirements.lock pyproject.toml | cksum)
if [ -f .venv/stamp ] && [ "$(cat .venv/stamp)" = "$stamp" ] && [ -x .venv/bin/python ]; then
    exit 0
fi

if [ -x .venv/bin/python ]; then
    fits .venv/bin/python || fail "The folder .venv holds a Python that is neither 3.11 nor 3.12: remove it and run make again."
else
    python=
    for candidate in ${PYTHON:-} python3.12 python3.11 python3 python "$HOME"/.pyenv/versions/3.1[12].*/bin/python; do
        if fits "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] || fail "Fanline needs CPython 3.11 or 3.12, and none was found (python3 is $(python3 --version 2>/dev/null || echo missing)): install one, or run make PYTHON=/path/to/python3.12."
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make virtual environments: install its venv package, for example with apt-get install python3-venv."
    free=$(df -Pk . | awk 'NR == 2 { print $4 }')
    [ "$free" -gt 3000000 ] || fail "Fanline needs 3 GB of disk for its dependencies, servers and data, and $((free / 1024)) MB are free here."
    echo "making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi

echo "installing the locked dependencies"
quiet=-q
[ -t 1 ] && quiet=
.venv/bin/python -m pip install $quiet --disable-pip-version-check --require-hashes -r requirements.lock ||
    fail "The dependencies could not be installed: the lines above say why."
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . ||
    fail "The checkout could not be installed into .venv: the lines above say why."
echo "$stamp" > .venv/stamp
