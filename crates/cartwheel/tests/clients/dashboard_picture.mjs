// Takes the README's picture of the dashboard: five nodes in three zones, under some load.
// Arguments: the program `cartwheel`, and the file to write.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { deflateSync, inflateSync } from "node:zlib";
import { Browser } from "./browser.mjs";

const BASE = 47080;
const NODES = 5;
const LOADED_MS = 40_000;

const [program, file] = process.argv.slice(2);
const dir = mkdtempSync(join(tmpdir(), "dashboard-"));
const nodes = Array.from({ length: NODES }, (_, at) => `http://127.0.0.1:${BASE + at + 1}`);
const ports = ["--http-base", BASE, "--peer-base", BASE + 10, "--resp-base", BASE + 20];
const dev = spawn(program, ["dev", "--nodes", NODES, "--dir", join(dir, "data"), ...ports], { stdio: ["ignore", "pipe", "ignore"] });
try {
  for await (const line of createInterface({ input: dev.stdout })) if (line.includes("nodes are ready")) break;
  const changes = ["a", "a", "b", "b", "c"].map((zone, at) => `zone=node-${at + 1}:${zone}`);
  execFileSync(program, ["cluster", "change", ...changes, "--yes", "--wait", "--node", nodes[0]], { stdio: "ignore" });
  const put = (node, key, value) => fetch(`${node}/v1/kv/${key}`, { method: "PUT", body: value, headers: { "Content-Type": "text/plain" } });
  await put(nodes[0], "carts/alice", "milk");
  await put(nodes[1], "carts/alice", "bread");
  const browser = await Browser.launch("chromium");
  try {
    await browser.look({ width: 1280, height: 764 });
    await browser.goto(`${nodes[0]}/`);
    const until = Date.now() + LOADED_MS;
    const load = async (client) => {
      for (let at = 0; Date.now() < until; at += 1) {
        const key = `sessions/user-${(at * 7 + client * 131) % 3_000}`;
        if ((at + client) % 4 === 0) await put(nodes[0], key, JSON.stringify({ user: at, basket: "x".repeat(60) }));
        else await (await fetch(`${nodes[0]}/v1/kv/${key}`)).arrayBuffer();
        await new Promise((resolve) => setTimeout(resolve, 8 + 8 * Math.sin(Date.now() / 4_000)));
      }
    };
    const loading = [0, 1, 2].map(load);
    await new Promise((resolve) => setTimeout(resolve, LOADED_MS - 4_000));
    await browser.fill("#find-key", "carts/alice");
    await browser.until("document.querySelector('.located')");
    await browser.run("document.activeElement.blur()");
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    writeFileSync(file, packed(await browser.picture()));
    await Promise.all(loading);
  } finally {
    await browser.close();
  }
} finally {
  const ended = once(dev, "exit");
  dev.kill("SIGTERM");
  await ended;
  rmSync(dir, { recursive: true, force: true });
}
process.exit(0);

/** The same PNG, compressed as well as zlib can: the browser compresses for speed. */
function packed(png) {
  const kept = [];
  const data = [];
  for (let at = 8; at < png.length; ) {
    const length = png.readUInt32BE(at);
    const [type, content] = [png.toString("latin1", at + 4, at + 8), png.subarray(at + 8, at + 8 + length)];
    if (type === "IDAT") data.push(content);
    else if (type === "IHDR") kept.push([type, content]);
    at += 12 + length;
  }
  const image = deflateSync(inflateSync(Buffer.concat(data)), { level: 9, memLevel: 9 });
  const chunks = [...kept, ["IDAT", image], ["IEND", Buffer.alloc(0)]].map(([type, content]) => {
    const body = Buffer.concat([Buffer.from(type, "latin1"), content]);
    const [length, check] = [Buffer.alloc(4), Buffer.alloc(4)];
    length.writeUInt32BE(content.length);
    check.writeUInt32BE(crc32(body));
    return Buffer.concat([length, body, check]);
  });
  return Buffer.concat([png.subarray(0, 8), ...chunks]);
}

function crc32(bytes) {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
