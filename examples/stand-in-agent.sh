#!/bin/sh
# A stand-in for an agent, for `jobdb work`: it reads a task on stdin, reports what it does on $JOBDB_EVENTS, and writes
# its answer to the file that is the last word of the task: "sort ten problems into sorted.txt". In its first attempt at
# a task that says so, it crashes ("crash once"), or wants to be asked again later ("busy once").
set -eu
task=$(cat)
report() { echo "progress $*" > "$JOBDB_EVENTS"; }

report "step 1 of 2: think"
case "$JOBDB_ATTEMPT $task" in
    "1 "*"crash once"*) kill -9 $$ ;;
    "1 "*"busy once"*) exit 75 ;;
esac
sleep "${THINK_SEC:-1}"

report "step 2 of 2: write"
echo "The answer to: $task" > "${task##* }"
echo "I have written ${task##* }."
