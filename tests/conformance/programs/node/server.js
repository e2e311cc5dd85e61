// server.js VISITOR VISITOR_PORT HOST PORT: an HTTP server, visited by a service of the pod.
'use strict';
const http = require('http');
const net = require('net');

const [visitorHost, visitorPort, host, port] = process.argv.slice(2);
const visitor = net.connect(+visitorPort, visitorHost);
let client;

const server = http.createServer((request, response) => {
  const socket = request.socket;
  client = `from ${socket.remoteAddress.replace('::ffff:', '')} ${socket.remotePort}`;
  console.log(`local: ${socket.localAddress} ${socket.localPort}`);
  response.setHeader('Connection', 'close');
  response.end('welcome');
});

server.listen(+port, () => {
  console.log('listening:', JSON.stringify(server.address()));
  visitor.write(`tcp ${host} ${port} GET / HTTP/1.0||\n`);
});

let text = '';
visitor.on('data', (data) => {
  text += data;
  const lines = text.split('\n');
  if (lines.length < 3) return;
  console.log(`client is the visitor: ${lines[0] === client}`);
  console.log(`heard: ${lines[1].split('|').pop()}`);
  visitor.destroy();
  server.close();
});
