// The main job, as a customer does it in a browser, on a real guest: log in, create a server from
// the image `tiny`, see it active, read its serial log, switch it off, destroy it and its drive.
//
// `cargo xtask test --only panel` runs this. It takes from the environment:
//   PANEL_URL, PANEL_USER, PANEL_PASSWORD   the panel and an account
//   PLAYWRIGHT                              a directory in whose node_modules playwright-core is
//   PICTURES                                where to put a picture of each page (may be unset)

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const { PANEL_URL, PANEL_USER, PANEL_PASSWORD, PLAYWRIGHT, PICTURES } = process.env;
const { chromium } = createRequire(join(PLAYWRIGHT, "package.json"))("playwright-core");

// A guest boots under software processors: slow machines get their time, quick ones do not wait.
const PATIENCE = 240_000;
const name = "browser's <b>server</b>";

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
// Pages must work without scripts: here they have none.
const context = await browser.newContext({ javaScriptEnabled: false });
const page = await context.newPage();
page.setDefaultTimeout(PATIENCE);
page.setDefaultNavigationTimeout(PATIENCE);

const complaints = [];
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) complaints.push(message.text());
});
page.on("response", (response) => {
  if (response.status() >= 500) complaints.push(`${response.status()} ${response.url()}`);
});

const started = Date.now();
let count = 0;

async function step(what, action) {
  await action();
  count += 1;
  console.log(`${((Date.now() - started) / 1000).toFixed(1).padStart(6)} s  ${what}`);
  if (PICTURES) await page.screenshot({ path: join(PICTURES, `${count}.png`), fullPage: true });
}

const button = (label) => page.getByRole("button", { name: label, exact: true });
const link = (label) => page.getByRole("link", { name: label, exact: true });
const heading = (text) => page.getByRole("heading", { name: text, exact: true });

async function logIn(key) {
  await page.getByLabel("Account").fill(PANEL_USER);
  await page.getByLabel("Secret key").fill(key);
  await button("Log in").click();
}

try {
  await step("a stranger is sent to log in", async () => {
    await page.goto(`${PANEL_URL}/servers`);
    assert.equal(new URL(page.url()).pathname, "/login");
  });
  await step("a wrong key is refused", async () => {
    await logIn(`${PANEL_PASSWORD}x`);
    await page.getByText("The account or its key is wrong.").waitFor();
  });
  await step("the right key shows the servers", async () => {
    await logIn(PANEL_PASSWORD);
    await heading("Servers").waitFor();
  });
  await step("a server is created from tiny", async () => {
    await page.goto(`${PANEL_URL}/servers/create`);
    await page.getByLabel("Name").fill(name);
    await page.getByRole("radio", { name: /tiny/i }).check();
    await page.getByLabel("Processor, GHz").fill("1");
    await page.getByLabel("Memory, GiB").fill("0.5");
    await page.getByLabel("Disk, GiB").fill("1");
    await button("Create and start").click();
  });
  await step("the progress page ends at the server", async () => {
    await page.waitForURL(/\/servers\/[0-9a-f-]{36}$/);
    await heading(name).waitFor();
  });
  const server = page.url();
  await step("it is active", async () => {
    await page.getByText("active", { exact: true }).waitFor();
  });
  await step("its serial log says that the guest is up", async () => {
    await link("Serial log").click();
    await link("Follow").click();
    await page.getByRole("region", { name: "Serial log" }).getByText("tiny: up").waitFor();
  });
  await step("it is switched off", async () => {
    await page.goto(server);
    await button("Switch off").click();
    await page.getByText(`${name} was switched off.`).waitFor();
    await page.goto(server);
    await page.getByText("stopped", { exact: true }).waitFor();
  });
  await step("it is destroyed, after asking", async () => {
    await link("Destroy…").click();
    await heading(`Destroy the server ${name}?`).waitFor();
    await button("Destroy").click();
    await page.getByText("The server was destroyed; its drives stay.").waitFor();
    assert.equal((await page.goto(server)).status(), 404);
  });
  await step("its drive is free and is destroyed", async () => {
    await page.goto(`${PANEL_URL}/drives`);
    await link(`Destroy ${name}`).click();
    await button("Destroy").click();
    await page.getByText("The drive was destroyed.").waitFor();
  });
  await step("logging out ends it", async () => {
    await button("Log out").click();
    await page.goto(`${PANEL_URL}/servers`);
    assert.equal(new URL(page.url()).pathname, "/login");
  });
  // The one 404 and the one 401 are asked for above; a page that breaks its own policy is not.
  const unasked = complaints.filter((text) => !/status of 40[14]/.test(text));
  assert.deepEqual(unasked, [], "the browser complained");
  console.log(`1 passed, 0 failed`);
} catch (error) {
  console.error(`at ${page.url()}:`);
  console.error(await page.content().catch(() => "(no page)"));
  throw error;
} finally {
  await browser.close();
}
