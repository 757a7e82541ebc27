// Node's clients against a member: `node clients.js grpc-js|etcd3 HOST:PORT [CA CERT KEY]`. Exit 1 says why on one line.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const [, , which, address, ...files] = process.argv;
const [ca, cert, key] = files.map((file) => fs.readFileSync(file));

const grpcJs = async () => {
  const grpc = require('@grpc/grpc-js');
  const raw = (path) => ({
    path, requestStream: false, responseStream: false,
    requestSerialize: (bytes) => bytes, requestDeserialize: (bytes) => bytes,
    responseSerialize: (bytes) => bytes, responseDeserialize: (bytes) => bytes,
  });
  const Client = grpc.makeGenericClientConstructor(
    { range: raw('/etcdserverpb.KV/Range'), none: raw('/etcdserverpb.KV/None') }, 'KV');
  const credentials = ca ? grpc.credentials.createSsl(ca, key, cert) : grpc.credentials.createInsecure();
  const client = new Client(address, credentials);
  const call = (name, bytes) => new Promise((good, bad) =>
    client[name](bytes, { deadline: Date.now() + 5000 }, (error, answer) => error ? bad(error) : good(answer)));
  const answers = await Promise.all(
    Array.from({ length: 50 }, () => call('range', Buffer.from([10, 1, 97]))));
  assert(answers.every((answer) => answer.length > 0));
  const error = await call('none', Buffer.alloc(0)).then(() => null, (found) => found);
  assert.strictEqual(error && error.code, grpc.status.UNIMPLEMENTED);
  client.close();
};

const etcd3 = async () => {
  const { Etcd3 } = require('etcd3');
  const client = new Etcd3(ca
    ? { hosts: `https://${address}`, credentials: { rootCertificate: ca, privateKey: key, certChain: cert } }
    : { hosts: `http://${address}` });
  const watcher = await client.watch().key('foreign/node').create();
  const seen = new Promise((good) => watcher.once('put', (kv) => good(kv.value.toString())));
  await client.put('foreign/node').value('one');
  assert.strictEqual(await client.get('foreign/node').string(), 'one');
  assert.strictEqual(await seen, 'one');
  const lease = client.lease(10);
  await lease.put('foreign/leased').value('x');
  await lease.revoke();
  assert.strictEqual(await client.get('foreign/leased').string(), null);
  await watcher.cancel();
  client.close();
};

setTimeout(() => { console.error('timed out'); process.exit(1); }, 20000).unref();
({ 'grpc-js': grpcJs, etcd3 })[which]().then(
  () => process.exit(0), (error) => { console.error(String(error)); process.exit(1); });
