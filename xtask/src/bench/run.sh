#!/bin/sh
# Tests and measures moetrace on the GPU of this machine; everything goes into results.txt, of which
# `cargo xtask bench --from results.txt` makes a document.
#
#   ./run.sh [PEER COMMAND...]     e.g. ./run.sh "python peer_torch.py grouped compile"
#
# Needs the NVIDIA driver, NVRTC and cuBLASLt: a CUDA toolkit that CUDA_HOME names, or a Python environment whose
# site-packages folder MOETRACE_SITE_PACKAGES names. MOETRACE_BENCH_MODEL=DIR measures whole passes of a checkpoint,
# MOETRACE_TIER=NAME those that a smaller card has room for. SKIP_TESTS=1 only measures.
set -u
cd "$(dirname "$0")" || exit 1
MOETRACE_TEST_CUDA=1
MOETRACE_FIXTURES="$PWD/fixtures"
CRITERION_HOME="$PWD/criterion"
export MOETRACE_TEST_CUDA MOETRACE_FIXTURES CRITERION_HOME
: > results.txt
# PROVENANCE
failed=0
step() {
    printf '== %s\n' "$*" | tee -a results.txt
    if ! "$@" >> results.txt 2>&1; then
        printf '== failed: %s\n' "$*" | tee -a results.txt
        failed=1
    fi
}
if [ "${SKIP_TESTS:-0}" != 1 ]; then
    step ./gpu-tests
fi
step ./gpu-bench --bench
for peer in "$@"; do
    step sh -c "$peer"
done
grep -E 'moetrace-bench|^test .*FAILED|^test result|tok/s|^== ' results.txt
exit "$failed"
