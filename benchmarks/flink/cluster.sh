#!/usr/bin/env bash
# Apache Flink on this host, with Beam's job server in front of it; prints the Beam options to use.
#   cluster.sh embedded     a job server with a cluster inside it: one process
#   cluster.sh standalone   a job manager, a task manager and a job server: three processes
#   cluster.sh stop
# Needs Java 11 or 17 and Maven. FLINK_HOME (build/flink) keeps jar, logs and process ids; REST_PORT,
# RPC_PORT and JOB_PORT choose other ports, SLOTS more slots.
set -euo pipefail
pom=$(cd "$(dirname "$0")" && pwd)/pom.xml
home=${FLINK_HOME:-$(dirname "$pom")/../../build/flink}
mkdir -p "$home/conf" && cd "$home"
rest=${REST_PORT:-8081} job=${JOB_PORT:-8099} jar=flink-job-server.jar slots=${SLOTS:-4}

stop() {
    for pid in *.pid; do
        [ -e "$pid" ] && { kill "$(<"$pid")" 2>/dev/null || true; rm "$pid"; }
    done
    return 0
}

build() {
    cp "$pom" pom.xml
    mvn --batch-mode --quiet package >&2
    mv target/flink-job-server-1.jar "$jar"
}

configure() { # without a distribution's scripts to work them out, Flink wants every size of memory
    cat > conf/config.yaml <<END
jobmanager: {rpc: {address: 127.0.0.1, port: ${RPC_PORT:-6123}}, bind-host: 127.0.0.1}
rest: {address: 127.0.0.1, bind-address: 127.0.0.1, port: $rest}
taskmanager:
  host: 127.0.0.1
  bind-host: 127.0.0.1
  numberOfTaskSlots: $slots
  cpu: {cores: 2}
  memory:
    framework: {heap: {size: 128m}, off-heap: {size: 128m}}
    task: {heap: {size: 384m}, off-heap: {size: 0m}}
    managed: {size: 128m}
    network: {min: 128m, max: 128m}
    jvm-metaspace: {size: 256m}
    jvm-overhead: {min: 192m, max: 192m}
  network: {sort-shuffle: {min-buffers: 32}}
io: {tmp: {dirs: $PWD/tmp}}
blob: {service: {cleanup: {interval: 30}}} # each job brings the jar anew
classloader: {resolve-order: parent-first}
END
}

launch() { # NAME JAVA-ARGUMENTS...
    local name=$1 opens
    shift
    opens=$(printf -- '--add-opens=java.base/%s=ALL-UNNAMED ' \
        java.{io,lang,lang.reflect,net,nio,text,time,util} java.util.concurrent{,.atomic,.locks} sun.nio.ch)
    # shellcheck disable=SC2086
    nohup java $opens "$@" > "$name.log" 2>&1 < /dev/null &
    echo $! > "$name.pid"
}

launch_job_server() { # MASTER
    launch jobserver -Xmx512m -jar "$jar" --flink-master="$1" --job-host=127.0.0.1 --job-port="$job" \
        --artifact-port=0 --expansion-port=0 --artifacts-dir="$PWD/artifacts"
}

launch_cluster() {
    local flink=org.apache.flink.runtime
    launch jobmanager -Xmx512m -cp "$jar" $flink.entrypoint.StandaloneSessionClusterEntrypoint --configDir conf
    launch taskmanager -Xmx512m -XX:MaxDirectMemorySize=384m -cp "$jar" \
        $flink.taskexecutor.TaskManagerRunner --configDir conf
}

is_open() { (: <> "/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

has_task_manager() { # asks the job manager, without curl
    exec 3<> "/dev/tcp/127.0.0.1/$rest" || return 1
    printf 'GET /overview HTTP/1.0\r\n\r\n' >&3
    grep -q '"taskmanagers":1' <&3
} 2>/dev/null

is_ready() { is_open "$job" && { [ "$1" = embedded ] || (has_task_manager); }; }

case ${1:-} in
    stop) stop; exit ;;
    embedded | standalone) ;;
    *) sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
if compgen -G '*.pid' > /dev/null; then
    echo "a cluster runs already, or did: $0 stop" >&2
    exit 1
fi
[ -e "$jar" ] || build
if [ "$1" = embedded ]; then
    launch_job_server '[local]'
else
    configure
    launch_cluster
    launch_job_server "127.0.0.1:$rest"
fi
for _ in {1..120}; do
    if is_ready "$1"; then
        echo "--runner=PortableRunner --job_endpoint=127.0.0.1:$job --environment_type=LOOPBACK"
        exit
    fi
    sleep 1
done
tail -n 5 ./*.log >&2
stop
exit 1
