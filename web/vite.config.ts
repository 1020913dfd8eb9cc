// How the page is built: small files of our own host only, no inlined data (the server's policy is `default-src 'self'`).
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

const service = process.env.QUINZE_SERVICE ?? 'http://127.0.0.1:1515'
const proxied = ['/api', '/v1', '/health', '/openapi.json']

export default defineConfig({
  plugins: [svelte()],
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: {
    port: 1516,
    proxy: Object.fromEntries(proxied.map((path) => [path, { target: service, changeOrigin: true, headers: { origin: service } }])),
  },
})
