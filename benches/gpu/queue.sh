# What the scripts of the queue (GPU.md) share; sourced. Sets test_binary, bench_binary and gristmill_binary: the packed
# ones (pack.sh), or fresh builds where there are none.
#
# A part that fails or runs out of time is a line in results/queue.txt, and the next goes on. All scripts of one call
# share one deadline, so that a call ends in time by itself:
#   GRISTMILL_SECONDS   seconds that the call may take (560)
#   GRISTMILL_RESULTS   folder of the results (benches/gpu/results)
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 1
results=${GRISTMILL_RESULTS:-benches/gpu/results}
mkdir -p "$results"
results=$(cd "$results" && pwd)
export PYTHONUNBUFFERED=1
export GRISTMILL_RESULTS=$results
export GRISTMILL_DEADLINE=${GRISTMILL_DEADLINE:-$(($(date +%s) + ${GRISTMILL_SECONDS:-560}))}

# built KIND NAME CARGO-ARGUMENTS…: builds, and prints where the executable is.
built() {
  local of="\"kind\":\[\"$1\"\].*\"name\":\"$2\""
  shift 2
  cargo "$@" --release --message-format json | grep "$of" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}
# The pack holds them compressed: its files are to be small enough to be carried (pack.sh).
for name in kernels-test gpu-bench gristmill; do
  packed=benches/gpu/$name
  if [ -f "$packed.gz" ] && [ ! -x "$packed" ]; then
    gzip -dc "$packed.gz" >"$packed.part" && chmod +x "$packed.part" && mv "$packed.part" "$packed"
  fi
done
if [ -x benches/gpu/kernels-test ] && [ -x benches/gpu/gpu-bench ] && [ -x benches/gpu/gristmill ]; then
  test_binary=benches/gpu/kernels-test
  bench_binary=benches/gpu/gpu-bench
  gristmill_binary=benches/gpu/gristmill
  # What does not start here would fail part by part: say why once. gristmill is the most demanding of the three.
  if [ -z "${GRISTMILL_TRIED:-}" ] && ! said=$("$gristmill_binary" --version 2>&1); then
    echo "gristmill does not start on this machine: $said" >&2
    echo "hint: the pack is for Linux on x86-64 with glibc 2.35 or later (2.34 for all but r1_mini); here: $(ldd --version 2>&1 | head -n 1)" >&2
    "$test_binary" --list >/dev/null 2>&1 || exit 1
  fi
  export GRISTMILL_TRIED=1
else
  test_binary=$(built test kernels test --test kernels --no-run)
  bench_binary=$(built bench gpu build --bench gpu)
  gristmill_binary=$(built bin gristmill build)
fi

# part NAME SECONDS FILE COMMAND…: runs it for at most so long, its output behind that of FILE.
part() {
  local name=$1 limit=$2 file=$results/$3 started left code said
  shift 3
  started=$(date +%s)
  left=$((GRISTMILL_DEADLINE - started))
  if [ "$left" -lt 5 ]; then
    said="NOT RUN: no time was left"
  else
    if [ "$limit" -gt "$left" ]; then limit=$left; fi
    printf '\n== %s (at most %d s)\n' "$name" "$limit" | tee -a "$file"
    timeout --kill-after=5 "$limit" "$@" </dev/null 2>&1 | tee -a "$file"
    code=${PIPESTATUS[0]}
    case $code in
      0) said=ok ;;
      124 | 137) said="OUT OF TIME after $limit s" ;;
      69) said="NOT RUN: its last line says why" ;;
      *) said="FAILED with $code" ;;
    esac
  fi
  printf '%s: %s (%d s)\n' "$name" "$said" $(($(date +%s) - started)) | tee -a "$results/queue.txt"
}

# tests NAME SECONDS FILE FILTER…: tests of the kernels on the card. Those that failed are kept for `alone`.
on_card=(env GRISTMILL_TEST_DEVICE=cuda "$test_binary" --test-threads 1 --nocapture)
failed_tests=()
tests() {
  local name=$1 limit=$2 file=$3 failed
  shift 3
  part "$name" "$limit" "$file" "${on_card[@]}" "$@"
  tail -n 1 "$results/queue.txt" | grep -q ': FAILED' || return 0
  mapfile -t failed < <(sed -n "/^== $name (/,\$p" "$results/$file" | sed -n '/^failures:$/,/^test result/s/^    \([a-z0-9_:]*\)$/\1/p' | sort -u | head -n 8)
  failed_tests+=("${failed[@]}")
}

# alone FILE: runs tests that failed again, each in a process of its own, at most eight of a part. A fault of the card lasts as long as
# its process: what fails alone too has failed by itself. After all parts, since one fault can fail dozens of tests.
alone() {
  local failed
  for failed in ${failed_tests[@]+"${failed_tests[@]}"}; do
    part "alone: $failed" 40 "$1" "${on_card[@]}" --exact "$failed"
  done
}

# once NAME SECONDS FILE COMMAND…: a part that FILE does not have whole yet, so that another call goes on where the last ended.
once() {
  if grep -qxF "== $1: whole" "$results/$3" 2>/dev/null; then
    echo "$1: ok (in an earlier call)" | tee -a "$results/queue.txt"
    return
  fi
  part "$@"
  if tail -n 1 "$results/queue.txt" | grep -q ': ok'; then echo "== $1: whole" >>"$results/$3"; fi
}

# Begins a script: its results are written anew.
begin() {
  local file
  for file in "$@"; do : >"$results/$file"; done
}

# 0 if every part so far was done and passed.
all_passed() {
  [ -s "$results/queue.txt" ] && ! grep -q ': \(FAILED\|OUT OF TIME\|NOT RUN\)' "$results/queue.txt"
}
