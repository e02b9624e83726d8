# shim.sh RUN-FOLDER [FILE…] -- COMMAND…: runs COMMAND and outlives the executor to write down how it ended.
# It holds no state but three files in the run folder: `shim` and `child`, lines of /proc/PID/stat that name the two
# processes for good, and `exit`, the code; the time of the end is the file's. COMMAND joins the cgroups whose files are given.
run=$1
shift
ulimit -c 0
read -r line </proc/self/stat
echo "$line" >"$run/shim"
# Stop signals go to the whole process group. A caught signal is reset for the command, an ignored one would stay ignored.
trap : TERM INT QUIT HUP USR1 USR2
# In the foreground, because a shell makes its background commands deaf to SIGINT.
(
  read -r line </proc/self/stat
  echo "$line" >"$run/child"
  while [ "$1" != -- ]; do
    echo 0 >"$1" || :
    shift
  done 2>/dev/null
  shift
  exec "$@"
)
echo $? >"$run/exit"
