// serve_http.js NAME HOST PORT: answers requests with what there was in them, until SIGTERM; prints the same lines.
// /quiet is not noted.
'use strict';
const { createHash } = require('node:crypto');
const { createServer } = require('node:http');

const [name, host, port] = process.argv.slice(2);
setTimeout(() => process.exit(98), 90000).unref();

const server = createServer((request, response) => {
  const digest = createHash('sha256');
  let size = 0;
  request.on('data', (piece) => {
    size += piece.length;
    digest.update(piece);
  });
  request.on('end', () => {
    const { remoteAddress, localAddress, localPort } = request.socket;
    const last = request.trailers['x-last'] ?? '';
    const line =
      `${name}: ${request.method} ${request.url} ${request.httpVersion} from ${remoteAddress} at ${localAddress} ` +
      `${localPort}, body ${size} ${digest.digest('hex')}, trailer ${last}\n`;
    if (request.url !== '/quiet') process.stdout.write(line);
    response.setHeader('X-Server', name);
    response.end(line);
  });
});
server.listen(Number(port), host, () => {
  const { address, port: own } = server.address();
  console.log(`listens at ${address} ${own}\nready`);
});
process.on('SIGTERM', () => process.exit(0));
