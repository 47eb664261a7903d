// Shows the path, so that a single-page application's fallback can be seen at work.
"use strict";

document.getElementById("path").textContent = `You are at ${location.pathname}`;
