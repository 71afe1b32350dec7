#!/bin/sh
# The store over HTTP, with nothing but curl: sh curl.sh [HOST:PORT]

node=http://${1:-localhost:8101}
stream=$node/v1/streams/order-$$
json='content-type: application/json'
id=$(cat /proc/sys/kernel/random/uuid)

echo "append the first event of a stream:"
placed='{"expected_version": "no_stream", "events": [{"id": "'$id'", "type": "OrderPlaced", "data": {"total": 42}}]}'
curl -s -w '%{http_code}\n' -H "$json" -d "$placed" "$stream/events"

echo "the same again, as after an answer that was lost: 200, and the first answer"
curl -s -w '%{http_code}\n' -H "$json" -d "$placed" "$stream/events"

echo "another one that expects no stream: 409"
curl -s -w '%{http_code}\n' -H "$json" \
    -d '{"expected_version": "no_stream", "events": [{"type": "OrderPlaced", "data": {}}]}' "$stream/events"

echo "read it:"
curl -s "$stream/events?limit=10"
