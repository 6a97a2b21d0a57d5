"""A network that breaks when it is told to: it stands between workers and one server."""

import asyncio
import contextlib
import socket
import struct
import threading

CHUNK = 1 << 16


class Pair:
    """One connection through the proxy: its two sockets, and whether traffic flows."""

    def __init__(self, client, server, open):
        self.client, self.server, self.work = client, server, None
        self.open = asyncio.Event()
        if open:
            self.open.set()


class Proxy:
    """Its methods may be called from any thread; they return when it is done."""

    def __init__(self, port):
        self.target, self.pairs, self.stalled = port, set(), False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=[self.serve()], daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks()])
        self.thread.join()
        for pair in self.pairs:
            pair.client.close()
            pair.server.close()
        self.listener.close()
        self.loop.close()

    async def serve(self):
        with contextlib.suppress(asyncio.CancelledError):
            while True:
                client, _ = await self.loop.sock_accept(self.listener)
                server = socket.socket()
                for one in (client, server):
                    one.setblocking(False)
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pair = Pair(client, server, not self.stalled)
                self.pairs.add(pair)
                pair.work = asyncio.ensure_future(self.join(pair))

    async def join(self, pair):
        try:
            await pair.open.wait()
            await self.loop.sock_connect(pair.server, ("127.0.0.1", self.target))
            # When one direction fails, the other one ends too.
            async with asyncio.TaskGroup() as both:
                both.create_task(self.pump(pair, pair.client, pair.server))
                both.create_task(self.pump(pair, pair.server, pair.client))
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self.pairs.discard(pair)
            pair.client.close()
            pair.server.close()

    async def pump(self, pair, source, sink):
        """Until its source is at its end, which is then passed on."""
        deaf = False
        while data := await self.loop.sock_recv(source, CHUNK):
            # What is on its way arrives after a stall, however late.
            await pair.open.wait()
            if not deaf:
                try:
                    await self.loop.sock_sendall(sink, data)
                except OSError:
                    deaf = True
        await pair.open.wait()
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def do(self, change):
        """Runs `change(pairs)` in the loop's thread; gives what it gives."""
        async def work():
            return change([pair for pair in self.pairs])
        return asyncio.run_coroutine_threadsafe(work(), self.loop).result()

    def reset(self):
        """Both sides of every connection get a RST."""
        def change(pairs):
            for pair in pairs:
                for one in (pair.client, pair.server):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                pair.work.cancel()
        self.do(change)

    def half_close(self, side):
        """Tells the client, or the server, that the other one will say no more."""
        def change(pairs):
            for pair in pairs:
                with contextlib.suppress(OSError):
                    getattr(pair, side).shutdown(socket.SHUT_WR)
        self.do(change)

    def stall(self, new_too):
        """No byte passes any more, on the connections there are, and on new ones or not."""
        def change(pairs):
            self.stalled = new_too
            for pair in pairs:
                pair.open.clear()
        self.do(change)

    def flow(self):
        """What is on its way arrives, and all goes on."""
        def change(pairs):
            self.stalled = False
            for pair in pairs:
                pair.open.set()
        self.do(change)

    def addresses(self):
        """As the server sees the connections."""
        def change(pairs):
            found = []
            for pair in pairs:
                with contextlib.suppress(OSError):
                    found.append("{}:{}".format(*pair.server.getsockname()))
            return found
        return self.do(change)
