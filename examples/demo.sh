#!/bin/sh
# The main job from end to end, in a folder of its own: import an old registry, claim, publish signed events,
# refuse a replay, complete, show. Prints each command before it runs it.
set -eu
jobdb=${1:-jobdb}
case $jobdb in */*) jobdb=$(cd "$(dirname "$jobdb")" && pwd)/$(basename "$jobdb") ;; esac
examples=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d "${TMPDIR:-/tmp}/jobdb-demo.XXXXXX")
trap 'rm -rf "$place"' EXIT
cd "$place"
cp -R "$examples/legacy-registry" old
export XDG_CONFIG_HOME="$place/config" JOBDB_URL="sqlite:///$place/jobs.db"

say() { printf '\n# %s\n' "$*"; }
# The command as one would type it: arguments with blanks in quotes.
typed() { printf '$ jobdb'; for word; do case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; echo; }
run() { typed "$@"; "$jobdb" "$@"; }
# A step whose answer is no, and is meant to be no.
refused() { typed "$@"; if "$jobdb" "$@"; then echo "that should have been refused"; exit 1; fi; }

say "An empty database, and the old registry imported into it. Two files are damaged on purpose: named, left alone."
run init
refused import old
run import old --allow-damaged
run list

say "A new job. It has a token from the start; what is printed is its id."
job=$("$jobdb" register --agent claude-code --expect answers.txt "sort ten problems")
printf '$ jobdb register --agent claude-code --expect answers.txt "sort ten problems"\n%s\n' "$job"

say "A worker claims it and says how it goes: every event is numbered and signed."
run claim --job "$job" --worker demo:1
run publish "$job" started --attempt 1
echo "\$ jobdb publish $job progress --attempt 1 --detail 'step 1 of 2' --data '{\"pct\": 50}' --json > recorded.json"
"$jobdb" publish "$job" progress --attempt 1 --detail "step 1 of 2" --data '{"pct": 50}' --json > recorded.json
cat recorded.json

say "A subscriber accepts the recorded event once. Again is a redelivery; altered, it does not verify."
run accept --subscriber orchestrator recorded.json
run accept --subscriber orchestrator recorded.json
sed 's/step 1 of 2/step 2 of 2/' recorded.json > altered.json
refused accept --subscriber orchestrator altered.json

say "The job is completed, and nothing can follow."
run complete "$job" --attempt 1 --detail "all sorted"
refused publish "$job" progress --attempt 1
run show "$job"
run events "$job"
echo
echo "Done. Next: jobdb --help, and docs/tutorial.md"
