// Drives the dashboard of a cluster of three nodes, of which the first is killed in the middle.
// Arguments: the browser, then the HTTP addresses of the nodes. Says "kill" when node 1 is to be killed, and "done" at the end.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import { createInterface } from "node:readline";
import { Browser } from "./browser.mjs";

const [program, ...nodes] = process.argv.slice(2);
const put = (node, key, value) => fetch(`${node}/v1/kv/${key}`, { method: "PUT", body: value, headers: { "Content-Type": "text/plain" } });
const get = (node, key) => fetch(`${node}/v1/kv/${key}`);

// Two writes that have not seen each other, and one that tries to be markup.
await put(nodes[0], "carts/alice", "milk");
await put(nodes[1], "carts/alice", "bread");
await put(nodes[0], "sessions/7", "{}");
await put(nodes[0], "carts/mallory", "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>");

const browser = await Browser.launch(program);
try {
  await loadsInAllLooks();
  await findsReplicas();
  await showsMarkupAsText();
  await mergesSiblings();
  await plansAChange();
  await editsSettings();
  await worksByKeyboard();
  await signsIn();
  await goesOnThroughAnotherNode();
  assert.deepEqual(browser.problems, [], "no script failed and the page kept to its policy");
} finally {
  await browser.close();
}
console.log("done");
process.exit(0);

async function loadsInAllLooks() {
  for (const look of [{ dark: false }, { dark: true }, { width: 360, height: 740 }, { width: 360, height: 740, dark: true }]) {
    await browser.look(look);
    await browser.goto(`${nodes[0]}/`);
    await browser.shows("Everything is well");
    await browser.until("document.querySelectorAll('.nodes tbody tr').length === 3");
    await browser.until("document.querySelectorAll('.ring .bands path').length >= 9", "each of three bands has three colours");
    const ground = await browser.run("getComputedStyle(document.body).backgroundColor");
    const isDark = Math.max(...ground.match(/\d+/g).map(Number)) < 100;
    assert.equal(isDark, look.dark ?? false, ground);
    const width = await browser.run("document.documentElement.scrollWidth");
    assert.ok(width <= (look.width ?? 1280), `the page is ${width} wide`);
  }
  // The switch wins over the system.
  await browser.look({ dark: true });
  await browser.click(".theme");
  await browser.until("document.documentElement.dataset.theme === 'light' && getComputedStyle(document.body).backgroundColor !== 'rgb(19, 21, 23)'");
  await browser.look({});
}

async function findsReplicas() {
  const located = await (await fetch(`${nodes[0]}/v1/cluster/locate/carts/alice`)).json();
  await browser.fill("#find-key", "carts/alice");
  await browser.until("document.querySelectorAll('.located [data-replica]').length === 3");
  const replicas = await browser.run("[...document.querySelectorAll('.located .replica')].map((path) => path.dataset.replica)");
  assert.deepEqual(replicas, located.preference_list.filter(({ role }) => role === "home").map(({ node }) => node));
  await browser.shows(located.token);
  await browser.shows(`partition ${located.partition}`);
}

async function showsMarkupAsText() {
  await browser.goto(`${nodes[0]}/#/keys?bucket=carts&key=mallory`);
  await browser.until("document.querySelector('article.sibling pre')?.textContent.startsWith('<img src=x')");
  assert.equal(await browser.run("document.querySelectorAll('.sibling img, .sibling script').length"), 0);
  assert.notEqual(await browser.run("document.title"), "owned");
}

async function mergesSiblings() {
  await browser.goto(`${nodes[0]}/#/keys?bucket=carts&key=alice`);
  await browser.until("document.querySelectorAll('article.sibling').length === 2");
  await browser.until("document.querySelectorAll('.graph .sibling').length === 2", "both stand in the graph");
  await browser.until("document.querySelectorAll('.replicas tr.home').length === 3");
  await browser.click("Merge…");
  await browser.until("document.querySelector('.editor textarea').value.split('\\n').sort().join() === 'bread,milk'");
  await browser.fill(".editor textarea", "bread, milk, eggs");
  await browser.click("Write merged value");
  await browser.shows("Merged (home=");
  await browser.until("document.querySelectorAll('article.sibling').length === 1");
  const read = await get(nodes[2], "carts/alice");
  assert.equal(read.status, 200);
  assert.equal(await read.text(), "bread, milk, eggs");
  // And delete it.
  await browser.click("Delete…");
  await browser.click("dialog .danger");
  await browser.shows("The key is deleted");
  assert.equal((await get(nodes[2], "carts/alice?r=3")).status, 404);
}

async function plansAChange() {
  await browser.goto(`${nodes[0]}/#/members`);
  await browser.until("document.querySelector('.change .narrow')");
  await browser.fill(".change .narrow", "50");
  await browser.click("Add to the plan");
  await browser.click("Plan");
  await browser.until("document.querySelectorAll('.pair .ring').length === 2");
  await browser.click("Clear");
}

async function editsSettings() {
  await browser.goto(`${nodes[0]}/#/buckets`);
  await browser.click("[aria-label='Settings of sessions']");
  await browser.fill("dialog input[type=number]", "2");
  await browser.run("document.querySelector('dialog select').value = 'lww', document.querySelector('dialog select').dispatchEvent(new Event('change', { bubbles: true }))");
  await browser.click("Save");
  await browser.shows("Settings of sessions saved");
  const settings = await (await fetch(`${nodes[0]}/v1/buckets/sessions`)).json();
  assert.deepEqual([settings.n, settings.conflict], [2, "lww"]);
}

async function worksByKeyboard() {
  await browser.click("[aria-label='Settings of sessions']");
  await browser.until("document.querySelector('dialog[open]')");
  await browser.press("Escape");
  await browser.until("!document.querySelector('dialog')");
  assert.equal(await browser.run("document.activeElement.getAttribute('aria-label')"), "Settings of sessions", "the focus goes back");
  await browser.run("document.querySelector('nav a[aria-current]').focus()");
  await browser.press("ArrowRight");
  assert.equal(await browser.run("document.activeElement.textContent"), "Cluster", "arrows go round the tabs");
  const unnamed = "[...document.querySelectorAll('button, input, select, textarea, svg[role]')].filter((element) => !element.textContent.trim() && !element.getAttribute('aria-label') && !element.labels?.length)";
  assert.equal(await browser.run(`${unnamed}.map((element) => element.outerHTML).join()`), "");
}

async function signsIn() {
  // In front of the node: lets requests with the right password pass.
  const wanted = `Basic ${Buffer.from("ana:grün").toString("base64")}`;
  const gate = createServer((request, response) => {
    const isOpen = request.url === "/" || request.url.startsWith("/assets/");
    if (!isOpen && request.headers.authorization !== wanted) {
      response.writeHead(401, { "Content-Type": "application/json", "WWW-Authenticate": "Basic" });
      return response.end('{"error":"unauthorized","message":"name a user"}');
    }
    const { hostname, port } = new URL(nodes[0]);
    const passed = httpRequest({ hostname, port, path: request.url, method: request.method, headers: request.headers }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    passed.on("error", () => response.destroy());
    request.pipe(passed);
  });
  await once(gate.listen(0, "127.0.0.1"), "listening");
  await browser.goto(`http://127.0.0.1:${gate.address().port}/`);
  await browser.shows("name a user");
  await browser.fill("[autocomplete=username]", "ana");
  await browser.fill("[type=password]", "wrong");
  await browser.click("dialog .main");
  await browser.shows("That was not accepted");
  await browser.fill("[type=password]", "grün");
  await browser.click("dialog .main");
  await browser.until("document.querySelectorAll('.nodes tbody tr').length === 3");
  assert.equal(await browser.run("Object.values(localStorage).join().includes('Basic')"), false, "the password goes with the tab");
  await browser.goto(`${nodes[0]}/`);
  gate.close();
  gate.closeAllConnections();
}

async function goesOnThroughAnotherNode() {
  await browser.goto(`${nodes[0]}/#/keys?bucket=carts&key=mallory`);
  await browser.until("document.querySelector('article.sibling pre')");
  const answers = createInterface({ input: process.stdin });
  console.log("kill");
  await once(answers, "line");
  await browser.shows("node-1 does not answer");
  assert.equal(await browser.run("document.querySelector('.notes [role=alert]') !== null"), true, "it is read out");
  await browser.until(`location.origin !== ${JSON.stringify(nodes[0])}`, "the page goes on through another node");
  assert.ok(nodes.includes(await browser.run("location.origin")));
  await browser.shows("node-1 did not answer any more. This page goes on through node-");
  await browser.until("document.querySelector('article.sibling pre')?.textContent.startsWith('<img')", "the same view");
  await browser.goto(`${await browser.run("location.origin")}/`);
  await browser.until("document.querySelectorAll('.nodes tr.bad, .nodes tr.warn').length === 1", "the lost node is marked");
}
