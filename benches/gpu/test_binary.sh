# Sets test_binary: the packed one (benches/gpu/pack.sh), or a fresh build where cargo is at hand.
if [ -x benches/gpu/kernels-test ]; then
  test_binary=benches/gpu/kernels-test
else
  test_binary=$(cargo test --release --test kernels --no-run --message-format json |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
fi
