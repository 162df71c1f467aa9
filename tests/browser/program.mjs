// The real binary on a free port, in a folder of its own.

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const target = process.env.CARGO_TARGET_DIR ?? join(root, "target");

/** Folder for screenshots. */
export const pictures = join(target, "browser");
mkdirSync(pictures, { recursive: true });

/** The picture at the top of the README. */
export const readmePicture = join(root, "docs/page.png");

const binaries = ["release", "debug"].map((profile) => join(target, profile, "cruddur")).filter(existsSync);
if (binaries.length === 0) throw new Error(`no ${target}/release/cruddur; next: cargo build --release`);
/** The binary that was built last. */
const binary = binaries.sort((a, b) => statSync(b).mtimeMs - statSync(a).mtimeMs)[0];

/** Starts the program. `end` ends it by its own process id and waits. */
export async function start({ toml = "", env = {}, port = 0 } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "cruddur-browser-"));
  const args = ["--listen", `127.0.0.1:${port}`];
  if (toml) {
    writeFileSync(join(folder, "telemetry.toml"), toml);
    args.push("--config", "telemetry.toml");
  }
  const options = { cwd: folder, env: { PATH: process.env.PATH, ...env }, stdio: ["ignore", "ignore", "pipe"] };
  const child = spawn(binary, args, options);
  let stderr = "";
  const url = await new Promise((found, failed) => {
    const timer = setTimeout(() => failed(new Error(`not listening:\n${stderr}`)), 10_000);
    child.stderr.on("data", (part) => {
      stderr += part;
      const line = stderr.match(/listening on (http:\S+).*\n/);
      if (line) (clearTimeout(timer), found(line[1]));
    });
    child.on("exit", (status) => failed(new Error(`ended with ${status}:\n${stderr}`)));
  });
  child.removeAllListeners("exit");
  const ended = new Promise((done) => child.on("exit", done));
  const end = async () => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill("SIGKILL");
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  };
  const save = (text) => writeFileSync(join(folder, "telemetry.toml"), text);
  return { url, save, end };
}
