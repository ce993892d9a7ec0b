// Builds the dashboard into `built/`, and notes there which sources it was built from. With `--to DIR` it builds into DIR instead.
import { build } from "esbuild";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const to = process.argv[2] === "--to" ? process.argv[3] : join(root, "built");
mkdirSync(to, { recursive: true });

await build({
  absWorkingDir: root,
  entryPoints: { dashboard: "src/main.tsx" },
  outdir: to,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["es2022"],
  jsx: "automatic",
  jsxImportSource: "preact",
  charset: "utf8",
  legalComments: "none",
  banner: { js: "/* Contains Preact, Copyright (c) 2015-present Jason Miller, under the MIT licence. */" },
});
await build({
  absWorkingDir: root,
  entryPoints: { dashboard: "src/style.css" },
  outdir: to,
  minify: true,
  charset: "utf8",
});
for (const file of ["index.html", "icon.svg"]) {
  copyFileSync(join(root, "src", file), join(to, file));
}

const top = ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"];
const sources = [...top, ...readdirSync(join(root, "src")).map((file) => `src/${file}`)].sort();
const hash = (file) => createHash("md5").update(readFileSync(join(root, file))).digest("hex");
writeFileSync(join(to, "sources.md5"), sources.map((file) => `${hash(file)}  ${file}\n`).join(""));
