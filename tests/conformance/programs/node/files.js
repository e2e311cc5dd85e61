// files.js ROOT: how Node reads files and directories: by promises, callbacks, streams, and synchronously.
'use strict';
const { createHash } = require('crypto');
const { execFileSync, spawn } = require('child_process');
const fs = require('fs');
const os = require('os');
const path = require('path');
const readline = require('readline');
const { once } = require('events');

setTimeout(() => { console.log('hangs'); process.exit(98); }, 60000).unref();
const root = process.argv[2];
const at = (name) => path.join(root, name);
const sum = (data) => `${data.length} bytes, ${createHash('sha256').update(data).digest('hex').slice(0, 16)}`;
const told = (error) => `${error.code} ${error.syscall}`;

function described(status) {
  const kinds = ['isFile', 'isDirectory', 'isSymbolicLink', 'isFIFO', 'isSocket', 'isCharacterDevice', 'isBlockDevice'];
  const kind = kinds.find((each) => status[each]());
  const size = status.isDirectory() ? 0 : status.size;
  return `${kind} ${status.mode.toString(8)} ${status.uid}:${status.gid} ${status.nlink} ${size} ${status.mtimeNs}`;
}

async function attempt(what, promise) {
  try {
    console.log(what, await promise);
  } catch (error) {
    console.log(what, told(error));
  }
}

async function main() {
  for (const name of ['a', 'links', 'special', 'nothing', 'a/small.txt']) {
    await attempt(name, fs.promises.readdir(at(name)).then((names) => names.sort().join(' ')));
  }
  for (const entry of fs.readdirSync(at('special'), { withFileTypes: true })) {
    if (entry.name === 'fifo') console.log('type', entry.isFIFO());
  }
  console.log('recursive', fs.readdirSync(at('text'), { recursive: true }).length);
  let many = 0;
  for await (const entry of await fs.promises.opendir(at('many'), { bufferSize: 7 })) many += entry.isFile() ? 1 : 0;
  console.log('opendir', many);
  for (const name of ['a/small.txt', 'a/empty', 'a/big.bin', 'links/chain-1', 'links/loop-1', 'a', 'nothing', 'names/...']) {
    await attempt(name, fs.promises.readFile(at(name)).then(sum));
    await attempt('  stat', fs.promises.stat(at(name), { bigint: true }).then(described));
    await attempt('  lstat', fs.promises.lstat(at(name), { bigint: true }).then(described));
    await attempt('  realpath', fs.promises.realpath(at(name)));
    await attempt('  access', fs.promises.access(at(name), fs.constants.X_OK));
  }
  for (const name of ['links/relative', 'links/absolute', 'links/above-the-root', 'a/odd']) {
    await attempt(`readlink ${name}`, fs.promises.readlink(at(name)));
    console.log('  native', fs.realpathSync.native(at(name)), fs.existsSync(at(name)));
  }
  const odd = Buffer.concat([Buffer.from(`${root}/names/`), Buffer.from([0xff, 0xfe]), Buffer.from(' not UTF-8')]);
  console.log('not UTF-8', sum(fs.readFileSync(odd)), fs.readdirSync(at('names'), 'buffer').length);

  const hash = createHash('sha256');
  let size = 0;
  for await (const chunk of fs.createReadStream(at('a/big.bin'), { start: 1000, highWaterMark: 50000 })) {
    hash.update(chunk);
    size += chunk.length;
  }
  console.log('stream', size, hash.digest('hex').slice(0, 16));
  const handle = await fs.promises.open(at('a/odd'));
  const { bytesRead } = await handle.read(Buffer.alloc(1000), 0, 1000, 69500);
  console.log('handle', bytesRead, described(await handle.stat({ bigint: true })));
  await handle.close();
  let lines = 0;
  for await (const line of readline.createInterface({ input: fs.createReadStream(at('text/4/39.txt')) })) lines += line ? 1 : 0;
  console.log('lines', lines);
  const together = await Promise.all(Array.from({ length: 40 }, (_, i) => fs.promises.readFile(at(`text/${i % 5}/${i}.txt`))));
  console.log('together', sum(Buffer.concat(together)));

  const copies = fs.mkdtempSync(path.join(os.tmpdir(), 'conformance-files-'));
  fs.copyFileSync(at('a/big.bin'), path.join(copies, 'big'));
  console.log('copied', sum(fs.readFileSync(path.join(copies, 'big'))));
  fs.cpSync(at('text/1'), path.join(copies, 'text'), { recursive: true });
  console.log('tree copied', fs.readdirSync(path.join(copies, 'text')).length);
  fs.rmSync(copies, { recursive: true });

  process.chdir(at('links/absolute-directory'));
  console.log('cwd', process.cwd(), fs.readFileSync('c/deep.txt', 'utf8').trim());
  console.log('child', execFileSync('/bin/sh', ['-c', 'pwd; cat ../small.txt'], { encoding: 'utf8' }).split('\n'));
  const child = spawn('/usr/bin/sha256sum', { stdio: [fs.openSync('../odd'), 'pipe', 'inherit'], cwd: at('text') });
  let output = '';
  child.stdout.on('data', (data) => { output += data; });
  const [status] = await once(child, 'close');
  console.log('inherited', output.trim(), status);
}

main();
