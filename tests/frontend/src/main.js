// The page as it is opened; what the button shows comes only when it is pressed.
import "./style.css";
import module from "./add.wasm?url";

const show = (id, text) => {
  document.getElementById(id).textContent = text;
};

// Refused by browsers unless it comes as application/wasm.
const { instance } = await WebAssembly.instantiateStreaming(fetch(module));
show("sum", String(instance.exports.add(2, 3)));

document.getElementById("more").addEventListener("click", async () => {
  const { more } = await import("./lazy.js");
  show("lazy", more());
});

await document.fonts.load("16px Inter");
show("release", RELEASE);
