#!/bin/sh
# Exits 0 once PostgreSQL takes connections. A bare TCP connect would succeed during crash recovery too.
# Reads what `pg_ctl --wait` reads: the eighth line of postmaster.pid. No other program is started.
file=${VOLUME:-${TMPDIR:-/tmp}/postgres}/data/postmaster.pid
number=0
status=
while IFS= read -r line; do
  number=$((number + 1))
  [ "$number" -ne 8 ] || status=$line
done 2>/dev/null <"$file"
case $status in
  ready*) exit 0 ;;
esac
echo "PostgreSQL is not ready yet: ${status:-no server has started}" >&2
exit 1
