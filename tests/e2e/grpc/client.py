"""Calls of every kind through the edge; says `ok NAME` for each that went as it should."""

import sys
import threading
import time

import grpc

target, authority = sys.argv[1:3]
options = [("grpc.default_authority", "shop.test")]
if authority == "-":
    channel = grpc.insecure_channel(target, options)
else:
    roots = open(authority, "rb").read()
    options.append(("grpc.ssl_target_name_override", "shop.test"))
    channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options)


def path(method):
    return method if method.startswith("/") else "/shop.Test/" + method


def unary(method, request=b"", **more):
    return channel.unary_unary(path(method))(request, **{"timeout": 10, **more})


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("no error")


def a_unary_call_has_its_trailers():
    reply, call = channel.unary_unary(path("Unary")).with_call(b"hello", timeout=10)
    assert reply == b"hello", reply
    trailing = dict(call.trailing_metadata())
    assert trailing["x-tail"] == "behind" and trailing["x-raw-bin"] == b"\x00\xff", trailing
    assert call.code() == grpc.StatusCode.OK


def large_messages_pass():
    message = b"m" * (3 << 20)
    assert unary("Unary", message) == message


def a_deadline_reaches_the_server():
    remaining = float(unary("Remaining", timeout=7))
    assert 3 < remaining <= 7.1, remaining


def a_client_streams():
    call = channel.stream_unary(path("Collect"))
    assert call(iter([b"a", b"b", b"c"]), timeout=10) == b"abc"


def a_server_streams():
    replies = channel.unary_stream(path("Count"))(b"100", timeout=10)
    assert [int(reply) for reply in replies] == list(range(100))


def messages_are_answered_one_by_one():
    turn = threading.Semaphore(0)

    def requests():
        for number in range(20):
            yield str(number).encode()
            assert turn.acquire(timeout=8), "the answer waits for the end of the request"

    replies = channel.stream_stream(path("Echo"))(requests(), timeout=20)
    for number, reply in enumerate(replies):
        assert reply == str(number).encode()
        turn.release()


def one_direction_goes_on_while_the_other_waits():
    sent = threading.Event()

    def requests():
        for _ in range(64):
            yield b"y" * 65536
        sent.set()

    replies = channel.stream_stream(path("Both"))(requests(), timeout=30)
    assert sent.wait(15), "the request waits until the reply is read"
    total = sum(len(reply) for reply in replies)
    assert total == 64 * 65536 + len(str(64 * 65536)), total


def a_silent_client_hears_for_longer_than_the_timeouts():
    done = threading.Event()

    def requests():
        yield b"go"
        done.wait(15)

    replies = channel.stream_stream(path("Drip"))(requests(), timeout=20)
    heard = [next(replies) for _ in range(10)]
    done.set()
    assert heard[-1] == b"9", heard


def a_silent_server_listens_for_longer_than_the_timeouts():
    def requests():
        for _ in range(10):
            time.sleep(0.3)
            yield b"z"

    assert channel.stream_unary(path("Collect"))(requests(), timeout=20) == b"z" * 10


def errors_arrive_as_they_were_said():
    error = failure(lambda: unary("Refuse"))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "not – yet 100%", error.details()
    replies = channel.unary_stream(path("RefuseMidway"))(b"", timeout=10)
    assert next(replies) == b"one"
    error = failure(lambda: next(replies))
    assert error.code() == grpc.StatusCode.DATA_LOSS, error
    assert error.details() == "midway", error.details()
    assert failure(lambda: unary("Nothing")).code() == grpc.StatusCode.UNIMPLEMENTED


def a_cancelled_call_is_cancelled_at_the_server():
    call = channel.unary_unary(path("Hang")).future(b"", timeout=20)
    assert unary("IsWaiting") == b"yes"
    call.cancel()
    assert unary("HasLeft") == b"yes"


def what_the_edge_says_is_grpc():
    for method, code, words in [
        ("/down.Test/X", grpc.StatusCode.UNAVAILABLE, "app server"),
        ("/slow.Test/Hang", grpc.StatusCode.DEADLINE_EXCEEDED, "in time"),
        ("/denied.Test/X", grpc.StatusCode.PERMISSION_DENIED, "Forbidden"),
        ("/nowhere.Test/X", grpc.StatusCode.UNIMPLEMENTED, "No route"),
    ]:
        error = failure(lambda: unary(method))
        assert error.code() == code, (method, error)
        assert words in error.details(), error.details()
    error = failure(lambda: unary("/small.Test/Unary", b"x" * 5000))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error


def a_stream_that_stands_still_is_told_so():
    done = threading.Event()

    def requests():
        yield b"first"
        done.wait(20)

    replies = channel.stream_stream(path("/still.Test/Echo"))(requests(), timeout=20)
    assert next(replies) == b"first"
    error = failure(lambda: next(replies))
    done.set()
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


for check in [
    a_unary_call_has_its_trailers,
    large_messages_pass,
    a_deadline_reaches_the_server,
    a_client_streams,
    a_server_streams,
    messages_are_answered_one_by_one,
    one_direction_goes_on_while_the_other_waits,
    a_silent_client_hears_for_longer_than_the_timeouts,
    a_silent_server_listens_for_longer_than_the_timeouts,
    errors_arrive_as_they_were_said,
    a_cancelled_call_is_cancelled_at_the_server,
    what_the_edge_says_is_grpc,
    a_stream_that_stands_still_is_told_so,
]:
    check()
    print("ok", check.__name__, flush=True)
print("all", flush=True)
