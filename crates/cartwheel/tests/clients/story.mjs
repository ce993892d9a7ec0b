// The story with ioredis or node-redis: node story.mjs PORT PROTOCOL CLIENT. It waits for a line on its input while a node is killed.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createRequire } from "node:module";
import process from "node:process";

const [port, protocol, name] = [Number(process.argv[2]), Number(process.argv[3]), process.argv[4]];
// The libraries are where NODE_PATH says.
const load = createRequire(`${process.env.NODE_PATH}/`);

// The calls that the story makes, for each library.
async function connect() {
  if (name === "ioredis") {
    const { Redis } = load("ioredis");
    const client = new Redis({ port, connectionName: "story", protocol });
    return {
      client,
      call: (...words) => client.call(...words),
      set: (key, value, ...options) => client.set(key, value, ...options),
      get: (key) => client.get(key),
      many: async (commands) => {
        const pipeline = client.pipeline();
        commands.forEach(([command, ...words]) => pipeline[command](...words));
        return (await pipeline.exec()).map(([error, reply]) => error ?? reply);
      },
      close: () => client.disconnect(),
    };
  }
  const { createClient } = load("redis");
  const client = await createClient({ socket: { port }, name: "story", RESP: protocol }).connect();
  return {
    client,
    call: (...words) => client.sendCommand(words.map(String)),
    set: (key, value, ...options) => client.sendCommand(["SET", key, String(value), ...options.map(String)]),
    get: (key) => client.get(key),
    many: (commands) => Promise.all(commands.map(([command, ...words]) => client.sendCommand([command, ...words.map(String)]))),
    close: () => client.destroy(),
  };
}

const store = await connect();
const key = (rest) => `${name}${protocol}:${rest}`;
assert.equal(await store.call("PING"), "PONG");
assert.equal(await store.set(key("a"), "1"), "OK");
assert.equal(await store.get(key("a")), "1");
assert.equal(await store.get(key("none")), null);
assert.equal(await store.set(key("a"), "2", "EX", 1000, "GET"), "1");
assert.ok((await store.call("TTL", key("a"))) > 990);
assert.equal(await store.call("PERSIST", key("a")), 1);
assert.equal(await store.call("GETEX", key("a"), "PX", "60000"), "2");
assert.equal(await store.call("TYPE", key("a")), "string");
assert.equal(await store.call("CLIENT", "GETNAME"), "story");

const numbers = [...Array(100).keys()];
assert.equal(await store.call("MSET", ...numbers.flatMap((number) => [key(number), String(number)])), "OK");
assert.deepEqual(await store.call("MGET", ...numbers.map(key)), numbers.map(String));
assert.equal(await store.call("DEL", key(1), key("none")), 1);
assert.equal(await store.call("EXISTS", key(1), key(2)), 1);

const commands = numbers.flatMap((number) => [["set", key("p"), number], ["get", key("p")]]);
assert.deepEqual(await store.many(commands), numbers.flatMap((number) => ["OK", String(number)]));
let [cursor, found] = ["0", []];
do {
  const page = await store.call("SCAN", cursor, "MATCH", key("9*"), "COUNT", "7");
  cursor = String(page[0]);
  found.push(...page[1]);
} while (cursor !== "0");
assert.deepEqual(found.sort(), numbers.filter((number) => String(number).startsWith("9")).map(key).sort());
await assert.rejects(store.call("INCR", key("n")), /agree/);
await assert.rejects(store.call("LPUSH", "list", "1"), /unknown command/);

console.log("kill");
await once(process.stdin, "data");
for (const number of numbers) await store.set(key(`k${number}`), String(number));
for (const number of numbers) assert.equal(await store.get(key(`k${number}`)), String(number));
store.close();
console.log("done");
process.exit(0);
