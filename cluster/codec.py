"""SKELETON (API first; the code follows within minutes).

Frame kinds, and requests/results as msgpack (client and server side; consensus messages live in
`message_codec.py` so that a client need not import consensus):

    Kind.HELLO, CHALLENGE, PROOF, WELCOME, REFUSED, MESSAGES, BEAT, REQUESTS, RESULTS

    encode_request(request_id, timeout_ms, request) -> bytes      one item of a REQUESTS frame
    decode_requests(items) -> list[(request_id, timeout_ms, Request)]
    encode_result(request_id, Result | AllsourceError) -> bytes   one item of a RESULTS frame
    decode_results(items) -> list[(request_id, Result | AllsourceError)]
"""
