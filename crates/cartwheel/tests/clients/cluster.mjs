// The story with the cluster client of ioredis or node-redis: node cluster.mjs PORT PROTOCOL CLIENT. It waits for a line on its input while a node is
// killed.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import process from "node:process";

const [port, protocol, name] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
const load = createRequire(`${process.env.NODE_PATH}/`);

async function connect() {
  if (name === "ioredis") {
    const { Cluster } = load("ioredis");
    const client = new Cluster([{ host: "127.0.0.1", port }], { redisOptions: { protocol } });
    return { set: (key, value) => client.set(key, value), get: (key) => client.get(key), mget: (keys) => client.mget(...keys), close: () => client.disconnect() };
  }
  const { createCluster } = load("redis");
  // By default it asks for another map 5 seconds after a connection fails, which is when the commands that wait for it run out of time. When it has
  // the map, it fails those commands (DisconnectsClientError), with any server: a program has to send them again.
  const options = { topologyRefreshOnReconnectionAttemptStrategy: 200 };
  const client = createCluster({ rootNodes: [{ url: `redis://127.0.0.1:${port}` }], RESP: protocol, ...options });
  client.on("error", () => {});
  await client.connect();
  const again = (command) => command().catch((error) => (error.constructor.name === "DisconnectsClientError" ? command() : Promise.reject(error)));
  return {
    set: (key, value) => again(() => client.set(key, value)),
    get: (key) => again(() => client.get(key)),
    mget: (keys) => client.mGet(keys),
    close: () => client.destroy(),
  };
}

const store = await connect();
const key = (rest) => `${name}${protocol}:${rest}`;
const numbers = [...Array(200).keys()];
for (const number of numbers) assert.equal(await store.set(key(number), String(number)), "OK");
for (const number of numbers) assert.equal(await store.get(key(number)), String(number));
await store.set("{tag}:a", "1");
await store.set("{tag}:b", "2");
assert.deepEqual(await store.mget(["{tag}:a", "{tag}:b"]), ["1", "2"]);

console.log("kill");
await once(process.stdin, "data");
for (const number of numbers) await store.set(key(`k${number}`), String(number));
for (const number of numbers) assert.equal(await store.get(key(`k${number}`)), String(number));
store.close();
console.log("done");
process.exit(0);
