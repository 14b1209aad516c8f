#!/bin/bash
# Writes connect.properties from CONNECT_* variables (CONNECT_GROUP_ID is group.id) and starts the worker.
set -euo pipefail
for variable in "${!CONNECT_@}"; do
    key=${variable#CONNECT_}
    key=${key,,}
    printf '%s=%s\n' "${key//_/.}" "${!variable}"
done > /tmp/connect.properties
exec /opt/kafka/bin/connect-distributed.sh /tmp/connect.properties
