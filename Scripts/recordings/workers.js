// SPDX-License-Identifier: Apache-2.0
//
// A load for Node: pools of worker threads, made and thrown away. Usage: node workers.js ROUNDS
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads');
if (isMainThread) {
  const rounds = Number(process.argv[2] || 10);
  const start = (seed) => new Promise((resolve, reject) => {
    const worker = new Worker(__filename, { workerData: seed });
    worker.on('message', () => {});
    worker.on('error', reject);
    worker.on('exit', resolve);
  });
  (async () => {
    for (let round = 0; round < rounds; round++) {
      await Promise.all([0, 1, 2, 3].map((seed) => start(round * 4 + seed)));
    }
  })();
} else {
  const kept = [];
  for (let i = 0; i < 6; i++) {
    const value = Array.from({ length: 120 }, (_, k) => ({ id: k + workerData, name: `item ${k}`, tags: [k % 7, i] }));
    kept.push(Buffer.from(JSON.stringify(value)));
    if (kept.length > 5) kept.shift();
    const large = Buffer.alloc(64 * 1024, i);
    parentPort.postMessage(large.subarray(0, 64));
  }
}
