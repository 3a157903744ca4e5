#!/usr/bin/env bash
# The services that tests need: private PostgreSQL and Redis servers on loopback, and a browser.
#
#   scripts/services.sh start   start the servers, find the browser, write .services/env
#   scripts/services.sh stop    stop the servers and remove their data
#
# TIDEMILL_SERVICES names another folder than .services, so that two test runs of one checkout do not share a server.
# The file env in it exports TIDEMILL_TEST_POSTGRES, TIDEMILL_TEST_REDIS (URLs) and TIDEMILL_TEST_CHROMIUM (a path). A missing program is
# installed where apt-get and root are at hand. What cannot be had leaves its variable unset, and its tests skip with
# a word; under CI=true that is a failure instead.
set -euo pipefail
cd "$(dirname "$0")/.."
# runuser and the like live here; a short PATH may lack it.
PATH=$PATH:/usr/sbin:/sbin
dir=${TIDEMILL_SERVICES:-$PWD/.services}

say() { printf 'services: %s\n' "$*" >&2; }

lacking() {
  say "$1"
  if [ "${CI:-}" = true ]; then
    say "CI=true: this is a failure."
    exit 1
  fi
}

apt_install() {
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    return 1
  fi
  say "installing $* …"
  {
    apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
  } </dev/null >"$dir/apt.log" 2>&1 || {
    tail -n 5 "$dir/apt.log" >&2
    return 1
  }
}

# Print the folder that holds initdb and pg_ctl. Debian keeps it off the PATH.
postgres_bin() {
  local path
  for path in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr) \
    "$(dirname "$(readlink -f "$(command -v initdb || echo /nowhere/initdb)")")"; do
    if [ -x "$path/initdb" ] && [ -x "$path/pg_ctl" ]; then
      echo "$path"
      return
    fi
  done
  return 1
}

# PostgreSQL refuses to run as root; another user of this machine must be able to run it then.
as_owner() {
  if [ "$(id -u)" = 0 ]; then
    (cd / && runuser -u "$(owner)" -- "$@")
  else
    "$@"
  fi
}

owner() {
  if [ "$(id -u)" != 0 ]; then
    id -un
  elif id postgres >/dev/null 2>&1; then
    echo postgres
  else
    echo nobody
  fi
}

free_port() {
  python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

start_postgres() {
  local bin data port password
  if ! bin=$(postgres_bin); then
    apt_install postgresql || true
    bin=$(postgres_bin) || {
      lacking "no PostgreSQL server here, and it cannot be installed; its tests will skip."
      return 0
    }
  fi
  data=$(mktemp -d "${TMPDIR:-/tmp}/tidemill-postgres-XXXXXX")
  echo "$data" >"$dir/postgres.data"
  echo "$bin" >"$dir/postgres.bin"
  password=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
  printf '%s\n' "$password" >"$data/password"
  chown -R "$(owner)" "$data"
  as_owner "$bin/initdb" --pgdata="$data/db" --username=tidemill --auth=scram-sha-256 --pwfile="$data/password" \
    --encoding=UTF8 --locale=C --no-sync >"$dir/initdb.log" 2>&1 || {
    tail -n 5 "$dir/initdb.log" >&2
    lacking "initdb failed; the PostgreSQL tests will skip."
    return 0
  }
  # Another process may take the free port before the server does: try a few.
  for _ in 1 2 3; do
    port=$(free_port)
    # No disk flushes: the data lives as long as one test run. </dev/null and the log keep the server off our pipes.
    if as_owner "$bin/pg_ctl" start --wait --timeout=60 --silent --pgdata="$data/db" --log="$data/log" \
      --options="-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories='' -c fsync=off \
        -c max_connections=200" </dev/null >/dev/null 2>&1; then
      (umask 077 && printf 'postgresql+psycopg://tidemill:%s@127.0.0.1:%s/postgres\n' "$password" "$port" \
        >"$dir/postgres.url")
      printf 'export TIDEMILL_TEST_POSTGRES=%q\n' "$(cat "$dir/postgres.url")" >>"$dir/env"
      return 0
    fi
  done
  tail -n 5 "$data/log" >&2 || true
  lacking "the PostgreSQL server does not start; its tests will skip."
}

stop_postgres() {
  if [ -f "$dir/postgres.data" ]; then
    local data bin
    data=$(cat "$dir/postgres.data")
    bin=$(cat "$dir/postgres.bin")
    as_owner "$bin/pg_ctl" stop --silent --mode=immediate --pgdata="$data/db" </dev/null >/dev/null 2>&1 || true
    case $data in
      */tidemill-postgres-*) rm -rf -- "$data" ;;
    esac
  fi
  rm -f -- "$dir/postgres.data" "$dir/postgres.bin" "$dir/postgres.url" "$dir/env"
}

start_redis() {
  local data port
  if ! command -v redis-server >/dev/null; then
    # The package would start a server of its own; ours is private.
    RUNLEVEL=1 apt_install redis-server || true
    command -v redis-server >/dev/null || {
      lacking "no Redis server here, and it cannot be installed; its tests will skip."
      return 0
    }
  fi
  data=$(mktemp -d "${TMPDIR:-/tmp}/tidemill-redis-XXXXXX")
  echo "$data" >"$dir/redis.data"
  for _ in 1 2 3; do
    port=$(free_port)
    # The data lives in memory, as long as one test run.
    redis-server --bind 127.0.0.1 --port "$port" --save '' --appendonly no --dir "$data" --pidfile "$data/pid" \
      --logfile "$data/log" --daemonize yes </dev/null >/dev/null 2>&1 || continue
    for _ in $(seq 300); do
      if [ -s "$data/pid" ] && redis-cli -h 127.0.0.1 -p "$port" ping >/dev/null 2>&1; then
        printf 'export TIDEMILL_TEST_REDIS=%q\n' "redis://127.0.0.1:$port/0" >>"$dir/env"
        return 0
      fi
      sleep 0.1
    done
  done
  tail -n 5 "$data/log" >&2 || true
  lacking "the Redis server does not start; its tests will skip."
}

stop_redis() {
  if [ -f "$dir/redis.data" ]; then
    local data pid
    data=$(cat "$dir/redis.data")
    if [ -s "$data/pid" ]; then
      pid=$(cat "$data/pid")
      kill "$pid" 2>/dev/null || true
      # It writes into its folder until it is gone, and a folder that is written to can't be removed.
      for _ in $(seq 300); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
      done
    fi
    case $data in
      */tidemill-redis-*) rm -rf -- "$data" ;;
    esac
  fi
  rm -f -- "$dir/redis.data"
}

browser() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

find_chromium() {
  local path
  if ! path=$(browser); then
    apt_install chromium fonts-dejavu-core || true
    path=$(browser) || {
      lacking "no Chromium here, and it cannot be installed; the browser test will skip."
      return 0
    }
  fi
  printf 'export TIDEMILL_TEST_CHROMIUM=%q\n' "$path" >>"$dir/env"
}

case ${1:-} in
  start)
    mkdir -p "$dir"
    stop_postgres # what an interrupted run may have left
    stop_redis
    (umask 077 && : >"$dir/env")
    start_postgres
    start_redis
    find_chromium
    ;;
  stop)
    stop_postgres
    stop_redis
    ;;
  *)
    echo "usage: scripts/services.sh start|stop" >&2
    exit 2
    ;;
esac
