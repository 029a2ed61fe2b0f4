#!/bin/sh
# Triton's Python backend embeds Python and needs libpythonX.Y.so, which Debian's python3 comes without.
# Usage: libpython.sh PYTHON. Looks for it, and otherwise fetches Debian's package into the virtual environment.
set -eu
python=$1
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
lib=$("$python" -c 'import sys; print(sys.prefix)')/lib

if "$python" -c 'import sys
from rollout.pools.installation import this_machine, LIBPYTHON
sys.exit(0 if any((folder / LIBPYTHON).exists() for folder in this_machine().libraries) else 1)'; then
    exit 0
fi

echo "libpython$version.so is missing; fetching Debian's libpython$version into $lib"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ "$(id -u)" = 0 ]; then apt-get update -qq || true; fi
if (cd "$work" && apt-get download -q "libpython$version" && dpkg-deb -x libpython*.deb root) >"$work/log" 2>&1; then
    find "$work/root" -name "libpython$version.so*" -exec cp -a {} "$lib/" \;
else
    echo "it could not be fetched: install it yourself (Debian, Ubuntu: apt-get install libpython$version)" >&2
    tail -n 2 "$work/log" >&2
fi
