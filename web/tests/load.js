// Makes a TypeScript module of src/ importable by node: esbuild comes with Vite, and Node 20 reads no types.

import { build } from 'esbuild'

export async function load(path) {
  const made = await build({
    entryPoints: [new URL(`../src/lib/${path}`, import.meta.url).pathname],
    bundle: true, format: 'esm', platform: 'node', write: false, logLevel: 'error',
  })
  return import(`data:text/javascript;base64,${Buffer.from(made.outputFiles[0].contents).toString('base64')}`)
}
