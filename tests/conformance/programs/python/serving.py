"""serving.py VISITOR VISITOR_PORT HOST PORT: asyncio, threads and datagrams, visited by a service of the pod."""

import asyncio
import socket
import socketserver
import sys
import threading

VISITOR, VISITOR_PORT, HOST, PORT = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])


class Visitor:
    def __init__(self):
        self.connection = socket.create_connection((VISITOR, VISITOR_PORT))
        self.lines = self.connection.makefile("r")

    def visit(self, protocol, port, text):
        """The visitor's own address."""
        self.connection.sendall(f"{protocol} {HOST} {port} {text}\n".encode())
        _, host, number = self.lines.readline().split()
        return host, int(number)

    def heard(self):
        return self.lines.readline().strip()


def told(name):
    return name[0].removeprefix("::ffff:"), name[1]


visitor = Visitor()


async def serve_asyncio():
    seen = asyncio.get_running_loop().create_future()

    async def handle(reader, writer):
        seen.set_result((told(writer.get_extra_info("peername")), writer.get_extra_info("sockname")[:2]))
        writer.write(b"asyncio got " + await reader.read())
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(handle, "::" if ":" in HOST else "0.0.0.0", PORT)
    print("asyncio listens:", server.sockets[0].getsockname()[:2])
    mine = await asyncio.to_thread(visitor.visit, "tcp", PORT, "hello")
    client, local = await seen
    print("asyncio client is the visitor:", client == mine, "local:", local)
    print("asyncio, heard:", await asyncio.to_thread(visitor.heard))
    server.close()
    await server.wait_closed()


class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        clients.append(told(self.client_address))
        self.request.sendall(b"threads got " + self.request.recv(99))


clients = []
asyncio.run(serve_asyncio())


class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6 if ":" in HOST else socket.AF_INET
    allow_reuse_address = True


with Server((HOST, PORT + 1), Handler) as server:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for count in range(20):
        mine = visitor.visit("tcp", PORT + 1, f"number {count}")
        print("threads, heard:", visitor.heard())
        print("threads, client is the visitor:", clients[-1] == mine)
    server.shutdown()
    thread.join()

with socket.socket(Server.address_family, socket.SOCK_DGRAM) as datagrams:
    datagrams.bind((HOST, PORT + 2))
    print("datagrams at:", datagrams.getsockname()[:2])
    mine = visitor.visit("udp", PORT + 2, "question")
    data, _, _, name = datagrams.recvmsg(99)
    print("datagram:", data, "from the visitor:", told(name) == mine)
    datagrams.sendmsg([b"answer"], [], 0, name)
    print("datagram, heard:", visitor.heard())
