// filechanges.js DIRECTORY: how Node makes, writes, renames and removes files.
'use strict';
const fs = require('fs');
const path = require('path');
const { once } = require('events');
const { pipeline } = require('stream/promises');

setTimeout(() => { console.log('hangs'); process.exit(98); }, 60000).unref();
process.umask(0o022);
process.chdir(process.argv[2]);

async function attempt(what, promise) {
  try {
    const result = await promise;
    console.log(what, result === undefined ? 'OK' : result);
  } catch (error) {
    console.log(what, error.message);
  }
}

function mode(name) {
  return (fs.lstatSync(name).mode & 0o7777).toString(8);
}

async function main() {
  const { promises } = fs;
  await attempt('writeFile', promises.writeFile('file', 'contents\n', { mode: 0o640 }));
  await attempt('appendFile', promises.appendFile('file', 'more\n'));
  console.log(JSON.stringify(fs.readFileSync('file', 'utf8')), mode('file'));
  await attempt('exclusive', promises.writeFile('file', 'x', { flag: 'wx' }));
  await attempt('mkdir', promises.mkdir('one/two/three', { recursive: true }));
  await attempt('mkdir again', promises.mkdir('one'));
  await attempt('symlink', promises.symlink('../file', 'one/link'));
  await attempt('link', promises.link('file', 'one/hard'));
  await attempt('rename', promises.rename('one/two', 'moved'));
  await attempt('rename nothing', promises.rename('nothing', 'x'));
  await attempt('chmod', promises.chmod('file', 0o604));
  await attempt('lchown', promises.lchown('one/link', 12, 34));
  await attempt('utimes', promises.utimes('file', 5.25, 7.5));
  console.log(fs.statSync('file').mtimeMs, fs.statSync('file').nlink, mode('file'));
  await attempt('lutimes', promises.lutimes('one/link', 5, 7));
  await attempt('truncate', promises.truncate('file', 3));
  await attempt('copyFile', promises.copyFile('/srv/data/a/odd', 'odd'));
  await attempt('exclusive copy', promises.copyFile('file', 'odd', fs.constants.COPYFILE_EXCL));
  await attempt('cp', promises.cp('/srv/data/text/1', 'text', { recursive: true }));
  const temporary = await promises.mkdtemp('temporary-');
  await promises.writeFile(path.join(temporary, 'new'), 'saved');
  await attempt('rename over', promises.rename(path.join(temporary, 'new'), 'file'));
  console.log(fs.readFileSync('file', 'utf8'));
  await attempt('rmdir', promises.rmdir(temporary));
  await attempt('rmdir of a full one', promises.rmdir('one'));
  await attempt('unlink of a directory', promises.unlink('moved'));

  const stream = fs.createWriteStream('stream');
  for (let i = 0; i < 20000; i += 1) if (!stream.write(`line ${i}\n`)) await once(stream, 'drain');
  stream.end();
  await once(stream, 'finish');
  await pipeline(fs.createReadStream('stream'), fs.createWriteStream('piped', { mode: 0o600 }));
  console.log(fs.statSync('piped').size, fs.readFileSync('piped').equals(fs.readFileSync('stream')), mode('piped'));
  const handle = await promises.open('stream', 'r+');
  await handle.write('HERE', 100);
  await handle.sync();
  console.log((await handle.read(Buffer.alloc(8), 0, 8, 98)).buffer.toString().replace(/\n/g, '|'));
  await handle.truncate(200);
  await handle.chmod(0o611);
  await handle.utimes(1, 2);
  console.log((await handle.stat()).size, (await handle.stat()).mtimeMs);
  await handle.close();
  await Promise.all(Array.from({ length: 30 }, (_, i) => promises.writeFile(`together-${i}`, String(i))));
  console.log(fs.readdirSync('.').sort().join(' '));
  await attempt('rm', promises.rm('text', { recursive: true }));
  await attempt('rm nothing', promises.rm('text'));
  await attempt('access', promises.access('text'));
}

main();
