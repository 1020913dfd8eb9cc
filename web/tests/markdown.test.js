import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from './load.js'

const { MarkdownStream, lex, linkTarget, pieces, plain, quotedBlocks, safeLink } = await load('markdown.ts')

const TEXT = `# Title

Some **bold** text, a [link](https://example.com/a).

- one

- two
  more

| a | b |
|---|--:|
| 1 | 2 |

\`\`\`python
def f():

    return 1
\`\`\`

> quoted

1. first
2. second

Setext
======

The end.
`
const shape = (blocks) => blocks.map(({ token }) => token.raw.trim())

test('a text that arrives character by character ends as the same blocks', () => {
  const stream = new MarkdownStream()
  for (const character of TEXT) stream.push(character)
  assert.deepEqual(shape(stream.blocks), shape(new MarkdownStream(TEXT).blocks))
  assert.deepEqual(shape(stream.blocks), lex(TEXT).filter((token) => token.type !== 'space').map((token) => token.raw.trim()))
})

test('a closed block is parsed once: it stays the same object while the text grows', () => {
  const stream = new MarkdownStream('First paragraph.\n\nSecond')
  const first = stream.blocks[0]
  stream.push(' paragraph grows.\n\nThird')
  assert.equal(stream.blocks[0], first)
  assert.equal(new Set(stream.blocks.map((block) => block.key)).size, stream.blocks.length)
})

test('links lead to the web and to mail, and nowhere else', () => {
  assert.equal(safeLink('https://example.com/a'), 'https://example.com/a')
  assert.equal(safeLink('mailto:a@b.c'), 'mailto:a@b.c')
  for (const bad of ['javascript:alert(1)', ' JaVaScRiPt:alert(1)', 'java\nscript:alert(1)', 'data:text/html,x', 'vbscript:x', 'file:///etc/passwd', 'blob:x', '//evil.example', '/api/knowledge', '']) {
    assert.equal(safeLink(bad), null, bad)
  }
})

test('a link shows where it leads unless its text says so', () => {
  const link = (source) => lex(source)[0].tokens[0]
  assert.equal(linkTarget(link('[bank](https://evil.example/x)')), 'evil.example')
  assert.equal(linkTarget(link('[example.com](https://example.com/x)')), '')
  assert.equal(linkTarget(link('[x](javascript:alert(1))')), '')
})

test('the page draws tokens: none of its parts puts a string into the document as markup', async () => {
  const { readdir, readFile } = await import('node:fs/promises')
  const root = new URL('../src/', import.meta.url)
  for (const name of await readdir(root, { recursive: true })) {
    if (!/\.(svelte|ts)$/.test(name)) continue
    const source = await readFile(new URL(name, root), 'utf8')
    assert.doesNotMatch(source, /\{@html|innerHTML|outerHTML|insertAdjacentHTML|srcdoc|document\.write/, name)
    assert.doesNotMatch(source, /\sstyle="/, `${name}: the policy forbids style attributes`)
  }
})

test('citation markers are cut out; forged numbers stay text', () => {
  assert.deepEqual(pieces('Nine o’clock [1][2]. See [9].', (n) => n < 3), [
    { text: 'Nine o’clock' }, { cite: 1, text: ' [1]' }, { cite: 2, text: '[2]' }, { text: '. See [9].' },
  ])
})

test('in a quote only the marks at its end are marks', () => {
  const blocks = quotedBlocks('As shown in [1], *a* <b> grows. [2][3]\n\n```\nif x:\n\n    y[1]\n```\n[4]')
  const [first, code, marks] = blocks.map((block) => block.token)
  assert.deepEqual(first.tokens.map((t) => t.number ?? t.raw), ['As shown in [1], *a* <b> grows.', 2, 3])
  assert.equal(code.type, 'code')
  assert.equal(code.text, 'if x:\n\n    y[1]')
  assert.deepEqual(marks.tokens.map((t) => t.number ?? t.raw), ['', 4])
})

test('entities are drawn as their characters', () => {
  assert.equal(plain('a &lt; b &amp;&amp; c'), 'a < b && c')
})
