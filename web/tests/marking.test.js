import assert from 'node:assert/strict'
import { test } from 'node:test'
import { load } from './load.js'

const { find, group, markBlocks } = await load('marking.ts')
const { pagesWord } = await load('kinds.ts')
const { bytes, languageOf, remaining, roughly, seconds } = await load('format.ts')

const paragraph = (index, text) => ({ index, kind: 'paragraph', text, place: {} })
const row = (index, ...cells) => ({
  index, kind: 'table_row', text: cells.join(' | '), cells, header: ['a', 'b'], place: { sheet: 'S', cells: `A${index + 2}:B${index + 2}` },
})

test('a sentence is found whatever breaks lie in it', () => {
  assert.deepEqual(find('前言。年休假\n五天，另行通知。', '年休假 五天'), { from: 3, to: 9 })
  assert.equal(find('abc', 'x'), null)
  assert.equal(find('abc', '  '), null)
})

test('a passage over two paragraphs marks both', () => {
  const blocks = [paragraph(0, 'Before it.'), paragraph(1, 'First half of it.'), paragraph(2, 'Second half.'), paragraph(3, 'After.')]
  const marks = markBlocks(blocks, { block: 1, place: null, text: 'First half of it.\nSecond half.' })
  assert.deepEqual([...marks.keys()], [1, 2])
})

test('of equal rows only the cited one is marked', () => {
  const blocks = [row(0, 'x', '1'), row(1, 'y', '2'), row(2, 'x', '1')]
  assert.deepEqual([...markBlocks(blocks, { block: 0, place: { sheet: 'S', cells: 'A2:B2' }, text: 'x | 1' }).keys()], [0])
})

test('of code the cited lines are marked', () => {
  const code = { index: 4, kind: 'code', text: 'a\nb\nc', place: { lines: [10, 12] } }
  assert.deepEqual(markBlocks([code], { block: 4, place: { lines: [11, 11] }, text: 'b' }).get(4), { firstLine: 11, lastLine: 11 })
})

test('words that come again behind the cited ones are not marked with them', () => {
  const item = { index: 2, kind: 'list_item', text: 'Berries', place: {} }
  const blocks = [row(0, 'Berries', '150'), row(1, 'Grain', '200'), item]
  assert.deepEqual([...markBlocks(blocks, { block: 0, place: { sheet: 'S', cells: 'A2:B2' }, text: 'Berries | 150' }).keys()], [0])
  const twice = [paragraph(0, 'It is proved.'), paragraph(1, 'It is proved.')]
  assert.deepEqual([...markBlocks(twice, { block: 0, place: null, text: 'It is proved.' }).keys()], [0])
})

test('a line of one cell of a notebook is not that line of its output or of the next cell', () => {
  const cell = (index, chapter, text, part) => ({ index, kind: 'code', text, place: { chapter, lines: [1, 1], part } })
  const blocks = [cell(0, 'cell 1', 'print("fifteen")'), cell(2, 'cell 2', 'print(42)')]
  blocks.splice(1, 0, { index: 1, kind: 'code', text: 'fifteen', place: { chapter: 'cell 1', part: 'output' } })
  const marks = markBlocks(blocks, { block: 0, place: { chapter: 'cell 1', lines: [1, 1] }, text: 'print("fifteen")' })
  assert.deepEqual([...marks.keys()], [0])
})

test('where the words are not found the block itself is marked', () => {
  assert.deepEqual(markBlocks([paragraph(3, 'Other words.')], { block: 3, place: null, text: 'gone' }).get(3), { whole: true })
})

test('rows of one table are drawn as one, those of another apart', () => {
  const other = { ...row(2, 'z', '3'), place: { sheet: 'T', cells: 'A1:B1' } }
  const groups = group([row(0, 'x', '1'), row(1, 'y', '2'), other, paragraph(3, 'p')])
  assert.deepEqual(groups.map((g) => (g.kind === 'table' ? g.rows.length : 'block')), [2, 1, 'block'])
})

test('what has pages is counted by their own name', () => {
  assert.deepEqual(['pptx', 'xlsx', 'csv', 'pdf', 'image'].map(pagesWord), ['slides', 'sheets', 'sheets', 'pagesCount', 'pagesCount'])
})

test('a text is set in its own language, whatever that of the page', () => {
  assert.deepEqual(['It’s due.', '房租 is due', '15,000'].map(languageOf), ['en', 'zh-CN', 'en'])
})

test('numbers read as people say them', () => {
  assert.deepEqual([bytes(999), bytes(1536), bytes(5e9)], ['999 B', '1.5 KB', '4.7 GB'])
  assert.deepEqual([seconds(0.042, 'en'), seconds(75, 'zh'), roughly(7.4, 'en')], ['42 ms', '1 分 15 秒', '7 s'])
  assert.equal(remaining(1, 4, 3), 9)
  assert.equal(remaining(0, 4, 3), null)
})

test('a header row that stands in the document is the header of its table, not a table of its own', () => {
  const head = { index: 0, kind: 'table_row', text: 'a | b', cells: ['a', 'b'], header: [], place: { table: 1, row: 1 } }
  const next = { index: 1, kind: 'table_row', text: '1 | 2', cells: ['1', '2'], header: ['a', 'b'], place: { table: 1, row: 2 } }
  const [table, ...others] = group([head, next])
  assert.equal(others.length, 0)
  assert.deepEqual(table.header, ['a', 'b'])
})
