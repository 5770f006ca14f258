#!/bin/sh
# Installs what the tests with real components need: servers from Debian's packages (as root; none is started), Django and readers of
# schemas and metrics in a folder of its own. What cannot be had is said, and the tests that need it are skipped: this never fails.
set -u
here=$(cd "$(dirname "$0")" && pwd)
venv=${COMPONENTS_VENV:-$here/../../target/components-venv}

if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
  missing=
  for tool in pg_dump:postgresql-client /usr/lib/postgresql/15/bin/postgres:postgresql-15 mariadbd:mariadb-server \
    redis-server:redis-server sqlite3:sqlite3 mkfs.btrfs:btrfs-progs rabbitmq-server:rabbitmq-server jq:jq curl:curl; do
    command -v "${tool%%:*}" >/dev/null || missing="$missing ${tool##*:}"
  done
  python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
  if [ -n "$missing" ]; then
    # No package starts a server: this says so while they are installed, unless the system has its own word on it.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
      printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
      trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >/dev/null 2>&1
    # One by one: what this system does not have keeps none of the others away.
    for package in $missing; do
      apt-get install -y -q --no-install-recommends "$package" >/dev/null 2>&1 || echo "could not install $package" >&2
    done
  fi
fi

if ! "$venv/bin/python" -c 'import django, gunicorn, psycopg, jsonschema, prometheus_client' 2>/dev/null; then
  { python3 -m venv --system-site-packages "$venv" && "$venv/bin/pip" install -q --disable-pip-version-check django gunicorn 'psycopg[binary]' jsonschema prometheus_client; } >/dev/null 2>&1 ||
    echo "could not install Django and others into $venv" >&2
fi
exit 0
