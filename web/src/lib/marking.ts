// Which words of a document a citation means. Given the document's blocks and the passage; gives what to mark. Pure.

import type { Block, Place } from './api'

/** What is cited: the block it begins in, its place, its words. */
export interface Target {
  block: number | null
  place: Place | null
  text: string
}

/** A whole block, some characters of it, or some lines of it (numbered as in the file). */
export type Mark = { whole: true } | { from: number; to: number } | { firstLine: number; lastLine: number }

/** How far from its first block a passage may reach. */
const REACH = 40

export function markBlocks(blocks: Block[], target: Target): Map<number, Mark> {
  const marks = new Map<number, Mark>()
  const first = target.block
  const near = blocks.filter((block) => first === null || (block.index >= first && block.index <= first + REACH))
  // What of the passage no block has accounted for yet: its words are marked once, not wherever they come again.
  let rest = squeeze(target.text).text
  for (const block of near) {
    if (target.place?.chapter !== undefined && block.place.chapter !== target.place.chapter) continue
    const mark = markOf(block, target, rest)
    if (!mark) continue
    marks.set(block.index, mark)
    rest = after(rest, squeeze(block.text).text)
  }
  if (marks.size === 0 && first !== null && blocks.some((block) => block.index === first)) marks.set(first, { whole: true })
  return marks
}

/** The passage behind the words of a block; nothing, when the block holds all that was left of it. */
function after(rest: string, own: string): string {
  if (own.includes(rest)) return ''
  const at = rest.indexOf(own)
  return at < 0 ? rest : rest.slice(at + own.length)
}

function markOf(block: Block, target: Target, rest: string): Mark | null {
  const { place } = target
  if (block.kind === 'table_row') return markOfRow(block, target, rest)
  const lines = block.place.lines
  if (block.kind === 'code' && lines && place?.lines) {
    const [firstLine, lastLine] = [Math.max(lines[0], place.lines[0]), Math.min(lines[1], place.lines[1])]
    return firstLine <= lastLine ? { firstLine, lastLine } : null
  }
  if (!rest) return null
  const found = find(block.text, target.text)
  if (found) return found
  return holds(rest, block) ? { whole: true } : null
}

/** A table may hold the same row twice: only the cited row counts, and those that the passage goes on with. */
function markOfRow(block: Block, target: Target, rest: string): Mark | null {
  const { place } = target
  if (block.index === target.block) return { whole: true }
  if (place?.cells) {
    if (place.cells === block.place.cells && place.sheet === block.place.sheet) return { whole: true }
  }
  return holds(rest, block) ? { whole: true } : null
}

function holds(rest: string, block: Block): boolean {
  const own = squeeze(block.text).text
  return own.length >= 4 && rest.includes(own)
}

/** Where `passage` stands in `text`, whatever spaces and line breaks lie between its characters. */
export function find(text: string, passage: string): { from: number; to: number } | null {
  const haystack = squeeze(text)
  const needle = squeeze(passage).text
  const at = needle ? haystack.text.indexOf(needle) : -1
  if (at < 0) return null
  return { from: haystack.at[at] as number, to: (haystack.at[at + needle.length - 1] as number) + 1 }
}

/** The text without spaces and in lower case, and where each of its characters stood. */
function squeeze(text: string): { text: string; at: number[] } {
  let squeezed = ''
  const at: number[] = []
  for (let i = 0; i < text.length; i++) {
    const character = text[i] as string
    if (/[\s\u200b\u00ad]/.test(character)) continue
    const lower = character.toLowerCase()
    squeezed += lower.length === 1 ? lower : character
    at.push(i)
  }
  return { text: squeezed, at }
}

/** Whether a list item begins with its own sign or number, so that the page must not draw a second one. */
export function bringsItsBullet(text: string): boolean {
  return /^\s*([•·‣◦–*-]|[(（]?[\d一二三四五六七八九十a-zA-Z]{1,3}[.)、）])/.test(text)
}

/** A run of blocks that is drawn as one: rows of one table, or a single other block. */
export type Group = { kind: 'table'; key: number; header: string[]; rows: Block[] } | { kind: 'block'; key: number; block: Block }

export function group(blocks: Block[]): Group[] {
  const groups: Group[] = []
  for (const block of blocks) {
    const last = groups.at(-1)
    if (block.kind !== 'table_row') groups.push({ kind: 'block', key: block.index, block })
    else if (last?.kind === 'table' && continues(last, block)) {
      if (!last.header.length) last.header = block.header ?? []
      last.rows.push(block)
    }
    else groups.push({ kind: 'table', key: block.index, header: block.header ?? [], rows: [block] })
  }
  return groups
}

/** Whether two rows of cells say the same: a header row stands in the document, and again as the header of its rows. */
export function sameCells(a: string[] | undefined, b: string[] | undefined): boolean {
  return (a ?? []).join('\u0000') === (b ?? []).join('\u0000')
}

function continues(table: Group & { kind: 'table' }, row: Block): boolean {
  const [p, q] = [(table.rows[0] as Block).place, row.place]
  const samePlace = p.sheet === q.sheet && p.table === q.table && p.slide === q.slide && p.chapter === q.chapter
  if (!samePlace) return false
  const onlyHeaderSoFar = table.rows.length === 1 && !table.header.length && sameCells(table.rows[0]?.cells, row.header)
  return onlyHeaderSoFar || sameCells(table.header, row.header)
}
