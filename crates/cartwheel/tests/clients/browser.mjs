// A headless Chromium, driven over its debugging pipe.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-dev-shm-usage",
  "--hide-scrollbars",
  "--remote-debugging-pipe",
];

/** The limit for every wait: a test checks that something happens, not how fast the machine is. */
const PATIENCE_MS = 120_000;

export class Browser {
  static async launch(program) {
    const browser = new Browser();
    browser.dir = mkdtempSync(join(tmpdir(), "chromium-"));
    browser.process = spawn(program, [...FLAGS, `--user-data-dir=${browser.dir}`, "about:blank"], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    browser.calls = new Map();
    browser.next = 1;
    browser.problems = [];
    let rest = "";
    browser.process.stdio[4].setEncoding("utf8").on("data", (data) => {
      const messages = (rest + data).split("\0");
      rest = messages.pop();
      for (const message of messages) browser.heard(JSON.parse(message));
    });
    const { targetInfos } = await browser.send("Target.getTargets");
    const { targetId } = targetInfos.find((target) => target.type === "page");
    browser.session = (await browser.send("Target.attachToTarget", { targetId, flatten: true })).sessionId;
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await browser.send(`${domain}.enable`);
    return browser;
  }

  send(method, params = {}) {
    const id = this.next++;
    this.process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId: this.session })}\0`);
    return new Promise((resolve, reject) => this.calls.set(id, { resolve, reject, method }));
  }

  heard({ id, method, params, result, error }) {
    if (id !== undefined) {
      const call = this.calls.get(id);
      this.calls.delete(id);
      if (error) call.reject(new Error(`${call.method}: ${error.message}`));
      else call.resolve(result);
    } else if (method === "Runtime.exceptionThrown") {
      this.problems.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
    } else if (method === "Log.entryAdded" && (params.entry.source === "security" || /Content Security Policy|Trusted/.test(params.entry.text))) {
      this.problems.push(params.entry.text);
    }
  }

  async run(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  /** Waits until an expression is true in the page, and returns its value. */
  async until(expression, what = expression) {
    const begun = Date.now();
    for (;;) {
      const value = await this.run(`(() => { try { return ${expression}; } catch { return false; } })()`).catch(() => false);
      if (value) return value;
      if (Date.now() - begun > PATIENCE_MS) throw new Error(`not within ${PATIENCE_MS} ms: ${what}\n${await this.text()}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** Waits until the page shows a text. */
  shows(text) {
    return this.until(`document.body.innerText.includes(${JSON.stringify(text)})`, `the page shows ${text}`);
  }

  text() {
    return this.run("document.body.innerText");
  }

  async goto(url) {
    await this.send("Page.navigate", { url });
    await this.until(`location.href === ${JSON.stringify(url)} && document.readyState === "complete"`);
  }

  /** Clicks what a selector finds, or the button or link with this text. */
  async click(what) {
    const bySelector = `document.querySelector(${JSON.stringify(what)})`;
    const byText = `[...document.querySelectorAll("button, a")].find((element) => element.textContent.trim() === ${JSON.stringify(what)})`;
    const found = /^[#.[a-z]/.test(what) ? bySelector : `(${byText})`;
    await this.until(`${found} && !${found}.disabled`, `${what} can be clicked`);
    await this.run(`${found}.focus(), ${found}.click()`);
  }

  /** Puts a text into a field, as if it was typed. */
  async fill(selector, text) {
    const field = `document.querySelector(${JSON.stringify(selector)})`;
    await this.until(field);
    await this.run(`${field}.focus(), ${field}.select()`);
    await this.send("Input.insertText", { text });
  }

  async press(key) {
    const codes = { Escape: 27, Enter: 13, Tab: 9, ArrowRight: 39, ArrowLeft: 37 };
    const press = { key, code: key, windowsVirtualKeyCode: codes[key] };
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", ...press });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", ...press });
  }

  async look({ width = 1280, height = 900, dark = false, scale = 1 }) {
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: scale, mobile: width < 600 });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }] });
  }

  /** A picture of what the window shows, or of the whole page. */
  async picture(isWhole = false) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: isWhole, ...(isWhole ? { clip: await this.whole() } : {}) });
    return Buffer.from(data, "base64");
  }

  async whole() {
    const { cssContentSize } = await this.send("Page.getLayoutMetrics");
    return { ...cssContentSize, scale: 1 };
  }

  async close() {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill("SIGKILL");
    await ended;
    // Processes of the browser may go on writing for a moment.
    rmSync(this.dir, { recursive: true, force: true, maxRetries: 50, retryDelay: 20 });
  }
}
