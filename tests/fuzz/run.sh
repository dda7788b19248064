#!/bin/sh
# Builds and runs a fuzz target with the stable toolchain: fuzz/run.sh [libFuzzer option...]
# With cargo-fuzz and a nightly toolchain `cargo +nightly fuzz run capture` does the same, and checks addresses besides.
set -eu
cd "$(dirname "$0")"
target=x86_64-unknown-linux-gnu
out=${CARGO_TARGET_DIR:-target}
# Named as a target so that build scripts are built without the flags.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
    cargo build --quiet --release --target "$target"
mkdir -p corpus/capture
for host in ../../resources/hosts/*.tar.zst; do
    name=$(basename "$host" .tar.zst)
    { printf '\000'; cat "$host"; } > "corpus/capture/$name.packed"
done
# A small host too, which the fuzzer can take apart as a whole.
small=$(mktemp -d)
trap 'rm -rf "$small"' EXIT
mkdir -p "$small/sys/bus/pci/devices/0000:01:00.0" "$small/sys/kernel/iommu_groups/1/devices" "$small/tenon"
echo 0x10de > "$small/sys/bus/pci/devices/0000:01:00.0/vendor"
echo 0x1401 > "$small/sys/bus/pci/devices/0000:01:00.0/device"
echo 0x030000 > "$small/sys/bus/pci/devices/0000:01:00.0/class"
echo 'format = 1' > "$small/tenon/capture.toml"
ln -s ../../../../kernel/iommu_groups/1 "$small/sys/bus/pci/devices/0000:01:00.0/iommu_group"
ln -s ../../../../bus/pci/devices/0000:01:00.0 "$small/sys/kernel/iommu_groups/1/devices/0000:01:00.0"
for format in gnu pax v7; do
    { printf '\001'; tar --format="$format" -C "$small" -cf - sys tenon; } > "corpus/capture/small.$format"
done
printf '\002\000%064d' 7 > corpus/capture/tampered
exec "$out/$target/release/capture" -rss_limit_mb=1024 -timeout=10 -max_len=65536 "$@" corpus/capture
