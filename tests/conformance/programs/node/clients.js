// clients.js NAME HTTP_PORT HOST ECHO CLOSED UDP_ECHO: the ways that Node programs reach services.
'use strict';
const dgram = require('dgram');
const dns = require('dns');
const http = require('http');
const net = require('net');
const os = require('os');
const { once } = require('events');
const { execFile } = require('child_process');

setTimeout(() => { console.log('hangs'); process.exit(98); }, 60000).unref();
const [name, httpPort, host, echo, closed, udpEcho] = process.argv.slice(2);

function get(path, agent) {
  return new Promise((resolve, reject) => {
    http.get({ host: name, port: httpPort, path, agent }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (data) => { body += data; });
      response.on('end', () => resolve(`${response.statusCode} ${body.trim()}`));
    }).on('error', reject);
  });
}

async function connection(number) {
  const socket = net.connect({ host, port: echo, allowHalfOpen: true });
  await once(socket, 'connect');
  const peer = `${socket.remoteFamily} ${socket.remoteAddress} ${socket.remotePort}, local ${socket.localAddress}`;
  let got = '';
  socket.setEncoding('utf8');
  socket.on('data', (data) => { got += data; });
  socket.end(`number ${number}\n`);
  await once(socket, 'end');
  return { peer, right: got.startsWith(`number ${number}\n`) && got.endsWith('bytes in all\n') };
}

async function main() {
  console.log('host name:', os.hostname(), process.env.POD_NAME);
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  console.log('http:', await get('/node', agent));
  console.log('http, kept alive:', await get('/who', agent));
  agent.destroy();
  const many = await Promise.all(Array.from({ length: 50 }, () => get(`/barrier/node-${process.pid}/50`)));
  console.log('http, at once:', many.length, new Set(many).size, many[0]);
  const connections = await Promise.all(Array.from({ length: 20 }, (_, number) => connection(number)));
  console.log('net:', connections.filter((each) => each.right).length, connections[0].peer);
  for (const port of [closed]) {
    const socket = net.connect(port, host);
    const [error] = await once(socket, 'error').catch((caught) => [caught]);
    console.log('net, closed port:', error.code);
  }
  console.log('dns.lookup:', (await dns.promises.lookup(name, { all: true })).map((each) => each.address).sort());
  const unknown = await dns.promises.lookup('unknown.example.com').catch((error) => error.code);
  console.log('dns.lookup, unknown:', unknown);
  const resolver = new dns.promises.Resolver();
  console.log('servers:', resolver.getServers());
  console.log('resolve4:', await resolver.resolve4('shop.demo.svc.cluster.local'));
  console.log('resolve4, many:', (await resolver.resolve4('many.example.com')).length);
  console.log('resolveTxt:', JSON.stringify((await resolver.resolveTxt('text.example.com')).sort()));
  console.log('resolve, unknown:', await resolver.resolve4('unknown.example.com').catch((error) => error.code));

  const datagrams = dgram.createSocket('udp4');
  datagrams.send('unconnected', udpEcho, host);
  let [message, from] = await once(datagrams, 'message');
  console.log('dgram:', message.toString(), from.address, from.port);
  datagrams.close();
  const connected = dgram.createSocket('udp4');
  connected.connect(udpEcho, host);
  await once(connected, 'connect');
  connected.send('connected');
  [message, from] = await once(connected, 'message');
  console.log('dgram, connected:', message.toString(), connected.remoteAddress().address);
  connected.close();

  const child = await new Promise((resolve) => {
    execFile('/bin/sh', ['-c', 'uname -n; exit 4'], (error, stdout) => resolve(`${stdout.trim()} ${error.code}`));
  });
  console.log('child:', child);
  process.exitCode = 8;
}

main();
