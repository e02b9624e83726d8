#!/bin/sh
# supervise.sh NODE PLATFORM STATE: keeps the host's executor running; started by bootstrap/up, ended by bootstrap/down.
# A crash is followed by a new start within a second, repeated ones by up to ten seconds. Exit code 0 means that the
# executor was told to shut down. The executor's own process holds the lock and no child of it does (Node.js closes what it
# inherited when it starts a program), so the lock says exactly whether an executor runs.
set -u
node=$1 platform=$2 state=$3

# Processes whose parent died come to the subreaper; this shell reaps them. It survives exec, so perl may set it.
if [ "${4:-}" != reaping ] && command -v perl >/dev/null; then
  exec perl -e '
    my %prctl = (x86_64 => 157, aarch64 => 167);
    my $number = $prctl{(POSIX::uname())[4]};
    syscall($number, 36, 1, 0, 0, 0) if $number; # PR_SET_CHILD_SUBREAPER
    exec @ARGV;' -MPOSIX sh "$0" "$node" "$platform" "$state" reaping
fi

echo $$ >"$state/supervise/pid"
trap 'ending=yes; [ -z "${child:-}" ] || kill -TERM "$child" 2>/dev/null' TERM INT
trap '' HUP
ending=no
delay=0
while :; do
  started=$(date +%s)
  flock --no-fork --nonblock --conflict-exit-code 75 "$state/supervise/executor.lock" \
    "$node" "$platform/executor/main.ts" &
  child=$!
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do # A signal for this shell ended the wait, not the executor.
    wait "$child"
    code=$?
  done
  [ "$code" != 0 ] && [ "$code" != 75 ] && [ "$code" != 78 ] && [ "$ending" = no ] || break
  [ $(($(date +%s) - started)) -lt 30 ] && delay=$((delay < 10 ? delay * 2 : 10)) || delay=0
  echo "supervise: the executor ended with code $code; next start in $delay s"
  sleep "$delay"
  [ "$delay" -gt 0 ] || delay=1
done
rm -f "$state/supervise/pid"
echo "supervise: the executor ended with code $code; nothing is left to do"
exit "$code"
