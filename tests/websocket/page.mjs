// Opens WebSockets from a page in a browser, and says as JSON over which protocol the page came and
// what came back.
import { chromium } from "playwright-core";

const [executablePath, origin] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--ignore-certificate-errors"] });
const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
await page.goto(`${origin}/`);
const said = await page.evaluate(async () => {
  const socket = new WebSocket(`wss://${location.host}/socket`);
  await new Promise((done, failed) => { socket.onopen = done; socket.onerror = failed; });
  socket.send("from a page");
  const answer = await new Promise((done) => { socket.onmessage = (event) => done(event.data); });
  socket.close(3000, "bye");
  const close = await new Promise((done) => { socket.onclose = (event) => done(event.code); });
  const [entry] = performance.getEntriesByType("navigation");
  return { protocol: entry.nextHopProtocol, answer, close };
});
console.log(JSON.stringify(said));
await browser.close();
