// A build as shops have it: hashed names, source maps, chunks that are loaded when they are needed.
import { defineConfig } from "vite";

export default defineConfig({
  build: {
    // The font and the module are files of their own, not text inside others.
    assetsInlineLimit: 0,
    sourcemap: true,
    rollupOptions: { input: ["index.html", "about.html"] },
  },
  define: { RELEASE: JSON.stringify(process.env.RELEASE ?? "none") },
});
