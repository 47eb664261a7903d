// The bar at the foot of each page: did it come from the cache, which nodes are
// at work, and what happens when one of them stops.
"use strict";

(() => {
  const bar = document.querySelector(".edge");
  const cache = document.getElementById("cache");
  const list = document.getElementById("nodes");
  const tally = document.getElementById("tally");

  const LOOK = 2000; // milliseconds between two looks at the cache
  const ROUND = 1000; // and between two rounds of requests
  const AT_ONCE = 3; // requests of a round

  // A HEAD of the page's own address: the edge says in Cache-Status (RFC 9211)
  // whether it would answer from its cache.
  async function look() {
    const reply = await fetch(location.pathname, { method: "HEAD" });
    const status = reply.headers.get("cache-status");
    const node = reply.headers.get("x-node");
    if (status === null) {
      say("", "not cached: made for you alone");
    } else if (/;\s*hit\b/.test(status)) {
      const stale = /;\s*ttl=-/.test(status);
      const age = reply.headers.get("age") || "0";
      say(stale ? "miss" : "hit", `${stale ? "STALE" : "HIT"}, age ${age} s`, `, copy of node ${node}`);
    } else {
      const why = /;\s*fwd=([a-z-]+)/.exec(status);
      const word = why && !why[1].endsWith("miss") ? why[1].toUpperCase() : "MISS";
      say("miss", word, `, node ${node} was asked`);
    }
  }

  function say(kind, strong, rest = "") {
    const word = document.createElement("b");
    word.className = kind;
    word.textContent = strong;
    cache.replaceChildren("Cache: ", word, rest);
  }

  // One tile a node: how many requests it answered, and a button.
  const tiles = new Map();

  function tile(number) {
    const item = document.createElement("li");
    const label = document.createElement("span");
    const button = document.createElement("button");
    const share = document.createElement("progress");
    share.setAttribute("aria-label", `Share of node ${number}`);
    button.addEventListener("click", async () => {
      const verb = tiles.get(number).running ? "stop" : "start";
      await fetch(`/demo/nodes/${number}/${verb}`, { method: "POST" });
      await states();
    });
    item.append(label, button, share);
    list.append(item);
    return { item, label, button, share, count: 0, running: true };
  }

  function draw() {
    const all = [...tiles.values()].reduce((sum, one) => sum + one.count, 0);
    for (const [number, one] of tiles) {
      one.item.className = one.running ? "" : "down";
      one.label.textContent = `Node ${number}: ${one.count}${one.running ? "" : ", stopped"}`;
      one.button.textContent = one.running ? "Stop" : "Start";
      one.share.max = Math.max(all, 1);
      one.share.value = one.count;
    }
    tally.textContent = sent === 0 ? "" : `${sent} requests, ${failed} failed`;
  }

  async function states() {
    const reply = await fetch("/demo/nodes", { cache: "no-store" });
    for (const { node, running } of (await reply.json()).nodes) {
      if (!tiles.has(node)) tiles.set(node, tile(node));
      tiles.get(node).running = running;
    }
    draw();
  }

  let sent = 0;
  let failed = 0;

  async function ask() {
    sent += 1;
    try {
      const reply = await fetch("/api/time", { cache: "no-store" });
      if (!reply.ok) throw new Error(String(reply.status));
      tiles.get((await reply.json()).node).count += 1;
    } catch {
      failed += 1;
    }
  }

  async function round() {
    await states();
    await Promise.all(Array.from({ length: AT_ONCE }, ask));
    draw();
  }

  // Repeats while `wanted`; an edge that does not answer just now is asked again.
  async function repeat(task, pause, wanted) {
    for (;;) {
      if (wanted()) await task().catch(() => {});
      await new Promise((wake) => setTimeout(wake, pause));
    }
  }

  bar.addEventListener("toggle", () => bar.open && states().catch(() => {}));
  repeat(look, LOOK, () => !document.hidden);
  repeat(round, ROUND, () => !document.hidden && bar.open);
})();
