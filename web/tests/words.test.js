import assert from 'node:assert/strict'
import { readdir, readFile } from 'node:fs/promises'
import { test } from 'node:test'
import { load } from './load.js'

const { words } = await load('words.ts')
const root = new URL('../src/', import.meta.url)
const sources = await Promise.all(
  (await readdir(root, { recursive: true })).filter((name) => /\.(svelte|ts)$/.test(name) && !name.endsWith('words.ts'))
    .map(async (name) => [name, await readFile(new URL(name, root), 'utf8')]),
)

test('every text is there in both languages, taking the same things', () => {
  for (const [key, entry] of Object.entries(words)) {
    assert.deepEqual(Object.keys(entry).sort(), ['en', 'zh'], key)
    assert.equal(typeof entry.en, typeof entry.zh, key)
    if (typeof entry.en === 'function') assert.equal(entry.en.length, entry.zh.length, key)
    else assert.ok(entry.en.trim() && entry.zh.trim(), key)
  }
})

test('Chinese texts are Chinese, English ones are not', () => {
  const said = (text) => (typeof text === 'function' ? text(1, 2, 3) : text)
  for (const [key, { en, zh }] of Object.entries(words)) {
    assert.doesNotMatch(said(en), /\p{Script=Han}|，|。/u, key)
    if (key !== 'tokensPerSecond' && key !== 'contextUsed') assert.match(said(zh), /\p{Script=Han}/u, key)
  }
})

test('no text is left that nobody shows', () => {
  const all = sources.map(([, source]) => source).join('\n')
  const prefixes = [...all.matchAll(/t\(`(\w+?_)\$\{/g)].map((found) => found[1])
  for (const key of Object.keys(words)) {
    const used = all.includes(`'${key}'`) || prefixes.some((prefix) => key.startsWith(prefix))
    assert.ok(used, `${key} is not used`)
  }
})

test('no component holds words of its own', () => {
  for (const [name, source] of sources.filter(([name]) => name.endsWith('.svelte'))) {
    const markup = source.replace(/<script[\s\S]*?<\/script>|<style>[\s\S]*?<\/style>|<!--[\s\S]*?-->/g, '').replace(/'简体中文'|'中文'/g, '')
    assert.doesNotMatch(markup, /\p{Script=Han}{2,}/u, name)
  }
})
