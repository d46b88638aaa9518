#!/bin/sh
# The main job, in a temporary folder: import an old registry, register, claim, publish signed events, refuse an altered
# event, complete, show; then a worker that runs three jobs. Prints each command before it runs it.
set -eu
jobdb=${1:-jobdb}
case $jobdb in */*) jobdb=$(cd "$(dirname "$jobdb")" && pwd)/$(basename "$jobdb") ;; esac
examples=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d "${TMPDIR:-/tmp}/jobdb-demo.XXXXXX")
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cp -R "$examples/legacy-registry" old
export XDG_CONFIG_HOME="$folder/config" JOBDB_URL="sqlite:///$folder/jobs.db"

explain() { printf '\n# %s\n' "$*"; }
# Print the command as one would type it: arguments with spaces in quotes.
print_command() { printf '$ jobdb'; for word; do case $word in *' '*) printf " '%s'" "$word" ;; *) printf ' %s' "$word" ;; esac; done; echo; }
run() { print_command "$@"; "$jobdb" "$@"; }
# Run a command that must be refused.
expect_refusal() { print_command "$@"; if "$jobdb" "$@"; then echo "this should have been refused"; exit 1; fi; }

explain "Create a database and import the old registry. Two files are damaged on purpose: they are reported and left alone."
run init
expect_refusal import old
run import old --allow-damaged
run list

explain "Register a job. It gets a token at once; the command prints the job's id."
job=$("$jobdb" register --agent claude-code --expect answers.txt "sort ten problems")
printf '$ jobdb register --agent claude-code --expect answers.txt "sort ten problems"\n%s\n' "$job"

explain "A worker claims the job under a lease. The printed line names the job and the claim for its further commands."
printf '$ eval "$(jobdb claim --job %s --worker demo:1 --export)"\n' "$job"
claimed=$("$jobdb" claim --job "$job" --worker demo:1 --export)
echo "$claimed"
eval "$claimed"

explain "It publishes events: each is numbered and signed. Without the claim's number they would be refused."
run publish started
echo "\$ jobdb publish progress --detail 'step 1 of 2' --data '{\"pct\": 50}' --json > recorded.json"
"$jobdb" publish progress --detail "step 1 of 2" --data '{"pct": 50}' --json > recorded.json
cat recorded.json
expect_refusal publish "$job" progress --attempt 2

explain "A subscriber accepts the recorded event once. The second time it is a duplicate; altered, it is refused."
run accept --subscriber orchestrator recorded.json
run accept --subscriber orchestrator recorded.json
sed 's/step 1 of 2/step 2 of 2/' recorded.json > altered.json
expect_refusal accept --subscriber orchestrator altered.json

explain "The job is completed; no further event is possible."
run complete --detail "all sorted"
expect_refusal publish progress
run show "$job"
run events "$job"
explain "A worker runs three jobs with a stand-in for an agent. One crashes in its first attempt, and is tried again."
run register --agent demo --job-id sort --expect sorted.txt "sort ten problems into sorted.txt"
run register --agent demo --job-id check --expect checked.txt --max-attempts 2 "crash once, then check into checked.txt"
run register --agent demo --job-id report --expect report.txt "report into report.txt"
cp "$examples/stand-in-agent.sh" agent.sh
run work --agent demo --concurrency 2 --until-empty -- sh agent.sh
run list --agent demo
run events check
run logs check
echo
echo "Done. Next: jobdb --help, and docs/tutorial.md"
