# Sourced by bin/run and bin/test: finds a Python and brings the virtual environment up to date. POSIX sh.

fail() { printf '%s: %s\n' "$(basename "$0")" "$1" >&2; exit 1; }

# Prints the first Python from 3.11 to 3.13.
find_python() {
  for name in ${AUDITPORTAL_PYTHON:-python3.13 python3.12 python3.11 python3}; do
    if command -v "$name" >/dev/null 2>&1 &&
      "$name" -c 'import sys; sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13)))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail 'Python 3.11, 3.12 or 3.13 is needed (Debian: apt-get install python3; macOS: brew install python@3.13)'
}

hash_of() { "$1" -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$2"; }


INSTALL_FAILED='the packages could not be installed; is the package index reachable?'

# ensure_pip BASE: sets PIP to a command that installs into .venv. Debian's python3 comes without ensurepip and pip.
ensure_pip() {
  if "$PYTHON" -m pip --version >/dev/null 2>&1 || "$PYTHON" -m ensurepip >/dev/null 2>&1; then
    PIP="\"$PYTHON\" -m pip"
  elif "$1" -m pip --python "$PYTHON" --version >/dev/null 2>&1; then
    PIP="\"$1\" -m pip --python \"$PYTHON\""
  elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    printf 'installing python3-venv, which brings pip\n'
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv; } >/dev/null 2>&1 ||
      fail 'apt-get install python3-venv failed'
    "$PYTHON" -m ensurepip >/dev/null 2>&1 || "$1" -m venv --clear "$venv" || fail 'python3 -m venv failed'
    PIP="\"$PYTHON\" -m pip"
  elif "$PYTHON" "$ROOT/bin/fetch_pip.py" "$venv/pip.whl"; then
    PIP="\"$PYTHON\" \"$venv/pip.whl/pip\""
  else
    fail 'this Python has neither pip nor ensurepip: apt-get install python3-venv (or install uv), then run this again'
  fi
}

# make_environment LOCK: .venv holds exactly what the lock names; nothing is done when it does already.
make_environment() {
  lock=$ROOT/$1
  venv=$ROOT/.venv
  if [ -n "${AUDITPORTAL_VENV:-}" ]; then PYTHON=$AUDITPORTAL_VENV/bin/python; return; fi
  PYTHON=$venv/bin/python
  noted=$venv/.auditportal-lock
  if [ -x "$PYTHON" ] && [ -f "$noted" ]; then
    wanted=$(hash_of "$PYTHON" "$lock")
    # The development lock contains the other one, so bin/run is content with it.
    if grep -q "$wanted" "$noted"; then return; fi
  fi
  base=$(find_python) || exit 1
  printf 'setting up .venv with %s\n' "$("$base" --version)"
  if command -v uv >/dev/null 2>&1; then
    [ -x "$PYTHON" ] || uv venv --quiet --python "$base" "$venv" || fail 'uv venv failed'
    uv pip install --quiet --python "$PYTHON" --require-hashes -r "$lock" || fail "$INSTALL_FAILED"
  else
    [ -x "$PYTHON" ] || "$base" -m venv "$venv" 2>/dev/null || "$base" -m venv --without-pip --clear "$venv" ||
      fail 'python3 -m venv failed'
    ensure_pip "$base"
    eval "$PIP install --quiet --disable-pip-version-check --require-hashes -r \"\$lock\"" || fail "$INSTALL_FAILED"
  fi
  hash_of "$PYTHON" "$lock" >"$noted"
  if [ "$1" = requirements-dev.lock ]; then hash_of "$PYTHON" "$ROOT/requirements.lock" >>"$noted"; fi
}
