"""A gRPC server of generic handlers: messages are octets, so that nothing has to be generated."""

import signal
import sys
import threading
from concurrent import futures

import grpc

waiting = threading.Semaphore(0)
left = threading.Semaphore(0)


def unary(request, context):
    context.set_trailing_metadata((("x-tail", "behind"), ("x-raw-bin", b"\x00\xff")))
    return request


def remaining(_, context):
    return str(context.time_remaining()).encode()


def collect(requests, _):
    return b"".join(requests)


def count(request, _):
    for number in range(int(request)):
        yield str(number).encode()


def echo(requests, _):
    yield from requests


def both(requests, _):
    """Reads and writes at once, whatever the other side does."""
    total = [0]

    def read():
        for request in requests:
            total[0] += len(request)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(64):
        yield b"x" * 65536
    reader.join()
    yield str(total[0]).encode()


def drip(requests, _):
    """Says something ten times in three seconds, without listening."""
    for number in range(10):
        threading.Event().wait(0.3)
        yield str(number).encode()


def refuse(_, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not – yet 100%")


def refuse_midway(_, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "midway")


def hang(_, context):
    gone = threading.Event()
    context.add_callback(gone.set)
    waiting.release()
    if gone.wait(20):
        left.release()
    return b""


def awaits(semaphore):
    return lambda _, __: b"yes" if semaphore.acquire(timeout=8) else b"no"


METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Remaining": grpc.unary_unary_rpc_method_handler(remaining),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
    "Both": grpc.stream_stream_rpc_method_handler(both),
    "Drip": grpc.stream_stream_rpc_method_handler(drip),
    "Refuse": grpc.unary_unary_rpc_method_handler(refuse),
    "RefuseMidway": grpc.unary_stream_rpc_method_handler(refuse_midway),
    "Hang": grpc.unary_unary_rpc_method_handler(hang),
    "IsWaiting": grpc.unary_unary_rpc_method_handler(awaits(waiting)),
    "HasLeft": grpc.unary_unary_rpc_method_handler(awaits(left)),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Test", METHODS),))
assert server.add_insecure_port(sys.argv[1])
server.start()
while True:
    signal.pause()
