# Ours, as a user would start it.
prepare_tenon() {
    true
}

# start_tenon MEMORY_MB VARS SERIAL [ARG]...
start_tenon() {
    memory=$1 vars=$2 serial=$3
    shift 3
    tenon run --memory "${memory}M" --cpus 1 --firmware auto --vars "$vars" --serial file="$serial" \
        --device 0000:01:00.0 --device 0000:01:00.1 --device 0000:00:1b.0 "$@" >/tmp/tenon.log 2>&1 &
    echo $! > /run/monitor.pid
}
