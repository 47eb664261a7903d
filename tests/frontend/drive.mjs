// Drives a browser over the site, and tells a test, line by line of JSON, what it saw.
//
//   node drive.mjs CHROMIUM URL CERTIFICATE
//
// Where the test has something to do in between, the line says so ({"wait": "..."}), and one line
// on standard input answers.
import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [executablePath, url, certificate] = process.argv.slice(2);
const say = (value) => console.log(JSON.stringify(value));
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const wait = async (what) => {
  say({ wait: what });
  await lines.next();
};

// The browser takes this key for right, so that it caches as it does elsewhere: what comes over a
// connection with a certificate error is never stored.
const key = new X509Certificate(readFileSync(certificate)).publicKey;
const pin = createHash("sha256")
  .update(key.export({ type: "spki", format: "der" }))
  .digest("base64");
const browser = await chromium.launch({
  executablePath,
  args: [
    "--no-sandbox",
    `--ignore-certificate-errors-spki-list=${pin}`,
    "--host-resolver-rules=MAP shop.test 127.0.0.1",
  ],
});
const page = await browser.newPage();
page.on("console", (message) => {
  if (["error", "warning"].includes(message.type())) say({ problem: message.text() });
});
page.on("pageerror", (error) => say({ problem: String(error) }));
page.on("requestfailed", (request) => say({ problem: `${request.url()}: ${request.failure()?.errorText}` }));
page.on("response", async (response) => {
  const { pathname } = new URL(response.url());
  say({ path: pathname, status: response.status(), type: response.headers()["content-type"] });
});

const text = (id) => page.locator(`#${id}`).textContent();
const opened = async () => {
  await page.waitForFunction(() => document.getElementById("release")?.textContent);
  await page.waitForLoadState("networkidle");
  const protocol = await page.evaluate(
    () => performance.getEntriesByType("navigation")[0].nextHopProtocol,
  );
  const font = await page.evaluate(() => document.fonts.check("16px Inter"));
  say({ release: await text("release"), sum: await text("sum"), font, protocol });
};

try {
  await page.goto(url);
  await opened();
  await wait("opened");

  await page.reload();
  await opened();
  await wait("reloaded");

  await page.click("a");
  await page.waitForURL("**/about.html");
  await page.waitForLoadState("networkidle");
  await wait("left");
  await page.goBack();
  await opened();
  await wait("came back");

  // Another release is there now; this page was made of the one before.
  await page.click("#more");
  await page.waitForFunction(() => document.getElementById("lazy").textContent);
  say({ lazy: await text("lazy") });
  await wait("lazy part loaded");

  await page.reload();
  await opened();
  await page.click("#more");
  await page.waitForFunction(() => document.getElementById("lazy").textContent);
  say({ lazy: await text("lazy") });
  await wait("the new release opened");
} finally {
  await browser.close();
  process.stdin.destroy();
}
