"""Hostile HTTP clients, bounded in number and time: hostile.py HOST:PORT ATTACK SECONDS. They come from 127.0.0.2."""

import resource
import selectors
import socket
import struct
import sys
import threading
import time

SOURCE = "127.0.0.2"
GET = b"GET /api/activities/home HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /api/activities HTTP/1.1\r\nHost: x\r\n"


def connect(receive_buffer=None):
    connection = socket.socket()
    if receive_buffer:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    # The port is chosen when the connection is made: more than one may share it.
    connection.setsockopt(socket.SOL_IP, 24, 1)
    connection.bind((SOURCE, 0))
    connection.settimeout(2)
    connection.connect(target)
    return connection


def connect_many(count, first=b"", receive_buffer=None):
    """Opens connections, fewer if the server takes no more, and sends the same on each."""
    connections, failures = [], 0
    while len(connections) + failures < count and failures < 20:
        try:
            connection = connect(receive_buffer)
            connection.sendall(first)
            connections.append(connection)
        except OSError:
            failures += 1
    return connections


def drip(connections, piece=b"", every=1.0):
    """Sends a piece on each connection every second, until the time is up or the server has closed all."""
    for connection in connections:
        connection.setblocking(False)
    while connections and time.monotonic() < end:
        for connection in list(connections):
            try:
                if connection.recv(65536) == b"":
                    raise ConnectionError
            except BlockingIOError:
                pass
            except OSError:
                connections.remove(connection)
                continue
            try:
                connection.send(piece)
            except BlockingIOError:
                pass
            except OSError:
                connections.remove(connection)
        time.sleep(every)


def pump(connections, payload, reads=True):
    """Sends the payload on each connection again and again, as fast as the server takes it."""
    selector = selectors.DefaultSelector()
    rest = {}
    for connection in connections:
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_WRITE | (selectors.EVENT_READ if reads else 0))
        rest[connection] = payload
    while selector.get_map() and time.monotonic() < end:
        for key, events in selector.select(0.2):
            connection = key.fileobj
            try:
                if events & selectors.EVENT_READ and not connection.recv(262144):
                    raise ConnectionError
                if events & selectors.EVENT_WRITE:
                    rest[connection] = rest[connection][connection.send(rest[connection]):] or payload
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(connection)


def in_threads(count, work):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def huge_length():
    """A body that no memory could hold, and that never comes."""
    drip(connect_many(5, POST + b"Content-Length: 999999999999999\r\n\r\n"))


def slow_body():
    drip(connect_many(100, POST + b"Content-Length: 10000\r\n\r\n"), b"a")


def slow_small_body():
    drip(connect_many(100, POST + b"Content-Length: 1000\r\n\r\n"), b"a")


def slow_chunks():
    drip(connect_many(100, POST + b"Transfer-Encoding: chunked\r\n\r\n"), b"1\r\na\r\n")


def expect_and_wait():
    drip(connect_many(100, POST + b"Content-Length: 20\r\nExpect: 100-continue\r\n\r\n"))


def large_bodies():
    def upload():
        while time.monotonic() < end:
            try:
                connection = connect()
                connection.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
                for _ in range(1500):
                    connection.sendall(bytes(65536))
            except OSError:
                pass

    in_threads(4, upload)


def pipelining():
    pump(connect_many(2), GET * 200)


def pipelining_unread():
    pump(connect_many(2, receive_buffer=4096), GET * 200, reads=False)


def unread_responses():
    connections = connect_many(100, GET, receive_buffer=4096)
    time.sleep(max(0, end - time.monotonic()))
    return connections


def responses_read_by_byte():
    connections = connect_many(100, GET, receive_buffer=4096)
    while time.monotonic() < end:
        for connection in connections:
            connection.settimeout(0.001)
            try:
                connection.recv(1)
            except OSError:
                pass
        time.sleep(0.5)


def idle():
    drip(connect_many(700))


def slow_heads():
    drip(connect_many(1200, b"GET / HTTP/1.1\r\nHost: x\r\nX-a: "), b"b")


def endless_header():
    pump(connect_many(2, b"GET / HTTP/1.1\r\nHost: x\r\nX-a: "), b"b" * 262144)


def endless_headers():
    pump(connect_many(2, b"GET / HTTP/1.1\r\nHost: x\r\n"), b"a: b\r\n" * 8192)


def endless_target():
    pump(connect_many(2, b"GET /"), b"a" * 262144)


def endless_chunk_size():
    pump(connect_many(2, POST + b"Transfer-Encoding: chunked\r\n\r\n"), b"0" * 262144)


def http2():
    """What an HTTP/2 client sends first."""
    for connection in connect_many(700, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"):
        connection.close()


def resets():
    for _ in range(500):
        for connection in connect_many(1, GET):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()


def new_connections():
    def one_by_one():
        while time.monotonic() < end:
            for connection in connect_many(1, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")):
                try:
                    while connection.recv(65536):
                        pass
                except OSError:
                    pass
                connection.close()

    in_threads(8, one_by_one)


ATTACKS = [
    huge_length, slow_body, slow_small_body, slow_chunks, expect_and_wait, large_bodies, pipelining, pipelining_unread,
    unread_responses, responses_read_by_byte, idle, slow_heads, endless_header, endless_headers, endless_target,
    endless_chunk_size, http2, resets, new_connections,
]

if __name__ == "__main__":
    host, port = sys.argv[1].split(":")
    target, end = (host, int(port)), time.monotonic() + float(sys.argv[3])
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    next(attack for attack in ATTACKS if attack.__name__ == sys.argv[2])()
