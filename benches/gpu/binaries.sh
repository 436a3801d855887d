# Sets test_binary, bench_binary and gristmill_binary: the packed ones (benches/gpu/pack.sh), or fresh builds where cargo is at hand.
built() {
  cargo "$@" --no-run --message-format json | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1
}
if [ -x benches/gpu/kernels-test ] && [ -x benches/gpu/gpu-bench ] && [ -x benches/gpu/gristmill ]; then
  test_binary=benches/gpu/kernels-test
  bench_binary=benches/gpu/gpu-bench
  gristmill_binary=benches/gpu/gristmill
else
  test_binary=$(built test --release --test kernels)
  bench_binary=$(built bench --bench gpu)
  cargo build --release
  gristmill_binary=target/release/gristmill
fi
